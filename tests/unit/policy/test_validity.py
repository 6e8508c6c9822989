"""The validity cap: which rule sets it, and which lever holds it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from broker.policy.decisions import (
    DatedChange,
    Lever,
    ProfileLifetime,
    Retirement,
    UpstreamFacts,
)
from broker.policy.validity import (
    Judgement,
    Obstacle,
    cap_now,
    is_kept_private,
    judge_choices,
    judge_upstream,
    rule_cap,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.unit.policy.builders import (
    AT,
    PROFILE,
    always,
    names,
    new_order,
    policy,
    profile_policy,
    upstream,
)

DAYS_7 = timedelta(days=7)
DAYS_30 = timedelta(days=30)
DAYS_90 = timedelta(days=90)


@pytest.mark.parametrize(
    ("profile_cap", "caps", "name", "days", "path"),
    [
        pytest.param(None, [], "www.a.example", 90, "cap", id="community"),
        pytest.param("47d", [], "www.a.example", 47, "profiles.server.cap", id="profile"),
        pytest.param("400d", [], "www.a.example", 90, "cap", id="profile-cannot-lengthen"),
        pytest.param(
            "47d",
            [("**.a.example", "7d")],
            "www.a.example",
            7,
            "caps[0].names[0]",
            id="name",
        ),
        pytest.param(
            None, [("**.a.example", "400d")], "www.a.example", 90, "cap", id="name-cannot-lengthen"
        ),
        pytest.param(
            None, [("**.b.example", "7d")], "www.a.example", 90, "cap", id="name-of-others"
        ),
        pytest.param(
            None,
            [("**.a.example", "9d"), ("**.a.example", "7d"), ("**.a.example", "8d")],
            "www.a.example",
            7,
            "caps[1].names[0]",
            id="same-pattern-thrice",
        ),
        pytest.param(
            None,
            [("pay.a.example", "7d")],
            "*.a.example",
            7,
            "caps[0].names[0]",
            id="wildcard-stands-for-the-name",
        ),
        pytest.param(
            "90d", [("**.a.example", "90d")], "www.a.example", 90, "cap", id="the-widest-of-equals"
        ),
    ],
)
def test_the_tightest_cap_wins_and_is_named(
    profile_cap: str | None, caps: list[tuple[str, str]], name: str, days: int, path: str
) -> None:
    """Rules only narrow."""
    rules = [{"names": [pattern], "cap": cap} for pattern, cap in caps]
    document = profile_policy(cap=profile_cap, top={"caps": rules})
    ruling = rule_cap(document, document.profiles["server"], names(name))
    assert (ruling.cap, ruling.rule.path) == (timedelta(days=days), path)


def test_the_tightest_cap_of_all_names_of_the_order_holds() -> None:
    """A certificate is one, however many names it has."""
    document = policy(caps=[{"names": ["pay.a.example"], "cap": "7d"}])
    profile = document.profiles["server"]
    assert rule_cap(document, profile, names("www.a.example", "pay.a.example")).cap == DAYS_7
    assert rule_cap(document, profile, names("www.a.example")).cap == DAYS_90


def test_the_cap_can_be_asked_for_again_at_finalize() -> None:
    """A profile that is gone by then is told apart from one without a cap."""
    asked = names("www.a.example")
    cap, rule = cap_now(policy(), identifiers=asked, profile="server", at=AT)
    assert (cap, rule.path) == (DAYS_90, "cap")
    with pytest.raises(KeyError):
        cap_now(policy(), identifiers=asked, profile="gone", at=AT)


def judged(
    ca: UpstreamFacts, *, profile: str | None = None, not_after: timedelta | None = None
) -> tuple[Lever | None, bool | None, Obstacle | None, str]:
    """Return what becomes of an upstream under a cap of 30 days."""
    choice = {"upstream": "ca", "profile": profile}
    document = profile_policy(cap="30d", upstreams=[choice])
    made = document.profiles["server"]
    ruling = rule_cap(document, made, names("www.a.example"))
    found = judge_upstream(
        made.choices[0], ca, ruling, at=AT, not_after=None if not_after is None else AT + not_after
    )
    plan = found.plan
    if plan is not None:
        assert (plan.cap, plan.tolerance) == (DAYS_30, ca.backdate_tolerance)
        assert (plan.upstream, plan.upstream_profile) == ("ca", profile)
    return (
        plan.lever if plan else None,
        plan.ask_not_after if plan else None,
        found.obstacle,
        found.sentence,
    )


def dumb(**changes: Any) -> UpstreamFacts:
    """Return an upstream that does not honour notAfter."""
    return upstream(honours_not_after=False, **changes)


SHRINKING = (
    ProfileLifetime(valid_from=date.min, lifetime=DAYS_90),
    ProfileLifetime(valid_from=date(2026, 11, 1), lifetime=DAYS_7),
)
SHRINKING_LATER = (
    ProfileLifetime(valid_from=date.min, lifetime=DAYS_90),
    ProfileLifetime(valid_from=date(2026, 12, 1), lifetime=DAYS_7),
)


@pytest.mark.parametrize(
    ("ca", "profile", "lever"),
    [
        pytest.param(upstream(), None, Lever.ASK, id="asked"),
        pytest.param(upstream(), "short", Lever.ASK, id="asked-under-a-profile"),
        pytest.param(
            upstream(min_lifetime=DAYS_30, max_lifetime=DAYS_30), None, Lever.ASK, id="at-limits"
        ),
        pytest.param(
            upstream(max_lifetime=DAYS_7, default_lifetimes=always(DAYS_7)),
            None,
            Lever.PROFILE,
            id="grants-less-than-the-cap-and-is-short-anyway",
        ),
        pytest.param(dumb(default_lifetimes=always(DAYS_7)), None, Lever.PROFILE, id="short"),
        pytest.param(
            dumb(default_lifetimes=always(DAYS_30)), None, Lever.PROFILE, id="just-the-cap"
        ),
        pytest.param(
            dumb(default_lifetimes=always(DAYS_30 + timedelta(seconds=60))),
            None,
            Lever.PROFILE,
            id="within-the-tolerance",
        ),
        pytest.param(dumb(profiles={"s": always(DAYS_7)}), "s", Lever.PROFILE, id="profile"),
        pytest.param(
            dumb(profiles={"s": SHRINKING}), "s", Lever.PROFILE, id="profile-short-by-now"
        ),
    ],
)
def test_a_cap_that_can_be_held_is_planned(
    ca: UpstreamFacts, profile: str | None, lever: Lever
) -> None:
    """Asking comes first, a short profile second."""
    assert judged(ca, profile=profile)[:3] == (lever, lever is Lever.ASK, None)


@pytest.mark.parametrize(
    ("ca", "profile", "sentence"),
    [
        pytest.param(
            dumb(default_lifetimes=always(DAYS_90)),
            None,
            "upstream 'ca' issues 90d on 2026-11-22, past the 30d cap",
            id="long",
        ),
        pytest.param(
            dumb(default_lifetimes=always(DAYS_30 + timedelta(seconds=61))),
            None,
            "upstream 'ca' issues 30d1m1s on 2026-11-22, past the 30d cap",
            id="past-the-tolerance",
        ),
        pytest.param(
            dumb(profiles={"s": SHRINKING_LATER}),
            "s",
            "upstream 'ca' profile 's' issues 90d on 2026-11-22, past the 30d cap",
            id="profile-not-yet-short",
        ),
        pytest.param(
            dumb(),
            None,
            "upstream 'ca' does not honour notAfter, and its lifetime on 2026-11-22 is not known",
            id="unknown",
        ),
        pytest.param(
            dumb(default_lifetimes=always(DAYS_7)),
            "s",
            "upstream 'ca' profile 's' does not honour notAfter, and its lifetime on 2026-11-22 "
            "is not known",
            id="profile-unknown",
        ),
        pytest.param(
            upstream(min_lifetime=timedelta(days=31)),
            None,
            "upstream 'ca' grants at least 31d, and 30d would be asked for, and its lifetime on "
            "2026-11-22 is not known",
            id="grants-only-longer",
        ),
        pytest.param(
            upstream(max_lifetime=DAYS_7),
            None,
            "upstream 'ca' grants at most 7d, and 30d would be asked for, and its lifetime on "
            "2026-11-22 is not known",
            id="grants-only-shorter-and-default-unknown",
        ),
    ],
)
def test_a_cap_that_cannot_be_held_has_its_reason(
    ca: UpstreamFacts, profile: str | None, sentence: str
) -> None:
    """Values with units, the date and the cap."""
    assert judged(ca, profile=profile) == (None, None, Obstacle.CAP, sentence)


@pytest.mark.parametrize(
    ("ca", "asked", "is_planned"),
    [
        pytest.param(upstream(), timedelta(days=10), True, id="honoured"),
        pytest.param(dumb(default_lifetimes=always(DAYS_7)), DAYS_7, False, id="not-honoured"),
        pytest.param(upstream(min_lifetime=DAYS_7), DAYS_7, True, id="shortest"),
        pytest.param(upstream(min_lifetime=DAYS_7), timedelta(days=6), False, id="too-short"),
        pytest.param(upstream(max_lifetime=DAYS_7), DAYS_7, True, id="longest"),
        pytest.param(upstream(max_lifetime=DAYS_7), timedelta(days=8), False, id="too-long"),
    ],
)
def test_an_end_that_was_asked_for_is_asked_upstream_or_refused(
    ca: UpstreamFacts, asked: timedelta, is_planned: bool
) -> None:
    """A short profile is no answer to an exact end."""
    lever, asks, obstacle, _ = judged(ca, not_after=asked)
    if is_planned:
        assert (lever, asks, obstacle) == (Lever.ASK, True, None)
    else:
        assert (lever, asks, obstacle) == (None, None, Obstacle.NOT_AFTER)


TWO = {**PROFILE, "upstreams": [{"upstream": "first", "profile": "p"}, {"upstream": "second"}]}
FIRST = upstream("first")
SECOND = upstream("second")


@pytest.mark.parametrize(
    ("name", "changes", "obstacles"),
    [
        pytest.param("www.a.example", {"upstreams": (SECOND, FIRST)}, [None, None], id="both"),
        pytest.param("www.a.example", {"upstreams": (SECOND,)}, ["not-ready", None], id="one"),
        pytest.param("www.a.example", {"upstreams": ()}, ["not-ready", "not-ready"], id="none"),
        pytest.param(
            "www.a.example",
            {"upstreams": (FIRST, SECOND), "suspended": frozenset({("first", "p")})},
            ["suspended", None],
            id="suspended",
        ),
        pytest.param(
            "www.a.example",
            {"upstreams": (FIRST, SECOND), "suspended": frozenset({("first", None)})},
            [None, None],
            id="another-profile-suspended",
        ),
        pytest.param(
            "www.a.example",
            {
                "upstreams": (upstream("first", honours_not_after=False), SECOND),
                "suspended": frozenset({("first", "p")}),
            },
            ["cap", None],
            id="suspended-and-useless-anyway",
        ),
        pytest.param(
            "db.internal",
            {"upstreams": (upstream("first", is_ct_logged=True), SECOND)},
            ["ct-logged", None],
            id="private-name-and-public-log",
        ),
        pytest.param(
            "www.a.example",
            {"upstreams": (upstream("first", is_ct_logged=True), SECOND)},
            [None, None],
            id="public-name-and-public-log",
        ),
        pytest.param(
            "www.a.example",
            {"upstreams": (upstream("first", identifier_types=frozenset({"ip"})), SECOND)},
            ["identifier-type", None],
            id="other-identifiers",
        ),
    ],
)
def test_each_choice_is_judged_in_order_of_preference(
    name: str, changes: dict[str, Any], obstacles: list[str | None]
) -> None:
    """The order is that of the profile, not that of the configuration."""
    document = policy(profiles={"server": TWO})
    profile = document.profiles["server"]
    facts = new_order(name, **changes)
    ruling = rule_cap(document, profile, facts.identifiers)
    found = judge_choices(document, profile, facts, ruling)
    assert [choice.obstacle for choice in found] == obstacles
    assert [choice.choice.upstream for choice in found] == ["first", "second"]
    assert all((choice.plan is None) is (choice.obstacle is not None) for choice in found)


@pytest.mark.parametrize(
    ("obstacle", "is_passing"),
    [(obstacle, obstacle.value in {"not-ready", "suspended", "frozen"}) for obstacle in Obstacle],
    ids=[obstacle.value for obstacle in Obstacle],
)
def test_what_may_pass_is_worth_another_try(obstacle: Obstacle, is_passing: bool) -> None:
    """An operator's work ends these two; the others are facts."""
    assert obstacle.is_passing is is_passing


