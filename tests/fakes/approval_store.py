"""Approvals in memory, with the compare-and-set of the real store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from broker.issuance.approval_ports import (
    ApprovalAnswer,
    ApprovalFigures,
    ApprovalRecord,
    ApprovalStatus,
    QueueLimits,
)
from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.node_ports import NodeRecord
from broker.issuance.records import AccountRecord, EabKeyRecord, Job


class ApprovalsInMemory:
    """The ports ApprovalStore, ApprovalLists and PeopleStore."""

    def __init__(self) -> None:
        self.records: dict[str, ApprovalRecord] = {}
        self.answers: list[ApprovalAnswer] = []
        self.events: list[Event] = []
        self.jobs: list[Job] = []

    async def file_approval(
        self, record: ApprovalRecord, event: Event, limits: QueueLimits
    ) -> ApprovalRecord:
        """See the port; there is room for all."""
        for one in self.records.values():
            is_same = one.subject_sha256 == record.subject_sha256
            if is_same and one.status is ApprovalStatus.WAITING:
                return one
        self.records[record.approval_id] = record
        self.events.append(event)
        return record

    async def find_approval(self, approval_id: str) -> ApprovalRecord | None:
        """See the port."""
        return self.records.get(approval_id)

    async def approvals_of(
        self, community: str, holder: str, profile: str
    ) -> Sequence[ApprovalRecord]:
        """See the port."""
        return [
            one
            for one in reversed(self.records.values())
            if (one.community, one.holder, one.profile) == (community, holder, profile)
        ]

    async def approval_of_key(self, community: str, eab_key_id: str) -> ApprovalRecord | None:
        """See the port."""
        return None

    async def note_asked(self, approval_id: str, at: datetime) -> None:
        """See the port."""
        record = self.records[approval_id]
        self.records[approval_id] = replace(record, times_asked=record.times_asked + 1)

    async def change_approval(
        self,
        record: ApprovalRecord,
        *,
        expected: int,
        events: Sequence[Event],
        answer: ApprovalAnswer | None = None,
        jobs: Sequence[Job] = (),
    ) -> None:
        """See the port."""
        if self.records[record.approval_id].revision != expected:
            raise Conflict("it has changed")
        self.records[record.approval_id] = record
        self.events += events
        self.jobs += jobs
        if answer is not None:
            self.answers.append(answer)

    async def due_approvals(self, now: datetime, limit: int) -> Sequence[ApprovalRecord]:
        """See the port."""
        found = self.records.values()
        return [one for one in found if one.look_at is not None and one.look_at <= now]

    async def list_approvals(
        self,
        *,
        statuses: Sequence[ApprovalStatus],
        community: str | None,
        after: str | None,
        limit: int,
        moves_by: datetime | None = None,
    ) -> Sequence[ApprovalRecord]:
        """See the port."""
        return [one for one in self.records.values() if one.status in statuses]

    async def answers_of(self, approval_id: str) -> Sequence[ApprovalAnswer]:
        """See the port."""
        return [one for one in self.answers if one.approval_id == approval_id]

    async def approval_figures(self) -> ApprovalFigures:
        """See the port."""
        return ApprovalFigures(counts={}, oldest_waiting=None, soonest_end=None)

    async def key_minted_by(self, community: str, key_id: str) -> str | None:
        """See the port."""
        return None

    async def find_account(self, account_id: str) -> AccountRecord | None:
        """See the port; accounts are somebody else's here."""
        return None

    async def find_eab_key(self, community: str, key_id: str) -> EabKeyRecord | None:
        """See the port; no account is bound."""
        return None

    async def find_node_by_account(self, account_id: str) -> NodeRecord | None:
        """See the port; nobody has a node."""
        return None
