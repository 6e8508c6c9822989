"""Dated facts about upstreams: what is known on a day, and what the configuration overrides."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from broker.policy.decisions import ProfileLifetime, UpstreamFacts
from broker.policy.upstream_facts import (
    BACKDATE_TOLERANCE,
    UnknownDescription,
    UpstreamOverrides,
    facts_for,
    issued_on,
    lifetime_on,
    longest_on,
    parse_upstream_facts,
    profile_end,
    usages_on,
)
from broker.policy.yamlfile import Faults
from broker.protocol.identifiers import IdentifierType

SHIPPED = Path(__file__).parents[3] / "policies" / "upstreams.yaml"

TEXT = """\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  ca:
    as_of: 2026-11-22
    source: its documentation
    honours_not_after: true
    is_ct_logged: false
    min_lifetime: 5m
    max_lifetime: 24h
    default_lifetimes:
      - {lifetime: 90d}
    profiles:
      classic:
        - {lifetime: 90d}
        - {from: 2027-02-10, lifetime: 64d}
      new:
        - {from: 2027-01-01, lifetime: 7d}
"""

STEPS = (
    ProfileLifetime(valid_from=date(2027, 2, 10), lifetime=timedelta(days=64)),
    ProfileLifetime(valid_from=date(2020, 1, 1), lifetime=timedelta(days=90)),
    ProfileLifetime(valid_from=date(2028, 2, 16), lifetime=timedelta(days=100)),
)


@pytest.mark.parametrize(
    ("at", "days"),
    [
        pytest.param(datetime(2019, 12, 31, 23, tzinfo=UTC), None, id="before-anything-is-known"),
        pytest.param(datetime(2020, 1, 1, tzinfo=UTC), 90, id="the-first-day"),
        pytest.param(datetime(2027, 2, 9, 12, tzinfo=UTC), 90, id="the-day-before-it-shrinks"),
        pytest.param(datetime(2027, 2, 10, 23, tzinfo=UTC), 90, id="the-day-on-which-it-shrinks"),
        pytest.param(datetime(2027, 2, 11, 0, tzinfo=UTC), 64, id="the-day-after"),
        pytest.param(datetime(2028, 2, 14, 23, tzinfo=UTC), 64, id="two-days-before-it-grows"),
        pytest.param(datetime(2028, 2, 15, 1, tzinfo=UTC), 100, id="the-day-before-it-grows"),
        pytest.param(datetime(2030, 1, 1, tzinfo=UTC), 100, id="long-after"),
        pytest.param(
            datetime(2027, 2, 11, 1, tzinfo=timezone(timedelta(hours=14))),
            90,
            id="days-are-those-of-utc",
        ),
    ],
)
def test_around_a_change_the_longer_lifetime_counts(at: datetime, days: int | None) -> None:
    """A CA switches at an hour of its own; an order of the evening is issued the day after."""
    assert lifetime_on(STEPS, at) == (None if days is None else timedelta(days=days))


def test_without_steps_nothing_is_known() -> None:
    """An empty list is not a lifetime of zero."""
    assert lifetime_on((), datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_facts_follow_the_description() -> None:
    """With the default tolerance, and no override."""
    facts = facts_for("mine", "ca", None, parse_upstream_facts(TEXT, source="f.yaml"))
    assert (facts.name, facts.description) == ("mine", "ca")
    assert (facts.min_lifetime, facts.max_lifetime) == (timedelta(minutes=5), timedelta(days=1))
    assert facts.backdate_tolerance == BACKDATE_TOLERANCE
    assert facts.default_lifetimes[0].valid_from == date.min
    assert facts.profiles["classic"][1].valid_from == date(2027, 2, 10)
    assert facts.identifier_types == {"dns"}


@pytest.mark.parametrize(
    ("override", "attribute", "expected"),
    [
        pytest.param({"honours_not_after": False}, "honours_not_after", False, id="honours"),
        pytest.param({"is_ct_logged": True}, "is_ct_logged", True, id="logged"),
        pytest.param({"min_lifetime": "1h"}, "min_lifetime", timedelta(hours=1), id="min"),
        pytest.param({"max_lifetime": "90d"}, "max_lifetime", timedelta(days=90), id="max"),
        pytest.param(
            {"backdate_tolerance": "5m"}, "backdate_tolerance", timedelta(minutes=5), id="tolerance"
        ),
        pytest.param(
            {"default_lifetime": "12h"},
            "default_lifetimes",
            (ProfileLifetime(valid_from=date.min, lifetime=timedelta(hours=12)),),
            id="lifetime",
        ),
    ],
)
def test_an_override_changes_its_fact_and_no_other(
    override: dict[str, Any], attribute: str, expected: object
) -> None:
    """Whoever runs the upstream knows better."""
    descriptions = parse_upstream_facts(TEXT, source="f.yaml")
    plain = facts_for("mine", "ca", None, descriptions)
    made = facts_for("mine", "ca", UpstreamOverrides.model_validate(override), descriptions)
    changed = {
        name for name in plain.__dataclass_fields__ if getattr(plain, name) != getattr(made, name)
    }
    assert getattr(made, attribute) == expected
    assert changed == {attribute}


def test_an_overridden_profile_leaves_the_others_alone() -> None:
    """Profiles are overridden one by one."""
    overrides = UpstreamOverrides(profiles={"classic": timedelta(days=3)})
    facts = facts_for("mine", "ca", overrides, parse_upstream_facts(TEXT, source="f.yaml"))
    assert [step.lifetime for step in facts.profiles["classic"]] == [timedelta(days=3)]
    assert [step.lifetime for step in facts.profiles["new"]] == [timedelta(days=7)]


def test_addresses_are_taken_only_by_those_who_say_so() -> None:
    """Names alone, where nothing is said; the configuration knows better."""
    descriptions = parse_upstream_facts(TEXT, source="f.yaml")
    assert facts_for("mine", "ca", None, descriptions).identifier_types == {"dns"}
    override = UpstreamOverrides(identifier_types=(IdentifierType.DNS, IdentifierType.IP))
    assert facts_for("mine", "ca", override, descriptions).identifier_types == {"dns", "ip"}


def test_a_ca_that_takes_harm_from_the_question_is_not_asked_for_its_orders() -> None:
    """Every other one is, and the configuration knows better."""
    shipped = parse_upstream_facts(SHIPPED.read_text("utf-8"), source="upstreams.yaml")
    assert [name for name in shipped if not facts_for("x", name, None, shipped).lists_orders] == [
        "step-ca"
    ]
    mended = UpstreamOverrides(lists_orders=True)
    assert facts_for("x", "step-ca", mended, shipped).lists_orders


def test_profiles_for_addresses_are_kept_unless_overridden() -> None:
    """Let's Encrypt takes addresses with one profile alone."""
    shipped = parse_upstream_facts(SHIPPED.read_text("utf-8"), source="upstreams.yaml")
    facts = facts_for("le", "lets-encrypt", None, shipped)
    assert facts.identifier_types == {"dns", "ip"}
    assert facts.ip_profiles == {"shortlived"}
    override = UpstreamOverrides(identifier_types=(IdentifierType.DNS, IdentifierType.IP))
    assert facts_for("le", "lets-encrypt", override, shipped).ip_profiles == frozenset()