@pytest.mark.parametrize(
    ("ct", "name", "is_private"),
    [
        pytest.param({}, "db.internal", True, id="private"),
        pytest.param({}, "*.db.internal", True, id="private-wildcard"),
        pytest.param({}, "db.corp.a.example", False, id="public"),
        pytest.param(
            {"private_names": ["**.corp.a.example"]}, "db.corp.a.example", True, id="listed"
        ),
        pytest.param(
            {"private_names": ["db.corp.a.example"]}, "*.corp.a.example", True, id="wildcard-over"
        ),
        pytest.param({"allow_private_names": True}, "db.internal", False, id="allowed"),
    ],
)
def test_private_names_are_kept_out_of_public_logs(
    ct: dict[str, Any], name: str, is_private: bool
) -> None:
    """Those with a private top, and those that the community lists."""
    [identifier] = names(name)
    assert is_kept_private(policy(ct=ct), identifier) is is_private


RETIRE = {"grace": "2d", "unreplaced": "revoke"}


def retiring(ca: UpstreamFacts, **changes: Any) -> Judgement:
    """Return what becomes of *ca* where policy retires what is longer than 30 days."""
    choice = {"upstream": "ca", "retire": RETIRE, **changes}
    document = policy(profiles={"server": {**PROFILE, "cap": "30d", "upstreams": [choice]}})
    profile = document.profiles["server"]
    order = new_order("www.a.example", upstreams=(ca,))
    ruling = rule_cap(document, profile, order.identifiers)
    (judgement,) = judge_choices(document, profile, order, ruling)
    return judgement


