"""Signatures by keys in Vault, noted beside what they were made for.

Vault names every request, and writes that name into its own audit log.  Here it goes into ours: an
event with the names of the requests, which the next commit takes along, so that it costs no commit
of its own (docs/adr/0031).  What a signature is for is known to whoever runs the job that asks for
it; nothing in between has to hand it down.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.issuance.events import SYSTEM, Event, EventKind
from broker.issuance.ports import Clock
from broker.protocol.encoding import format_timestamp

__all__ = ["MAX_WAITING", "Purpose", "Signature", "SignatureNotes", "signing_for"]

MAX_WAITING: Final = 10_000
"""Most signatures that wait for a commit; without a store nothing gets so far as to ask for more.
Past it they are counted, and the count is kept."""

OF_AN_ORDER: Final = frozenset({"fulfil", "prepare"})
"""Jobs whose subject is an order."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What signatures are made for."""

    job: str
    """A kind of job, ``checkpoint``, or the name of what is scheduled."""
    subject: str
    """What it is about; empty where that is nothing in particular."""
    collected: list[Signature] | None = field(default=None, compare=False)
    """Where they go instead of into an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature that Vault was asked for."""

    key_id: str
    request: str | None
    """Vault's name of the request; None where no answer came, so that it may have been made."""
    at: datetime


_purpose: ContextVar[Purpose | None] = ContextVar("penstock_signing_for", default=None)


@contextmanager
def signing_for(job: str, subject: str, *, apart: bool = False) -> Iterator[list[Signature]]:
    """Note signatures of this block, and of the tasks that it starts, as made for this.

    With *apart* they are put into the list that is yielded, and make no event.
    """
    collected: list[Signature] = []
    token = _purpose.set(Purpose(job, subject, collected if apart else None))
    try:
        yield collected
    finally:
        _purpose.reset(token)


class SignatureNotes:
    """Collects signatures until a commit takes them along."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[Purpose | None, list[Signature]] = {}
        self._count = 0
        self._left_out = 0

    @property
    def is_waiting(self) -> bool:
        """Return whether there is something to take along."""
        return bool(self._waiting)

    def note(self, key_id: str, request: str | None) -> None:
        """Note that Vault was asked for a signature, with the name it gave to the request."""
        purpose = _purpose.get()
        made = Signature(key_id=key_id, request=request, at=self._clock.now())
        if purpose is not None and purpose.collected is not None:
            purpose.collected.append(made)
            return
        with self._lock:
            if self._count >= MAX_WAITING:
                self._left_out += 1
                return
            self._count += 1
            self._waiting.setdefault(purpose, []).append(made)

    def take(self) -> Sequence[Event]:
        """Return an event for each purpose that there were signatures for, once."""
        if not self._waiting:
            return ()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            left_out, self._left_out = self._left_out, 0
            self._count = 0
        return [_event(purpose, made, left_out) for purpose, made in waiting.items()]


def _event(purpose: Purpose | None, made: Sequence[Signature], left_out: int) -> Event:
    data: dict[str, object] = {
        "signatures": [
            {"key": one.key_id, "vault_request": one.request, "at": format_timestamp(one.at)}
            for one in made
        ]
    }
    order_id = None
    if purpose is not None:
        data |= {"for": purpose.job}
        data |= {"subject": purpose.subject} if purpose.subject else {}
        order_id = purpose.subject if purpose.job in OF_AN_ORDER else None
    if left_out:
        data["left_out_before"] = left_out
    return Event(
        kind=EventKind.SIGNATURES_MADE,
        at=made[-1].at,
        actor=SYSTEM,
        order_id=order_id,
        data=data,
    )