def test_an_unknown_description_is_told_with_the_known_ones() -> None:
    """The configuration has to be mended."""
    with pytest.raises(UnknownDescription, match="no description 'letsencrypt', known are ca"):
        facts_for("x", "letsencrypt", None, parse_upstream_facts(TEXT, source="f.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param("    as_of: 2026-11-22\n", "", "missing key 'as_of'", id="undated"),
        pytest.param("2026-11-22", "yesterday", "expected a date", id="no-date"),
        pytest.param("    is_ct_logged: false\n", "", "missing key 'is_ct_logged'", id="logging"),
        pytest.param("5m", "5", "5 has no unit", id="bare-number"),
        pytest.param("max_lifetime", "max_lifetme", "did you mean", id="unknown-key"),
        pytest.param("  ca:", "  C/A:", "should match", id="odd-name"),
    ],
)
def test_broken_facts_are_refused(old: str, new: str, fault: str) -> None:
    """A fact without a date is no fact."""
    with pytest.raises(Faults) as caught:
        parse_upstream_facts(TEXT.replace(old, new), source="f.yaml")
    assert fault in str(caught.value)


class TestShippedFacts:
    """The facts file that comes with the product."""

    DESCRIPTIONS = parse_upstream_facts(SHIPPED.read_text("utf-8"), source="upstreams.yaml")

    @pytest.mark.parametrize(
        ("profile", "at", "days"),
        [
            pytest.param("classic", datetime(2026, 11, 22, tzinfo=UTC), 90, id="classic-now"),
            pytest.param("classic", datetime(2027, 3, 1, tzinfo=UTC), 64, id="classic-2027"),
            pytest.param("classic", datetime(2028, 3, 1, tzinfo=UTC), 45, id="classic-2028"),
            pytest.param("tlsserver", datetime(2026, 11, 22, tzinfo=UTC), 45, id="tlsserver"),
            pytest.param("tlsserver", datetime(2026, 5, 1, tzinfo=UTC), None, id="tlsserver-early"),
            pytest.param("tlsclient", datetime(2026, 11, 22, tzinfo=UTC), None, id="removed"),
        ],
    )
    def test_lets_encrypt_shrinks_by_the_calendar(
        self, profile: str, at: datetime, days: int | None
    ) -> None:
        """As it announced."""
        facts = facts_for("le", "lets-encrypt", None, self.DESCRIPTIONS)
        expected = None if days is None else timedelta(days=days)
        assert lifetime_on(facts.profiles.get(profile, ()), at) == expected

    def test_no_profile_at_lets_encrypt_means_classic(self) -> None:
        """The default profile is the long one."""
        facts = facts_for("le", "lets-encrypt", None, self.DESCRIPTIONS)
        assert facts.default_lifetimes == facts.profiles["classic"]

    @pytest.mark.parametrize(
        ("description", "honours", "logged"),
        [
            pytest.param("built-in", True, False, id="built-in"),
            pytest.param("pebble", True, False, id="pebble"),
            pytest.param("step-ca", True, False, id="step-ca"),
            pytest.param("google-trust-services", True, True, id="google"),
            pytest.param("lets-encrypt", False, True, id="lets-encrypt"),
            pytest.param("zerossl", False, True, id="zerossl"),
            pytest.param("vault-pki", False, False, id="vault"),
            pytest.param("generic", False, True, id="generic"),
        ],
    )
    def test_who_honours_not_after_and_who_logs(
        self, description: str, honours: bool, logged: bool
    ) -> None:
        """Of what nothing is known, nothing is assumed."""
        facts = facts_for("x", description, None, self.DESCRIPTIONS)
        assert (facts.honours_not_after, facts.is_ct_logged) == (honours, logged)