def test_a_longer_certificate_is_retired_where_policy_says_so() -> None:
    """With what was decided of it; the sentence speaks of retiring and of no cap."""
    judgement = retiring(dumb(default_lifetimes=always(DAYS_90)))
    assert judgement.plan is not None
    assert (judgement.plan.lever, judgement.plan.ask_not_after) == (Lever.RETIRE, False)
    assert judgement.plan.retirement == Retirement(
        longest=DAYS_90, grace=timedelta(days=2), revokes_unreplaced=True
    )
    assert "to be retired 30d after receipt" in judgement.sentence
    assert "cap" not in judgement.sentence


@pytest.mark.parametrize(
    ("ca", "lever"),
    [
        pytest.param(upstream(), Lever.ASK, id="asked"),
        pytest.param(dumb(default_lifetimes=always(DAYS_7)), Lever.PROFILE, id="short"),
    ],
)
def test_a_cap_that_can_be_held_is_held_and_nothing_retired(
    ca: UpstreamFacts, lever: Lever
) -> None:
    """It is the last lever, and never a default."""
    plan = retiring(ca).plan
    assert plan is not None
    assert (plan.lever, plan.retirement) == (lever, None)


@pytest.mark.parametrize(
    ("ca", "choice"),
    [
        pytest.param(dumb(default_lifetimes=()), {}, id="lifetime unknown"),
        pytest.param(dumb(default_lifetimes=always(DAYS_90)), {"retire": None}, id="not chosen"),
    ],
)
def test_what_is_not_known_or_not_chosen_is_refused(
    ca: UpstreamFacts, choice: dict[str, Any]
) -> None:
    """Unsure means no."""
    judgement = retiring(ca, **choice)
    assert (judgement.plan, judgement.obstacle) == (None, Obstacle.CAP)


