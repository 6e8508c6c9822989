"""A store full of finished orders, made of copies of one that really was.

Everything goes through the store's own ports, so that rows, indexes and events are those that a
broker writes; what shares a commit there shares one here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Attached, OrderClosing
from broker.issuance.records import (
    AuthorizationRecord,
    CertificateRecord,
    OrderRecord,
    WorkRecord,
    WorkStatus,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import OrderStatus
from broker.storage.sqlite import SqliteStore

__all__ = ["fill"]

AT_ONCE: Final = 128
"""Orders that are written beside each other: as many units as share one commit."""

EVENTS: Final = (
    EventKind.ORDER_CREATED,
    EventKind.CHALLENGE_VALID,
    EventKind.ORDER_READY,
    EventKind.ORDER_FINALIZED,
    EventKind.UPSTREAM_ORDER_OPENED,
    EventKind.CERTIFICATE_ISSUED,
)
"""What a finished order leaves in the journal."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One finished order with all that belongs to it."""

    order: OrderRecord
    authorizations: tuple[AuthorizationRecord, ...]
    work: WorkRecord
    certificate: CertificateRecord


def fill(database: Path, orders: int) -> None:
    """Put *orders* copies of the one finished order of *database* into it; nobody else has it."""
    asyncio.run(_fill(database, orders))


async def _fill(database: Path, orders: int) -> None:
    store = await SqliteStore.open(database)
    try:
        pattern = await _pattern(store, _finished_order(database))
        for start in range(0, orders, AT_ONCE):
            batch = range(start, min(start + AT_ONCE, orders))
            await asyncio.gather(*(_write(store, copy_of(pattern, number)) for number in batch))
    finally:
        await store.close()


def _finished_order(database: Path) -> str:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT order_id FROM orders WHERE status = 'valid'").fetchall()
    ((order_id,),) = rows
    return str(order_id)


async def _pattern(store: SqliteStore, order_id: str) -> Pattern:
    order = await store.load_order(order_id)
    work = await store.work_of_order(order_id)
    assert order is not None
    assert order.certificate_id is not None
    assert work is not None
    certificate = await store.find_certificate(order.certificate_id)
    assert certificate is not None
    found = [await store.load_authorization(one) for one in order.authorization_ids]
    authorizations = tuple(one for one in found if one is not None)
    return Pattern(order, authorizations, work, certificate)


def ids_of(number: int) -> Iterator[str]:
    """Return ids for the copy of that number, each as random as a real one looks."""
    for part in range(1_000_000):
        yield hashlib.sha256(f"{number} {part}".encode()).hexdigest()[:32]


def copy_of(pattern: Pattern, number: int) -> Pattern:
    """Return a copy with ids, a name and a certificate of its own."""
    fresh = ids_of(number)
    order_id, certificate_id, work_id = next(fresh), next(fresh), next(fresh)
    names = (Identifier(IdentifierType.DNS, f"f{number}.bench.example.test"),)
    authorizations = tuple(
        replace(
            one,
            authorization_id=next(fresh),
            order_id=order_id,
            identifier=names[0],
            challenges=tuple(replace(each, challenge_id=next(fresh)) for each in one.challenges),
        )
        for one in pattern.authorizations
    )
    order = replace(
        pattern.order,
        order_id=order_id,
        identifiers=names,
        authorization_ids=tuple(one.authorization_id for one in authorizations),
        certificate_id=certificate_id,
    )
    work = replace(
        pattern.work,
        work_id=work_id,
        work_key=hashlib.sha256(work_id.encode()).hexdigest(),
        identifiers=names,
        taken_by=order_id,
        order_url=f"builtin:{work_id}",
    )
    certificate = replace(
        pattern.certificate,
        certificate_id=certificate_id,
        order_id=order_id,
        fingerprint=hashlib.sha256(certificate_id.encode()).hexdigest(),
        serial=next(fresh),
        cert_id=f"{next(fresh)}.{next(fresh)}",
        spki_sha256=hashlib.sha256(order_id.encode()).hexdigest(),
        identifiers=names,
    )
    return Pattern(order, authorizations, work, certificate)


async def _write(store: SqliteStore, made: Pattern) -> None:
    """Have the order made and closed, in two steps as a broker does it."""
    order = made.order
    begun = replace(order, status=OrderStatus.PROCESSING, certificate_id=None)
    work = replace(made.work, status=WorkStatus.OPENED)
    await store.create_order(
        begun, made.authorizations, Attached(work=work, events=_events(order, EVENTS[:3]))
    )
    await store.close_order(
        OrderClosing(
            order_id=order.order_id,
            expected=begun.status,
            status=order.status,
            certificate=made.certificate,
            work_id=work.work_id,
            work_status=WorkStatus.SPENT,
            attached=Attached(events=_events(order, EVENTS[3:])),
        )
    )


def _events(order: OrderRecord, kinds: tuple[EventKind, ...]) -> tuple[Event, ...]:
    names = [str(one) for one in order.identifiers]
    return tuple(
        Event(
            kind=kind,
            at=order.created_at,
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=order.upstream,
            data={"identifiers": names},
        )
        for kind in kinds
    )
