"""Changes of an approval as values: the record that follows, and the event that tells of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.issuance.approval_ports import ApprovalKind, ApprovalRecord, ApprovalStatus
from broker.issuance.approval_states import ApprovalEvent, advance_approval
from broker.issuance.approval_terms import Terms
from broker.issuance.events import SYSTEM, Actor, Event, EventKind

__all__ = ["ApprovalChange", "by_time", "changed", "moved", "past_its_policy", "timed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalChange:
    """What is to be kept."""

    record: ApprovalRecord
    events: tuple[Event, ...]


_TOLD: Final = {
    ApprovalEvent.APPROVED: EventKind.APPROVAL_GRANTED,
    ApprovalEvent.DENIED: EventKind.APPROVAL_DENIED,
    ApprovalEvent.UNANSWERED: EventKind.APPROVAL_EXPIRED,
    ApprovalEvent.SUSPENDED: EventKind.APPROVAL_SUSPENDED,
    ApprovalEvent.RESUMED: EventKind.APPROVAL_RESUMED,
    ApprovalEvent.PROOF_DUE: EventKind.APPROVAL_DUE,
    ApprovalEvent.RENEWED: EventKind.APPROVAL_RENEWED,
    ApprovalEvent.ENDED: EventKind.APPROVAL_EXPIRED,
    ApprovalEvent.WITHDRAWN: EventKind.APPROVAL_WITHDRAWN,
}
"""What happened → the event that tells of it."""


def moved(
    record: ApprovalRecord,
    kind: EventKind,
    *,
    at: datetime,
    actor: Actor = SYSTEM,
    **more: object,
) -> ApprovalChange:
    """Return *record* with the event that tells of it."""
    event = Event(
        kind=kind,
        at=at,
        actor=actor,
        community=record.community,
        account_id=record.holder if record.identifiers else None,
        data={
            "approval_id": record.approval_id,
            "identifiers": [str(one) for one in record.identifiers],
            "profile": record.profile,
            "status": str(record.status),
            **more,
        },
    )
    return ApprovalChange(record=record, events=(event,))


def changed(
    record: ApprovalRecord,
    event: ApprovalEvent,
    *,
    at: datetime,
    actor: Actor = SYSTEM,
    **more: object,
) -> ApprovalChange:
    """Return what *event* makes of *record*, its next revision.

    Raises:
        IllegalAnswer: It does not follow from the state that it is in.
    """
    after = replace(
        record, status=advance_approval(record.status, event), revision=record.revision + 1
    )
    return moved(timed(after), _TOLD[event], at=at, actor=actor, **more)


def timed(record: ApprovalRecord) -> ApprovalRecord:
    """Return *record* with the time of what happens to it next by itself."""
    look_at: datetime | None = None
    is_account = record.kind is ApprovalKind.ACCOUNT
    match record.status:
        case ApprovalStatus.WAITING:
            look_at = record.answer_by
        case ApprovalStatus.APPROVED:
            ends = [one for one in (record.holds_until, record.reproof_at) if one is not None]
            look_at = min(ends, default=None)
        case ApprovalStatus.DUE | ApprovalStatus.SUSPENDED if not is_account:
            look_at = record.holds_until
        case _:
            pass
    return replace(record, look_at=look_at)


def by_time(record: ApprovalRecord, now: datetime) -> ApprovalChange | None:
    """Return what the clock has made of *record*; None: nothing."""
    if record.look_at is None or record.look_at > now:
        return None
    if record.status is ApprovalStatus.WAITING:
        return changed(record, ApprovalEvent.UNANSWERED, at=now, why="nobody answered in time")
    is_over = record.holds_until is not None and record.holds_until <= now
    if is_over and record.kind is ApprovalKind.ACCOUNT:
        # Its account is there, and asks for nothing any more: it is renewed, or stays as it is.
        return changed(record, ApprovalEvent.PROOF_DUE, at=now, why="its time is over")
    if is_over:
        return changed(record, ApprovalEvent.ENDED, at=now, why="the time it was good for is over")
    return changed(record, ApprovalEvent.PROOF_DUE, at=now, why="its evidence is too old")


def past_its_policy(record: ApprovalRecord, terms: Terms, now: datetime) -> ApprovalChange | None:
    """Return the change of an approval that is not enough for the *terms* of today; else None.

    That its evidence is to be shown anew is kept as a time: who suspends and resumes it meanwhile
    has shown nothing, so that it is due again at the next look.
    """
    given = Terms.read(record.terms)
    decided_at = record.decided_at or record.asked_at
    if terms.is_met(given, decided_at, record.proofed_at or decided_at, now):
        return None
    stricter = replace(record, terms=given.stricter(terms).facts(), reproof_at=now)
    return changed(stricter, ApprovalEvent.PROOF_DUE, at=now, why="policy asks for more by now")