# ---------------------------------------------------------------------------------- known days


def judged_on(profile_usages: list[str], **facts: Any) -> Judgement:
    """Return what becomes of the one upstream of a profile."""
    document = profile_policy(usages=profile_usages)
    profile = document.profiles["server"]
    asked = new_order(upstreams=(upstream(**facts),))
    [found] = judge_choices(document, profile, asked, rule_cap(document, profile, ()))
    return found


SERVER_ALONE = DatedChange(
    valid_from=AT.date(), by="programme 'chrome'", usages=frozenset({"1.3.6.1.5.5.7.3.1"})
)


@pytest.mark.parametrize(
    ("usages", "obstacle"),
    [
        pytest.param(["client-auth"], Obstacle.USAGES, id="none-is-left"),
        pytest.param(["server-auth", "client-auth"], None, id="one-is-left"),
        pytest.param(["server-auth"], None, id="untouched"),
        pytest.param([], None, id="nothing-asked"),
    ],
)
def test_upstream_that_certifies_none_of_the_usages_is_not_taken(
    usages: list[str], obstacle: Obstacle | None
) -> None:
    """Known before anything is ordered, instead of refused when it comes back."""
    found = judged_on(usages, changes=(SERVER_ALONE,))
    assert found.obstacle is obstacle
    if obstacle is not None:
        assert "certifies server-auth alone on 2026-11-22" in found.sentence


