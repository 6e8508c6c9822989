"""What is kept of approvals, and what their workflows ask of the store.

An approval is one row from the first ask to its end: it begins as a request that waits for people,
and where they say yes the same row is what later orders rest on.  Who answered what stands beside
it and is only added to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import Job
from broker.protocol.identifiers import Identifier

__all__ = [
    "MINTED_PREFIX",
    "AnswerWord",
    "ApprovalAnswer",
    "ApprovalFigures",
    "ApprovalKind",
    "ApprovalLists",
    "ApprovalRecord",
    "ApprovalStatus",
    "ApprovalStore",
    "QueueFull",
    "QueueLimits",
    "WithdrawalStore",
]


MINTED_PREFIX: Final = "ra-"
"""Beginning of the ids of binding keys that an approval minted; ``ra``: registration authority."""


class ApprovalKind(StrEnum):
    """What is asked for."""

    NAMES = "names"
    """That an account may have certificates for names under a profile."""
    ACCOUNT = "account"
    """That a key may have an account at all."""


class ApprovalStatus(StrEnum):
    """Where an approval stands; ``approval_states`` says what follows what."""

    WAITING = "waiting"
    APPROVED = "approved"
    DUE = "due"
    """It opens nothing until its evidence was shown anew."""
    SUSPENDED = "suspended"
    DENIED = "denied"
    EXPIRED = "expired"
    """Nobody answered in time, or the time it was good for is over."""
    WITHDRAWN = "withdrawn"


class AnswerWord(StrEnum):
    """What a person said."""

    APPROVE = "approve"
    DENY = "deny"
    SUSPEND = "suspend"
    RESUME = "resume"
    WITHDRAW = "withdraw"
    RENEW = "renew"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """One request, and the approval that came of it."""

    approval_id: str
    kind: ApprovalKind
    community: str
    status: ApprovalStatus
    holder: str
    """Whose it is: the account's id, or for ACCOUNT the thumbprint of the key that asked."""
    asker: str
    """What waiting requests are counted by: the account, or the address that a key asked from."""
    identifiers: tuple[Identifier, ...]
    """Sorted; empty for ACCOUNT."""
    profile: str
    subject_sha256: str
    """Over holder, names and profile: an identical ask has the same."""
    terms: Mapping[str, object]
    """``approval_terms.Terms`` as it is kept."""
    asked_by: Mapping[str, object]
    """What was known of who asked when they did, for people."""
    asked_at: datetime
    last_asked_at: datetime
    times_asked: int
    answer_by: datetime
    revision: int = 0
    """Counts changes; each is made by compare-and-set."""
    round: int = 1
    """Answers are counted within a round; a renewal begins the next."""
    decided_at: datetime | None = None
    """When it was last approved, denied or withdrawn."""
    proofed_at: datetime | None = None
    """When its evidence was last shown."""
    holds_until: datetime | None = None
    reproof_at: datetime | None = None
    look_at: datetime | None = None
    """When the next thing happens to it that no person does; None: nothing."""
    reason: str | None = None
    """What the requester is told where it was denied, suspended or withdrawn."""
    eab_key_id: str | None = None
    """The external account binding key that it minted."""
    earlier: str | None = None
    """The approval of the same subject that came before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAnswer:
    """What one person said once."""

    approval_id: str
    revision: int
    """Of the record that it led to."""
    round: int
    person: str
    """The actor's name."""
    word: AnswerWord
    at: datetime
    reason: str | None
    evidence: tuple[str, ...]
    """``KIND=REFERENCE``, each with its digest where one was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many requests may wait at once."""

    of_asker: int
    in_all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFigures:
    """What metrics show."""

    counts: Mapping[ApprovalStatus, int]
    oldest_waiting: datetime | None
    soonest_end: datetime | None
    """The soonest moment at which an approval that stands ends or has to be proofed anew."""


class QueueFull(Conflict):
    """Too many requests wait already."""


class ApprovalStore(Protocol):
    """Approvals one by one."""

    async def file_approval(
        self, record: ApprovalRecord, event: Event, limits: QueueLimits
    ) -> ApprovalRecord:
        """Keep a request that waits, or return the one that waits for the same subject already.

        Raises:
            QueueFull: Too many wait, of this asker or in all.
        """
        ...

    async def find_approval(self, approval_id: str) -> ApprovalRecord | None: ...

    async def approvals_of(
        self, community: str, holder: str, profile: str
    ) -> Sequence[ApprovalRecord]:
        """Return those of *holder*: first what is open, then what has ended, each the newest
        first and a bounded number."""
        ...

    async def approval_of_key(self, community: str, eab_key_id: str) -> ApprovalRecord | None:
        """Return the approval that minted the binding key, or None."""
        ...

    async def note_asked(self, approval_id: str, at: datetime) -> None:
        """Count an ask that joined, without waiting for the disk."""
        ...

    async def change_approval(
        self,
        record: ApprovalRecord,
        *,
        expected: int,
        events: Sequence[Event],
        answer: ApprovalAnswer | None = None,
        jobs: Sequence[Job] = (),
    ) -> None:
        """Keep *record* in place of the one of revision *expected*.

        One that is approved has the certificates of its node that wait for it looked at again.

        Raises:
            Conflict: It has changed meanwhile.
        """
        ...

    async def due_approvals(self, now: datetime, limit: int) -> Sequence[ApprovalRecord]:
        """Return those whose ``look_at`` has come."""
        ...


class ApprovalLists(Protocol):
    """Approvals for people to look at."""

    async def list_approvals(
        self,
        *,
        statuses: Sequence[ApprovalStatus],
        community: str | None,
        after: str | None,
        limit: int,
        moves_by: datetime | None = None,
    ) -> Sequence[ApprovalRecord]:
        """Return those in these states, the newest first; with *moves_by* those alone that the
        clock moves until then."""
        ...

    async def answers_of(self, approval_id: str) -> Sequence[ApprovalAnswer]:
        """Return what people said, the oldest first."""
        ...

    async def approval_figures(self) -> ApprovalFigures: ...

    async def key_minted_by(self, community: str, key_id: str) -> str | None:
        """Return the actor that minted a binding key, or None."""
        ...


class WithdrawalStore(Protocol):
    """What rests on an approval, or goes back to it."""

    async def certificates_under(self, approval: ApprovalRecord, now: datetime) -> Sequence[str]:
        """Return ids of living certificates that rest on it and were not asked to be revoked."""
        ...

    async def processing_under(self, approval: ApprovalRecord) -> int:
        """Return how many orders that rest on it are with their CA."""
        ...
