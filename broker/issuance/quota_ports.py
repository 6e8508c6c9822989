"""What is kept about limits: buckets of tokens, holds of CAs, and which CAs are left alone.

All of it lies in the store, so that a restart forgets nothing and processes over one store see
the same.  Tokens are taken in the transaction of the order that they are for: where the order is
not made, nothing was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.records import OrderRecord, WorkRecord
from broker.policy.units import Rate
from broker.protocol.identifiers import Identifier

__all__ = [
    "BreakerRecord",
    "BreakerState",
    "BreakerStore",
    "BucketKind",
    "BucketRecord",
    "BucketStore",
    "GivesBack",
    "HoldRecord",
    "HoldStore",
    "OrderHistory",
    "OrderMove",
    "OrderMoves",
    "StandingStore",
    "Take",
    "Taking",
    "YoungStore",
]


class BucketKind(StrEnum):
    """Whose limit it is: the CA's, which failover leaves behind, or one of policy."""

    CA = "ca"
    POLICY = "policy"


class GivesBack(StrEnum):
    """When a token comes back after its order was made.

    UNSENT: the order ended before the CA had heard of it.  UNISSUED: it ended without a
    certificate.  MOVED: it went to another CA, for which it is not counted there.  NEVER: what is
    counted is the asking.
    """

    UNSENT = "unsent"
    UNISSUED = "unissued"
    MOVED = "moved"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A token out of one bucket."""

    bucket: str
    """Its name: kind, owner and subject, joined by ``|``."""
    kind: BucketKind
    rate: Rate
    floor: float = 0.0
    """Tokens that have to be left for others."""
    at_first: float | None = None
    """The level of a bucket that was never kept before; None: full."""
    gives_back: GivesBack = GivesBack.NEVER
    is_enforced: bool = True
    """False: too few tokens are told by ``told``, and the order goes on."""
    told: Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """Tokens that one order takes, all of them or none."""

    order_id: str
    at: datetime
    takes: tuple[Take, ...]
    is_instead: bool = False
    """Whether the order goes to another CA: what it took of the one that it leaves comes back
    first, and a quota of policy that counts it here as there is not taken from twice."""
    is_heard_of: bool = False
    """Whether that one may have heard of it, by work that was begun ahead and is nobody's; else
    the order's own work tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRecord:
    """A bucket as it was left."""

    bucket: str
    kind: BucketKind
    count: int
    """Tokens at most, and so many again in ``period_microseconds``."""
    period_microseconds: int
    level: float
    at: datetime


class OrderHistory(Protocol):
    """Orders as they were made."""

    async def orders_made(
        self, upstream: str, community: str, since: datetime
    ) -> Sequence[datetime]:
        """Return when orders for that upstream were made, the oldest first."""
        ...

    async def has_had(self, account_id: str, identifiers: frozenset[Identifier]) -> bool:
        """Return whether one order of the account brought a certificate for all of these."""
        ...

    async def has_had_there(
        self, account_id: str, upstream: str, identifiers: frozenset[Identifier]
    ) -> bool:
        """Return whether the account has had a certificate from there for exactly these."""
        ...


class BucketStore(OrderHistory, Protocol):
    """Buckets of tokens; taken from in the transaction of an order (``Attached.taking``)."""

    async def read_bucket(self, bucket: str) -> BucketRecord | None:
        """Return the bucket as it was left, None where nothing was ever taken."""
        ...

    async def list_buckets(self, prefix: str, limit: int) -> Sequence[BucketRecord]:
        """Return buckets whose name begins so, the emptiest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord:
    """A time before which a CA does not want to be asked.

    About everything where ``account`` is empty, about all of one account where ``subject`` is.
    """

    upstream: str
    account: str
    """Thumbprint of the account key that was told so."""
    subject: str
    """What the request was about, such as its names."""
    until: datetime
    since: datetime
    reason: str


class HoldStore(Protocol):
    """Holds of CAs, shared by all who ask them."""

    async def keep_hold(self, hold: HoldRecord) -> None:
        """Keep *hold*, unless a longer one of the same kind stands; without fsync."""
        ...

    async def holds(self, upstream: str | None, now: datetime) -> Sequence[HoldRecord]:
        """Return what stands at *now* there, or anywhere, the last to end first, at most
        10,000."""
        ...


class BreakerState(StrEnum):
    """CLOSED: all requests go.  OPEN: none goes.  HALF_OPEN: one is on its way, to look."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRecord:
    """Whether a CA is asked at all."""

    upstream: str
    state: BreakerState
    openings: int
    """How often it was opened since an answer came."""
    since: datetime
    until: datetime
    """When somebody may look again; of HALF_OPEN, when whoever looks is given up."""
    reason: str


class BreakerStore(Protocol):
    """Circuit breakers, shared by all who ask a CA."""

    async def breakers(self) -> Sequence[BreakerRecord]:
        """Return those that are not closed."""
        ...

    async def move_breaker(
        self, record: BreakerRecord, *, expected: BreakerRecord | None, events: Sequence[Event]
    ) -> None:
        """Keep *record*, without fsync.

        Raises:
            Conflict: What is kept is not *expected* (None: nothing, or CLOSED).
        """
        ...


class StandingStore(Protocol):
    """How CAs stand, in one look."""

    async def standing(
        self, now: datetime, subject: str
    ) -> tuple[Sequence[BreakerRecord], Sequence[HoldRecord]]:
        """Return the breakers that are not closed, and the holds that stand at *now* about
        *subject*, or about more than one subject."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderMove:
    """An order whose upstream half begins anew at another CA."""

    order: OrderRecord
    """As it is to be: upstream, profile there, cap and decision."""
    left: WorkRecord
    """The work that is given up: no finalize of it was ever sent, and none will be."""
    work: WorkRecord
    taking: Taking | None
    event: Event


class OrderMoves(Protocol):
    """Orders that go to another CA."""

    async def move_order(self, move: OrderMove) -> None:
        """Give up the work of a processing order and begin other work in its place.

        Raises:
            Conflict: The order or its work went on meanwhile, or a backup may hide that it did.
            OverLimit: A limit of the other CA leaves no room for it.
        """
        ...


class YoungStore(Protocol):
    """What an account was issued a short while ago."""

    async def has_young(
        self, account_id: str, identifiers: Sequence[Identifier], since: datetime
    ) -> bool:
        """Return whether an order of the account that was made since then brought a certificate
        for exactly these."""
        ...

    async def sibling_orders(self, order: OrderRecord, since: datetime) -> Sequence[str]:
        """Return the ids of the account's orders that were finalized with the CSR of *order* under
        its profile: valid ones, the last first and one for each certificate that came since then,
        then those in processing whose claim was kept before that of *order*, the first first."""
        ...