# ------------------------------------------------------------------------------- by date

DATED = """apiVersion: penstock.dev/v1
kind: UpstreamFacts
programmes:
  browsers:
    as_of: 2026-11-22
    source: a test
    changes:
      - { from: 2027-03-15, max_lifetime: 100d, usages: [server-auth] }
      - { from: 2029-03-15, max_lifetime: 47d }
descriptions:
  ca:
    as_of: 2026-11-22
    source: a test
    honours_not_after: true
    is_ct_logged: true
    programmes: [browsers]
    changes: [{ from: 2027-01-01, usages: [server-auth, client-auth] }]
    profiles: { old: [{ lifetime: 30d }] }
    profile_ends: { old: 2027-02-01 }
"""

SERVER = "1.3.6.1.5.5.7.3.1"
CLIENT = "1.3.6.1.5.5.7.3.2"


def dated(**over: Any) -> UpstreamFacts:
    """Return the facts of the dated description."""
    found = parse_upstream_facts(DATED, source="upstreams.yaml")
    return facts_for("up", "ca", UpstreamOverrides(**over), found)


@pytest.mark.parametrize(
    ("day", "usages"),
    [
        pytest.param("2026-12-31", None, id="unknown"),
        pytest.param("2027-01-01", {SERVER, CLIENT}, id="own-word"),
        pytest.param("2027-03-14", {SERVER, CLIENT}, id="the-day-before"),
        pytest.param("2027-03-15", {SERVER}, id="both-hold"),
    ],
)
def test_usages_are_those_that_everyone_leaves(day: str, usages: set[str] | None) -> None:
    """The CA's own word and its programme's hold at once."""
    assert usages_on(dated(), datetime.fromisoformat(f"{day}T12:00:00+00:00")) == usages


