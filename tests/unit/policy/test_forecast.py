"""What known days will bring is told before they come."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.policy.decisions import DatedChange, ProfileLifetime, UpstreamFacts
from broker.policy.document import PolicyDocument
from broker.policy.forecast import Foreseen, ForeseenKind, days_of_change, foresee
from broker.policy.upstream_facts import facts_for, parse_upstream_facts
from broker.policy.words import USAGE_OIDS, Usage
from tests.unit.policy.builders import policy, profile_policy, upstream

POLICIES = Path(__file__).parents[3] / "policies"
DESCRIPTIONS = parse_upstream_facts(
    (POLICIES / "upstreams.yaml").read_text("utf-8"), source="upstreams.yaml"
)
TODAY = date(2026, 11, 23)
FAR = date(2030, 1, 1)
SERVER, CLIENT = USAGE_OIDS[Usage.SERVER_AUTH], USAGE_OIDS[Usage.CLIENT_AUTH]
DAY = date(2027, 3, 15)


def known(description: str, name: str = "ca") -> UpstreamFacts:
    """Return an upstream as the shipped facts describe it."""
    return facts_for(name, description, None, DESCRIPTIONS)


def seen(
    document: PolicyDocument, *facts: UpstreamFacts, until: date = FAR
) -> list[tuple[date, ForeseenKind]]:
    """Return day and kind of what is foreseen."""
    return [(one.on, one.kind) for one in foresee(document, facts, after=TODAY, until=until)]


def test_quiet_policy_has_no_future() -> None:
    """An own CA changes nothing by the calendar."""
    assert seen(policy(), upstream()) == []


def test_end_of_client_auth_is_seen_by_a_profile_for_clients() -> None:
    """Chrome's programme ends it on 15 March 2027: nothing is left of the profile."""
    clients = profile_policy(usages=["client-auth"])
    [found] = foresee(
        clients, [known("google-trust-services")], after=TODAY, until=date(2028, 1, 1)
    )
    assert (found.on, found.kind, found.upstream) == (DAY, ForeseenKind.STOPS, "ca")
    assert "orders will be refused" in found.sentence
    assert "certifies server-auth alone" in found.sentence
    assert str(found).startswith("2027-03-15: profile 'server' stops working with upstream 'ca'")


@pytest.mark.parametrize(
    ("description", "day"),
    [
        pytest.param("google-trust-services", DAY, id="programme"),
        pytest.param("digicert", date(2027, 3, 1), id="digicert"),
        pytest.param("sectigo", date(2027, 2, 10), id="sectigo"),
    ],
)
def test_usage_that_is_lost_beside_another_is_told(description: str, day: date) -> None:
    """Certificates go on coming, without client-auth; the CA's own day comes first."""
    both = profile_policy(usages=["server-auth", "client-auth"])
    facts = replace(known(description), honours_not_after=True)
    losses = [
        one.on
        for one in foresee(both, [facts], after=TODAY, until=date(2028, 1, 1))
        if one.kind is ForeseenKind.LOSES
    ]
    assert losses == [day]


def test_profile_for_servers_loses_nothing() -> None:
    """The twin: what it may have besides was never there."""
    found = seen(policy(), known("google-trust-services"), until=date(2028, 1, 1))
    assert found == []


def test_shrinking_lifetimes_are_told_and_not_warned_of() -> None:
    """Let's Encrypt's classic goes from 90 to 64 to 45 days; a cap is held all the better."""
    classic = profile_policy(upstreams=[{"upstream": "ca", "profile": "classic"}])
    found = foresee(classic, [known("lets-encrypt")], after=TODAY, until=FAR)
    assert [(one.on, one.kind) for one in found] == [
        (date(2027, 2, 10), ForeseenKind.SHORTER),
        (date(2028, 2, 16), ForeseenKind.SHORTER),
    ]
    assert "issues 64d in place of 90d" in found[0].sentence
    assert not any(one.kind.is_warned_of for one in found)


def changing(**change: Any) -> UpstreamFacts:
    """Return an upstream that changes something on the day."""
    made = DatedChange(valid_from=DAY, by="the CA", **change)
    return upstream(changes=(made,))


def test_cap_that_can_be_asked_for_no_more_stops() -> None:
    """An end 90 days ahead is refused by a CA that grants 47."""
    found = seen(policy(), changing(max_lifetime=timedelta(days=47)))
    assert found == [(DAY, ForeseenKind.STOPS)]


def test_other_upstream_is_taken_where_there_is_one() -> None:
    """Then it is no end, and somebody should know all the same."""
    two = profile_policy(upstreams=[{"upstream": "ca"}, {"upstream": "spare"}])
    found = seen(two, changing(max_lifetime=timedelta(days=47)), upstream("spare"))
    assert found == [(DAY, ForeseenKind.PASSED_OVER)]


def test_profile_that_ends_is_told() -> None:
    """As tlsclient did."""
    facts = upstream(
        profiles={"old": (ProfileLifetime(valid_from=date.min, lifetime=timedelta(days=30)),)},
        profile_ends={"old": DAY},
    )
    document = profile_policy(upstreams=[{"upstream": "ca", "profile": "old"}])
    assert seen(document, facts) == [(DAY, ForeseenKind.STOPS)]


def test_tighter_cap_of_some_names_is_judged_apart() -> None:
    """The profile's own cap is held, and that of its payment hosts no more."""
    tighter = policy(caps=[{"names": ["pay.a.example"], "cap": "7d"}])
    facts = upstream(
        honours_not_after=False,
        default_lifetimes=(
            ProfileLifetime(valid_from=date.min, lifetime=timedelta(days=6)),
            ProfileLifetime(valid_from=DAY, lifetime=timedelta(days=30)),
        ),
    )
    [found] = foresee(tighter, [facts], after=TODAY, until=FAR)
    assert found.kind is ForeseenKind.STOPS
    assert "under the 7d cap of policy.yaml:" in found.sentence


def test_own_dates_of_rules_are_told() -> None:
    """One that begins is no warning; one that ends lets through what it kept out."""
    rule = {"name": "freeze", "because": "we move", "refuse": "not now",
            "from": "2027-01-01", "until": "2027-01-03"}  # fmt: skip
    found = foresee(policy(rules=[rule]), [upstream()], after=TODAY, until=FAR)
    assert [(one.on, one.kind, one.kind.is_warned_of) for one in found] == [
        (date(2027, 1, 1), ForeseenKind.RULE_BEGINS, False),
        (date(2027, 1, 4), ForeseenKind.RULE_ENDS, True),
    ]


def test_day_past_the_horizon_is_not_told() -> None:
    """And one that is over is none of the future's."""
    facts = changing(max_lifetime=timedelta(days=47))
    assert seen(policy(), facts, until=DAY - timedelta(days=1)) == []
    assert foresee(policy(), [facts], after=DAY, until=FAR) == ()


def test_only_upstreams_that_the_policy_takes_have_days() -> None:
    """Another community's CA may do what it likes."""
    other = replace(changing(max_lifetime=timedelta(days=47)), name="other")
    assert days_of_change(policy(), [other], after=TODAY, until=FAR) == ()
    mine = changing(max_lifetime=timedelta(days=47))
    assert days_of_change(policy(), [mine], after=TODAY, until=FAR) == (DAY,)


def test_foreseen_thing_names_its_rule() -> None:
    """Whoever is warned has to find the line."""
    [found] = foresee(policy(), [changing(max_lifetime=timedelta(days=47))], after=TODAY, until=FAR)
    assert isinstance(found, Foreseen)
    assert f"{found.rule.source}:{found.rule.line}" in str(found)
