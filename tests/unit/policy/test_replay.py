"""The same request, asked of two worlds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.policy.document import PolicyDocument
from broker.policy.replay import Asked, Effect, Replay, World
from broker.policy.requesters import Requester
from tests.unit.policy.builders import eab, names, policy, upstream

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def world(document: PolicyDocument, *, at: datetime = AT) -> World:
    """Return a world with one policy and two upstreams."""
    serving = (upstream(), upstream("spare"))
    return World(documents={"default": document}, upstreams={"default": serving}, at=at)


def asked(*texts: str, **changes: Any) -> Asked:
    """Return a request."""
    values: dict[str, Any] = {
        "community": "default",
        "identifiers": names(*(texts or ("www.a.example",))),
        "profile": None,
        "is_start_asked": False,
        "lifetime": None,
        "eab": None,
        "requester": Requester(account_id="a1"),
        "is_unchanged_renewal": False,
        **changes,
    }
    return Asked(**values)


def rule(**demands: Any) -> dict[str, Any]:
    """Return a rule."""
    return {"name": "new", "because": "it is tried", **demands}


def effects(new: PolicyDocument, request: Asked | None = None) -> list[Effect]:
    """Return what a new policy does to a request of the old one."""
    found = Replay(world(policy()), world(new)).changes(request or asked())
    return [one.effect for one in found]


SPARE = {"server": {"description": "x", "usages": ["server-auth"],
                    "upstreams": [{"upstream": "spare"}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="same"),
        pytest.param({"names": {"allow": ["**.b.example"]}}, [Effect.REFUSED], id="refused"),
        pytest.param({"cap": "30d"}, [Effect.SHORTENED], id="shortened"),
        pytest.param({"cap": "100d"}, [Effect.LENGTHENED], id="lengthened"),
        pytest.param({"keys": {"allow": ["ec-p256"]}}, [Effect.FEWER_KEYS], id="keys"),
        pytest.param({"profiles": SPARE}, [Effect.MOVED], id="moved"),
        pytest.param({"rules": [rule(approval={})]}, [Effect.APPROVAL], id="approval"),
        pytest.param(
            {"rules": [rule(mode="warn", refuse="no")]}, [Effect.WARNED], id="warned"
        ),
        pytest.param(
            {"cap": "30d", "keys": {"allow": ["ec-p256"]}},
            [Effect.SHORTENED, Effect.FEWER_KEYS],
            id="several",
        ),
    ],
)  # fmt: skip
def test_change_of_policy_has_its_effect(changes: dict[str, Any], expected: list[Effect]) -> None:
    """Each in a word, and nothing where nothing is otherwise."""
    assert effects(policy(**changes)) == expected


def test_fewer_who_may_approve_are_told() -> None:
    """Who they are by now, and who they were; more of them are nothing to be told."""

    def between(old: list[str] | None, new: list[str] | None) -> list[str]:
        """Return what is told where a rule names these, and then those."""
        one, other = (
            policy(rules=[rule(approval={} if by is None else {"by": by})]) for by in (old, new)
        )
        return [told.sentence for told in Replay(world(one), world(other)).changes(asked())]

    assert between(None, ["ben", "anna"]) == [
        "only anna, ben may say yes, was everybody who approves"
    ]
    assert between(["anna", "ben"], ["anna"]) == ["only anna may say yes, was anna, ben"]
    assert between(["anna"], ["anna", "ben"]) == []
    assert between(["anna"], None) == []
    (first,) = Replay(
        world(policy()), world(policy(rules=[rule(approval={"by": ["anna"]})]))
    ).changes(asked())
    assert first.sentence == "a person has to say yes first, of anna"


def test_name_that_is_allowed_anew_is_told_with_what_refused_it() -> None:
    """The reviewer sees which rule gave way."""
    wider = policy(names={"allow": ["**.a.example", "**.b.example"]})
    [found] = Replay(world(policy()), world(wider)).changes(asked("x.b.example"))
    assert found.effect is Effect.ALLOWED
    assert "is allowed by no rule" in found.sentence
    assert found.rule is not None
    assert found.rule.path == "names.allow"


def test_refusal_by_both_is_no_change() -> None:
    """Though for another reason."""
    assert effects(policy(names={"deny": ["x.b.example"]}), asked("x.b.example")) == []


def test_rule_that_exempts_renewals_touches_new_orders_alone() -> None:
    """So it is seen beforehand that a fleet is not stranded."""
    new = policy(rules=[rule(refuse="no", renewals="exempt")])
    assert effects(new) == [Effect.REFUSED]
    assert effects(new, asked(is_unchanged_renewal=True)) == []


def test_limits_of_the_requester_count_in_both_worlds() -> None:
    """A key for other names gets nothing from either."""
    limited = asked(eab=eab(names=["**.c.example"]))
    assert effects(policy(cap="30d"), limited) == []


def test_end_that_a_client_asked_for_is_counted_from_that_day() -> None:
    """Sixty days were asked for, and are asked for again."""
    assert effects(policy(cap="30d"), asked(lifetime=timedelta(days=60))) == [Effect.REFUSED]
    assert effects(policy(cap="30d"), asked(lifetime=timedelta(days=20))) == [Effect.SHORTENED]


def test_community_that_has_gone_is_refused() -> None:
    """A file that is missing in the new directory is no small thing."""
    gone = World(documents={}, upstreams={}, at=AT)
    [found] = Replay(world(policy()), gone).changes(asked())
    assert found.effect is Effect.REFUSED
    assert "has no policy" in found.sentence


def test_rule_of_a_later_day_is_seen_by_that_day() -> None:
    """One policy, two days: what ``policy impact`` compares."""
    document = policy(rules=[rule(refuse="no", **{"from": "2027-03-15"})])
    later = AT.replace(year=2027, month=3, day=15)
    found = Replay(world(document), world(document, at=later)).changes(asked())
    assert [one.effect for one in found] == [Effect.REFUSED]


def test_line_that_moved_is_no_new_warning() -> None:
    """A comment above a rule changes nothing."""
    old = policy(rules=[rule(mode="warn", refuse="no")])
    new = policy(description="a line more", rules=[rule(mode="warn", refuse="no")])
    assert old.rules.rules[0].ref.line != new.rules.rules[0].ref.line
    assert Replay(world(old), world(new)).changes(asked()) == ()


def test_same_request_is_asked_once() -> None:
    """Fleets ask alike, and an answer is remembered."""
    replay = Replay(world(policy()), world(policy(cap="30d")))
    assert replay.changes(asked()) == replay.changes(asked())
