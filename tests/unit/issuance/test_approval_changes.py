"""Changes of an approval as values."""

from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.approval_changes import by_time, changed, moved, past_its_policy, timed
from broker.issuance.approval_ports import ApprovalKind, ApprovalRecord, ApprovalStatus
from broker.issuance.approval_states import ApprovalEvent, IllegalAnswer
from broker.issuance.approval_terms import Terms
from broker.issuance.events import Actor, EventKind
from tests.fakes.clock import START
from tests.fakes.world import dns

DAY = timedelta(days=1)
TERMS = Terms(people=1, answer_within=14 * DAY, holds=90 * DAY)
NAME = dns("www.people.example.com")


def record(status: str = "waiting", **changes: Any) -> ApprovalRecord:
    """Return an approval."""
    made: dict[str, Any] = {
        "approval_id": "a1", "kind": ApprovalKind.NAMES, "community": "default",
        "status": ApprovalStatus(status), "holder": "account-1", "asker": "account:account-1",
        "identifiers": (NAME,), "profile": "server", "subject_sha256": "00", "terms": TERMS.facts(),
        "asked_by": {}, "asked_at": START, "last_asked_at": START, "times_asked": 1,
        "answer_by": START + 14 * DAY, "decided_at": START, "holds_until": START + 90 * DAY,
        "reproof_at": START + 60 * DAY,
    }  # fmt: skip
    return timed(ApprovalRecord(**{**made, **changes}))


@pytest.mark.parametrize(
    ("status", "days"),
    [
        ("waiting", 14), ("approved", 60), ("due", 90), ("suspended", 90),
        ("denied", None), ("expired", None), ("withdrawn", None),
    ],
)  # fmt: skip
def test_each_state_has_a_time_of_its_own(status: str, days: int | None) -> None:
    """What is at its end is looked at no more."""
    expected = None if days is None else START + days * DAY
    assert record(status).look_at == expected


@pytest.mark.parametrize(
    ("status", "days", "after", "kind"),
    [
        ("waiting", 14, "expired", EventKind.APPROVAL_EXPIRED),
        ("approved", 60, "due", EventKind.APPROVAL_DUE),
        ("approved", 90, "expired", EventKind.APPROVAL_EXPIRED),
        ("due", 90, "expired", EventKind.APPROVAL_EXPIRED),
        ("suspended", 90, "expired", EventKind.APPROVAL_EXPIRED),
    ],
)
def test_clock_moves_what_is_due(status: str, days: int, after: str, kind: EventKind) -> None:
    """At that moment and not before."""
    before = record(status)
    early = START + min(days, 60) * DAY - timedelta(microseconds=1)
    assert by_time(before, early if status == "approved" else START) is None
    change = by_time(before, START + days * DAY)
    assert change is not None
    assert (change.record.status, change.record.revision) == (ApprovalStatus(after), 1)
    assert [event.kind for event in change.events] == [kind]


def test_event_names_what_it_is_about() -> None:
    """Account, names and profile, so that the audit finds them."""
    (event,) = moved(record(), EventKind.APPROVAL_REQUESTED, at=START, actor=Actor("x")).events
    assert (event.account_id, event.community) == ("account-1", "default")
    assert event.data["identifiers"] == ["www.people.example.com"]
    assert (event.data["approval_id"], event.data["profile"]) == ("a1", "server")


def test_what_does_not_follow_is_no_change() -> None:
    """The table decides."""
    with pytest.raises(IllegalAnswer):
        changed(record("withdrawn"), ApprovalEvent.APPROVED, at=START)


def test_policy_that_asks_for_more_is_kept_with_the_approval() -> None:
    """So that a renewal is one for all that is wanted now."""
    stricter = Terms(people=2, answer_within=14 * DAY, holds=90 * DAY, evidence=("ticket",))
    assert past_its_policy(record("approved"), TERMS, START + DAY) is None
    change = past_its_policy(record("approved"), stricter, START + DAY)
    assert change is not None
    assert change.record.status is ApprovalStatus.DUE
    kept = Terms.read(change.record.terms)
    assert (kept.people, kept.evidence) == (2, ("ticket",))