@pytest.mark.parametrize(
    ("day", "days"),
    [
        pytest.param("2027-03-13", None, id="none-yet"),
        pytest.param("2027-03-14", 100, id="the-evening-before"),
        pytest.param("2029-03-15", 47, id="the-tighter"),
    ],
)
def test_longest_lifetime_counts_from_the_evening_before(day: str, days: int | None) -> None:
    """An order that is made then is issued after."""
    found = longest_on(dated(), datetime.fromisoformat(f"{day}T12:00:00+00:00"))
    assert found == (None if days is None else (timedelta(days=days), "programme 'browsers'"))


def test_known_lifetime_is_cut_once_the_limit_surely_holds() -> None:
    """Until then both are possible, and the longer one is believed."""
    day = datetime(2027, 3, 15, 12, tzinfo=UTC)
    year = timedelta(days=365)
    assert issued_on(dated(), year, day) == year
    assert issued_on(dated(), year, day + timedelta(days=2)) == timedelta(days=100)
    assert issued_on(dated(), None, day) is None


def test_profile_ends_on_its_day_unless_the_configuration_knows_better() -> None:
    """Whoever states its lifetime has it still."""
    day = datetime(2027, 2, 1, tzinfo=UTC)
    assert profile_end(dated(), "old", day) == date(2027, 2, 1)
    assert profile_end(dated(), "old", day - timedelta(days=1)) is None
    assert profile_end(dated(), None, day) is None
    assert profile_end(dated(profiles={"old": timedelta(days=30)}), "old", day) is None


def test_programme_that_is_not_there_is_told() -> None:
    """With the one that was meant."""
    with pytest.raises(Faults, match=r"no programme 'browser' \(did you mean 'browsers'"):
        parse_upstream_facts(DATED.replace("[browsers]", "[browser]"), source="f.yaml")


def test_descriptions_are_handed_to_another_process() -> None:
    """Parsing is done elsewhere while a broker runs."""
    found = parse_upstream_facts(DATED, source="upstreams.yaml")
    assert pickle.loads(pickle.dumps(found)) == found


def test_shipped_facts_know_the_end_of_client_auth() -> None:
    """15 March 2027 by Chrome's programme; Let's Encrypt was done with it in July 2026."""
    shipped = Path(__file__).parents[3] / "policies" / "upstreams.yaml"
    found = parse_upstream_facts(shipped.read_text("utf-8"), source="upstreams.yaml")
    day = datetime(2027, 3, 15, tzinfo=UTC)
    public = ("google-trust-services", "zerossl", "ssl-com", "actalis", "digicert", "sectigo")
    for name in public:
        facts = facts_for(name, name, None, found)
        assert usages_on(facts, day) == frozenset({SERVER}), name
        assert usages_on(facts, day - timedelta(days=60)) is None, name
    assert usages_on(facts_for("le", "lets-encrypt", None, found), day.replace(year=2026)) is None
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert usages_on(facts_for("le", "lets-encrypt", None, found), now) == frozenset({SERVER})
