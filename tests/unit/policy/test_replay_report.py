"""Replayed requests are counted by effect, rule and requester."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.policy import replay_report
from broker.policy.decisions import RuleRef
from broker.policy.replay import Effect, WorldChange
from broker.policy.replay_report import ReplayKind, ReplayReport, requester_text
from broker.policy.requesters import Requester
from tests.unit.policy.builders import eab
from tests.unit.policy.test_replay import asked

RULE = RuleRef("web.yaml", 7, "rule 'new'")
REFUSED = WorldChange(Effect.REFUSED, "no", RULE)
SOON, LATE = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def test_requests_of_one_requester_and_rule_are_one_group() -> None:
    """With a few names for an example, and the end that comes first."""
    report = ReplayReport()
    report.add(ReplayKind.ORDER, asked("one.a.example"), [REFUSED], reference="o1")
    again = asked("two.a.example", is_unchanged_renewal=True)
    report.add(ReplayKind.ORDER, again, [REFUSED], reference="o2")
    report.add(ReplayKind.CERTIFICATE, again, [REFUSED], reference="c1", until=LATE)
    report.add(ReplayKind.CERTIFICATE, again, [REFUSED], reference="c2", until=SOON)
    [group] = report.groups()
    assert (group.orders, group.renewals, group.certificates, group.touched) == (2, 1, 2, 4)
    assert group.names == ["one.a.example", "two.a.example"]
    assert group.first_end == SOON
    assert report.by_effect[Effect.REFUSED][ReplayKind.ORDER] == 2


def test_untouched_requests_are_counted_and_nothing_else() -> None:
    """The twin of the one above."""
    report = ReplayReport()
    report.count(ReplayKind.ORDER, 1)
    report.add(ReplayKind.ORDER, asked(), [], reference="o1")
    assert report.replayed[ReplayKind.ORDER] == 1
    assert report.touched[ReplayKind.ORDER] == 0
    assert list(report.groups()) == []
    assert not report.has(*Effect)


def test_groups_come_by_effect_and_then_by_size() -> None:
    """What hurts most stands first."""
    report = ReplayReport()
    one, other = asked(), asked(requester=Requester(account_id="a2"))
    report.add(ReplayKind.ORDER, one, [WorldChange(Effect.MOVED, "x", None)], reference="1")
    report.add(ReplayKind.ORDER, one, [REFUSED], reference="2")
    for reference in ("3", "4"):
        report.add(ReplayKind.ORDER, other, [REFUSED], reference=reference)
    told = [(group.effect, group.requester) for group in report.groups()]
    assert told == [
        (Effect.REFUSED, "account a2"),
        (Effect.REFUSED, "account a1"),
        (Effect.MOVED, "account a1"),
    ]
    assert report.has(Effect.MOVED)
    assert not report.has(Effect.SHORTENED)


def test_examples_are_few_and_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand requesters do not fill the memory of whoever looks."""
    monkeypatch.setattr(replay_report, "MAX_GROUPS", 2)
    report = ReplayReport()
    for number in range(10):
        who = Requester(account_id=f"a{number}")
        request = asked(*(f"n{n}.a.example" for n in range(9)), requester=who)
        report.add(ReplayKind.ORDER, request, [REFUSED], reference=str(number))
    groups = list(report.groups())
    assert len(groups) == 3
    assert groups[0].requester == "others"
    assert groups[0].orders == 8
    assert all(len(group.names) == 5 for group in groups)
    assert report.by_effect[Effect.REFUSED][ReplayKind.ORDER] == 10


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        pytest.param(asked(), "account a1", id="account"),
        pytest.param(asked(eab=eab("team")), "EAB key 'team'", id="key"),
        pytest.param(
            asked(requester=Requester(account_id="a1", owner="anna")),
            "account a1 of anna",
            id="owner",
        ),
    ],
)
def test_requester_is_told_as_people_know_it(request_: object, told: str) -> None:
    """The key or the node before the account, and who answers for it."""
    assert requester_text(request_) == told  # type: ignore[arg-type]
