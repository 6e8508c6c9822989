"""Approvals, what people said of them, and what rests on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.approval_ports import (
    ApprovalAnswer,
    ApprovalFigures,
    ApprovalRecord,
    ApprovalStatus,
    QueueFull,
    QueueLimits,
)
from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import Job
from broker.storage.attached import upsert_jobs
from broker.storage.part import Part, page_start
from broker.storage.rows import RowCodec, json_of, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Approvals"]

APPROVALS: Final = RowCodec("approvals", ApprovalRecord)
ANSWERS: Final = RowCodec("approval_answers", ApprovalAnswer)

MAX_OPEN: Final = 2000
"""Most open approvals of one holder that an order is compared with."""

MAX_ENDED: Final = 200
"""Most that have ended; older ones say nothing to an ask of today."""

MAX_CERTIFICATES: Final = 1000
"""Most certificates that one turn of a withdrawal takes; the next turn takes the rest."""

_OPEN: Final = "('waiting', 'approved', 'due', 'suspended')"
_ENDED: Final = "('denied', 'expired', 'withdrawn')"
_BY_ID: Final = APPROVALS.select + " WHERE approval_id = ?"
_WAITING: Final = (
    APPROVALS.select + " WHERE community = ? AND subject_sha256 = ? AND status = 'waiting'"
)
_OF_HOLDER: Final = APPROVALS.select + " WHERE holder = ? AND community = ? AND profile = ?"
_NEWEST: Final = " ORDER BY asked_at DESC, approval_id DESC LIMIT ?"
_OPEN_OF_HOLDER: Final = " ".join((_OF_HOLDER, "AND status IN", _OPEN, _NEWEST))
_ENDED_OF_HOLDER: Final = " ".join((_OF_HOLDER, "AND status IN", _ENDED, _NEWEST))
_BY_KEY: Final = APPROVALS.select + " WHERE community = ? AND eab_key_id = ? LIMIT 1"
_DUE: Final = (
    APPROVALS.select + " INDEXED BY approvals_to_look_at"
    " WHERE look_at IS NOT NULL AND look_at <= ? ORDER BY look_at LIMIT ?"
)
_CHANGED: Final = tuple(
    # Asks that join are counted beside: a change of what was read before takes none back.
    name
    for name in APPROVALS.columns
    if name not in ("approval_id", "last_asked_at", "times_asked")
)
_UPDATE: Final = " ".join(
    (
        "UPDATE approvals SET",
        ", ".join(f"{name} = ?" for name in _CHANGED),
        "WHERE approval_id = ? AND revision = ?",
    )
)
_LIST: Final = " ".join(
    (
        APPROVALS.select,
        "WHERE status IN (SELECT value FROM json_each(?3)) AND (asked_at, approval_id) < (?1, ?2)",
        "AND (?4 IS NULL OR community = ?4) AND (?6 IS NULL OR look_at <= ?6)",
        "ORDER BY asked_at DESC, approval_id DESC LIMIT ?5",
    )
)
_RESTING: Final = (
    "(EXISTS (SELECT 1 FROM json_each(o.decision, '$.approvals') WHERE json_each.value = ?1)"
    " OR EXISTS (SELECT 1 FROM json_each(o.decision, '$.renewed_under')"
    " WHERE json_each.value = ?1))"
)
"""Also what its line goes back to (``approval_resting``)."""
_OF_ACCOUNTS: Final = (
    "o.account_id IN (SELECT account_id FROM accounts WHERE account_id = ?2"
    " OR (community = ?3 AND eab_key_id = ?4))"
)
_CERTIFICATES: Final = " ".join(
    (
        "SELECT c.certificate_id FROM orders o",
        "JOIN certificates c ON c.certificate_id = o.certificate_id",
        "WHERE",
        _OF_ACCOUNTS,
        "AND",
        _RESTING,
        "AND c.is_released = 1 AND c.revoked_at IS NULL AND c.revocation_reason IS NULL",
        "AND c.not_after > ?5 ORDER BY c.not_after LIMIT ?6",
    )
)
_PROCESSING: Final = " ".join(
    (
        "SELECT count(*) FROM orders o WHERE o.status = 'processing' AND",
        _OF_ACCOUNTS,
        "AND",
        _RESTING,
    )
)
_WAKE: Final = " ".join(
    (
        "UPDATE managed SET next_at = ?2 WHERE next_at > ?2 AND due_since IS NOT NULL",
        "AND node_id IN (SELECT node_id FROM nodes WHERE account_id = ?1)",
        "AND EXISTS (SELECT 1 FROM json_each(managed.identifiers) mine",
        "JOIN json_each(?3) opened ON mine.value = opened.value)",
    )
)
"""A name is its JSON list in both, so that they compare as text."""

_MINTED: Final = (
    "SELECT actor FROM events WHERE kind = 'eab-minted' AND community = ?"
    " AND json_extract(data, '$.key_id') = ? ORDER BY seq LIMIT 1"
)


class Approvals(Part):
    """The ports ApprovalStore, ApprovalLists and WithdrawalStore."""

    async def file_approval(
        self, record: ApprovalRecord, event: Event, limits: QueueLimits
    ) -> ApprovalRecord:
        """Keep a request that waits; see the port."""

        def work(transaction: Transaction) -> ApprovalRecord:
            row = transaction.first(_WAITING, record.community, record.subject_sha256)
            if row is not None:
                return APPROVALS.read(row)
            _check_room(transaction, record, limits)
            transaction.change(APPROVALS.insert, *APPROVALS.values(record))
            transaction.record((event,))
            return record

        return await self._database.write(work)

    async def find_approval(self, approval_id: str) -> ApprovalRecord | None:
        """Return the approval, or None."""
        return await self._database.read(lambda snapshot: _first(snapshot, _BY_ID, approval_id))

    async def approvals_of(
        self, community: str, holder: str, profile: str
    ) -> Sequence[ApprovalRecord]:
        """Return those of *holder*, what is open first; see the port."""

        def work(snapshot: Snapshot) -> list[ApprovalRecord]:
            whose = (holder, community, profile)
            rows = snapshot.all(_OPEN_OF_HOLDER, *whose, MAX_OPEN)
            return APPROVALS.read_all([*rows, *snapshot.all(_ENDED_OF_HOLDER, *whose, MAX_ENDED)])

        return await self._database.read(work)

    async def approval_of_key(self, community: str, eab_key_id: str) -> ApprovalRecord | None:
        """Return the approval that minted the binding key, or None."""
        return await self._database.read(
            lambda snapshot: _first(snapshot, _BY_KEY, community, eab_key_id)
        )

    async def note_asked(self, approval_id: str, at: datetime) -> None:
        """Count an ask that joined, without fsync."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "UPDATE approvals SET times_asked = times_asked + 1, last_asked_at = ?"
                " WHERE approval_id = ?",
                time_of(at),
                approval_id,
            )

        await self._database.write(work, durable=False)

    async def change_approval(
        self,
        record: ApprovalRecord,
        *,
        expected: int,
        events: Sequence[Event],
        answer: ApprovalAnswer | None = None,
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep *record* by compare-and-set; see the port."""

        def work(transaction: Transaction) -> None:
            row = dict(zip(APPROVALS.columns, APPROVALS.values(record), strict=True))
            values = [row[name] for name in _CHANGED]
            if not transaction.change(_UPDATE, *values, record.approval_id, expected):
                raise Conflict(f"approval {record.approval_id} has changed meanwhile")
            if answer is not None:
                transaction.change(ANSWERS.insert, *ANSWERS.values(answer))
            if record.status is ApprovalStatus.APPROVED and events:
                _wake(transaction, record, events[0].at)
            upsert_jobs(transaction, jobs)
            transaction.record(events)

        await self._database.write(work)

    async def due_approvals(self, now: datetime, limit: int) -> Sequence[ApprovalRecord]:
        """Return those whose ``look_at`` has come."""
        return await self._database.read(
            lambda snapshot: APPROVALS.read_all(snapshot.all(_DUE, time_of(now), limit))
        )

    # ------------------------------------------------------------------------------------ lists

    async def list_approvals(
        self,
        *,
        statuses: Sequence[ApprovalStatus],
        community: str | None,
        after: str | None,
        limit: int,
        moves_by: datetime | None = None,
    ) -> Sequence[ApprovalRecord]:
        """Return those in these states, the newest first; see the port."""
        until = None if moves_by is None else time_of(moves_by)
        words = json_of([one.value for one in statuses])

        def work(snapshot: Snapshot) -> list[ApprovalRecord]:
            start = page_start(
                snapshot, "SELECT asked_at, approval_id FROM approvals WHERE approval_id = ?", after
            )
            if start is None:
                return []
            return APPROVALS.read_all(snapshot.all(_LIST, *start, words, community, limit, until))

        return await self._database.scan(work)

    async def answers_of(self, approval_id: str) -> Sequence[ApprovalAnswer]:
        """Return what people said, the oldest first."""
        statement = ANSWERS.select + " WHERE approval_id = ? ORDER BY revision"
        return await self._database.read(
            lambda snapshot: ANSWERS.read_all(snapshot.all(statement, approval_id))
        )

    async def approval_figures(self) -> ApprovalFigures:
        """Return what metrics show."""

        def work(snapshot: Snapshot) -> ApprovalFigures:
            counts = dict.fromkeys(ApprovalStatus, 0)
            for status, number in snapshot.all(
                "SELECT status, count(*) FROM approvals GROUP BY status"
            ):
                counts[ApprovalStatus(status)] = number
            oldest = snapshot.first("SELECT min(asked_at) FROM approvals WHERE status = 'waiting'")
            soonest = snapshot.first("SELECT min(look_at) FROM approvals WHERE status = 'approved'")
            return ApprovalFigures(
                counts=counts,
                oldest_waiting=_moment(oldest),
                soonest_end=_moment(soonest),
            )

        return await self._database.scan(work)

    async def key_minted_by(self, community: str, key_id: str) -> str | None:
        """Return the actor that minted a binding key, or None; reads all events, for a person."""

        def work(snapshot: Snapshot) -> str | None:
            row = snapshot.first(_MINTED, community, key_id)
            return None if row is None else str(row[0])

        return await self._database.scan(work)

    # ----------------------------------------------------------------------- what rests on them

    async def certificates_under(self, approval: ApprovalRecord, now: datetime) -> Sequence[str]:
        """Return ids of living certificates that rest on it and were not asked to be revoked."""
        rows = (*_resting(approval), time_of(now), MAX_CERTIFICATES)
        return await self._database.scan(
            lambda snapshot: [str(row[0]) for row in snapshot.all(_CERTIFICATES, *rows)]
        )

    async def processing_under(self, approval: ApprovalRecord) -> int:
        """Return how many orders that rest on it are with their CA."""

        def work(snapshot: Snapshot) -> int:
            row = snapshot.first(_PROCESSING, *_resting(approval))
            return 0 if row is None else int(row[0])

        return await self._database.scan(work)


def _first(snapshot: Snapshot, statement: str, *given: object) -> ApprovalRecord | None:
    row = snapshot.first(statement, *given)
    return None if row is None else APPROVALS.read(row)


def _check_room(transaction: Transaction, record: ApprovalRecord, limits: QueueLimits) -> None:
    mine = transaction.first(
        "SELECT count(*) FROM approvals WHERE asker = ? AND status = 'waiting'", record.asker
    )
    if mine is not None and mine[0] >= limits.of_asker:
        raise QueueFull(
            f"{mine[0]} requests of this requester wait for a person already, at most"
            f" {limits.of_asker}"
        )
    whole = transaction.first("SELECT count(*) FROM approvals WHERE status = 'waiting'")
    if whole is not None and whole[0] >= limits.in_all:
        raise QueueFull(f"{whole[0]} requests wait for a person already, at most {limits.in_all}")


def _wake(transaction: Transaction, record: ApprovalRecord, at: datetime) -> None:
    """Have the certificates of the holder's node that were refused looked at again now."""
    names = json_of([(one.type, one.value) for one in record.identifiers])
    transaction.change(_WAKE, record.holder, time_of(at), names)


def _resting(approval: ApprovalRecord) -> tuple[object, ...]:
    return (approval.approval_id, approval.holder, approval.community, approval.eab_key_id)


def _moment(row: tuple[object, ...] | None) -> datetime | None:
    return moment_of(row[0]) if row is not None and isinstance(row[0], int) else None