def test_usages_of_a_later_day_are_no_obstacle_yet() -> None:
    """The twin: the day has not come."""
    later = replace(SERVER_ALONE, valid_from=AT.date() + timedelta(days=1))
    assert judged_on(["client-auth"], changes=(later,)).obstacle is None


def test_profile_that_has_ended_is_not_taken() -> None:
    """With the day on which it did."""
    document = profile_policy(upstreams=[{"upstream": "ca", "profile": "old"}])
    profile = document.profiles["server"]
    ended = upstream(profiles={"old": always(DAYS_7)}, profile_ends={"old": AT.date()})
    asked = new_order(upstreams=(ended,))
    [found] = judge_choices(document, profile, asked, rule_cap(document, profile, ()))
    assert found.obstacle is Obstacle.PROFILE_ENDED
    assert found.sentence.endswith("has ended on 2026-11-22")


def test_end_past_a_dated_limit_is_not_asked_for() -> None:
    """The CA would refuse it; who set the limit is told."""
    change = DatedChange(valid_from=AT.date(), by="programme 'cabf-tls'", max_lifetime=DAYS_30)
    found = judged_on(["server-auth"], changes=(change,))
    assert found.obstacle is Obstacle.CAP
    assert (
        "grants at most 30d by programme 'cabf-tls', and 90d would be asked for" in found.sentence
    )


def test_tighter_own_limit_is_told_as_its_own() -> None:
    """The twin: the programme allows more than the CA grants."""
    change = DatedChange(valid_from=AT.date(), by="programme 'cabf-tls'", max_lifetime=DAYS_30)
    found = judged_on(["server-auth"], changes=(change,), max_lifetime=DAYS_7)
    assert "grants at most 7d, and 90d would be asked for" in found.sentence


@pytest.mark.parametrize(
    ("ct", "address", "is_private"),
    [
        pytest.param({}, "jane@a.example", False, id="public"),
        pytest.param({}, "jane@corp.internal", True, id="private-top"),
        pytest.param({"private_names": ["**.a.example"]}, "jane@b.a.example", True, id="listed"),
        pytest.param({"private_names": ["@a.example"]}, "jane@a.example", True, id="of-e-mail"),
        pytest.param({"private_names": ["@a.example"]}, "jane@b.a.example", False, id="other-host"),
        pytest.param({"allow_private_names": True}, "jane@corp.internal", False, id="allowed"),
    ],
)
def test_an_address_is_as_private_as_its_domain(
    ct: dict[str, Any], address: str, is_private: bool
) -> None:
    """A log that shows the address shows the name."""
    identifier = Identifier(IdentifierType.EMAIL, address)
    assert is_kept_private(policy(ct=ct), identifier) is is_private
