"""What the hostile CA has really done: the oracle that tests count by.

Kept apart from what the CA says.  A CA that loses its answer still wrote here what
it did.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from tests.fakes.hostile_ca.script import Resource


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that reached the CA, whatever became of it."""

    resource: Resource
    order_id: str | None
    at_seconds: float
    """Monotonic time of its arrival, for distances between requests."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """One order that was created; a coalesced one appears once."""

    order_id: str
    account_id: str
    names: tuple[str, ...]
    not_after: str | None
    profile: str | None


@dataclass(frozen=True, slots=True)
class Finalized:
    """One finalize that was accepted."""

    order_id: str
    csr_sha256: str


@dataclass(frozen=True, slots=True)
class Certified:
    """One certificate that was signed."""

    order_id: str
    serial_hex: str
    fingerprint: str
    """SHA-256 of its DER, in hex."""

    csr_sha256: str
    names: tuple[str, ...]
    not_after: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """One certificate that was revoked."""

    serial_hex: str
    reason: int


@dataclass(slots=True)
class Ledger:
    """Everything the CA did, in the order it did it."""

    requests: list[Seen] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    orders: list[Ordered] = field(default_factory=list)
    finalizes: list[Finalized] = field(default_factory=list)
    certificates: list[Certified] = field(default_factory=list)
    revocations: list[Revoked] = field(default_factory=list)

    def issued_for(self, names: tuple[str, ...]) -> int:
        """Return how many certificates there were for exactly these names."""
        return sum(one.names == names for one in self.certificates)

    def count(self, resource: Resource | None = None, order_id: str | None = None) -> int:
        """Return how many requests there were, of one resource and one order where given."""
        return sum(
            resource in (None, seen.resource) and order_id in (None, seen.order_id)
            for seen in self.requests
        )

    def times_of(self, resource: Resource) -> list[float]:
        """Return when requests for *resource* came, in monotonic seconds."""
        return [seen.at_seconds for seen in self.requests if seen.resource is resource]

    def certificates_of(self, order_id: str) -> list[Certified]:
        """Return the certificates signed for one order."""
        return [each for each in self.certificates if each.order_id == order_id]

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON's own types."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Ledger:
        """Return the ledger that :meth:`to_json` gave."""
        return TypeAdapter(Ledger).validate_python(document)


class Counter:
    """Writes requests into a ledger and wakes those who wait for them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._more = asyncio.Condition()

    async def add(self, resource: Resource, order_id: str | None) -> None:
        """Write down one request."""
        async with self._more:
            self.ledger.requests.append(Seen(resource, order_id, time.monotonic()))
            self._more.notify_all()

    async def wait(self, resource: Resource, count: int) -> None:
        """Return once *resource* has been asked for *count* times in all."""
        async with self._more:
            await self._more.wait_for(lambda: self.ledger.count(resource) >= count)
