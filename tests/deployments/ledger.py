"""The ledger of a deployment: what the CA did, held against what the broker keeps and delivered.

The CA's own record is the oracle.  The broker's side is read from its database file, past the
broker, so that nothing it says about itself is believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fakes.hostile_ca import Ledger

READ_SECONDS: Final = 30.0
"""How long a look at the database waits for a lock of the broker's; a commit takes milliseconds."""

OPEN_ORDERS: Final = ("pending", "ready", "processing")


@dataclass(frozen=True, slots=True)
class Delivered:
    """One certificate that a client holds."""

    csr_sha256: str
    fingerprint: str
    """SHA-256 of its DER, in hex."""


@dataclass(frozen=True, slots=True)
class KeptOrder:
    """One order of ours."""

    order_id: str
    status: str
    csr_sha256: str | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptCertificate:
    """One certificate that the broker has stored."""

    order_id: str
    fingerprint: str
    is_released: bool


@dataclass(frozen=True, slots=True)
class KeptWork:
    """One upstream half."""

    work_id: str
    order_url: str | None
    order_id: str | None
    status: str


@dataclass(frozen=True, slots=True)
class LocalIssue:
    """One certificate in the built-in CA's table."""

    work_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the broker's database holds."""

    orders: tuple[KeptOrder, ...] = ()
    certificates: tuple[KeptCertificate, ...] = ()
    work: tuple[KeptWork, ...] = ()
    issued_here: tuple[LocalIssue, ...] = ()
    events: Counter[str] = field(default_factory=Counter)

    def orders_with(self, csr_sha256: str) -> list[KeptOrder]:
        """Return the orders that were finalized with this CSR."""
        return [each for each in self.orders if each.csr_sha256 == csr_sha256]

    def open_orders(self) -> list[KeptOrder]:
        """Return the orders that have not ended."""
        return [each for each in self.orders if each.status in OPEN_ORDERS]


def read_kept(database: Path) -> Kept:
    """Read the broker's database, whether or not a broker runs on it."""
    with _connection(database, "ro") as db:
        return Kept(
            orders=tuple(
                KeptOrder(order_id, status, csr, tuple(json.loads(names)))
                for order_id, status, csr, names in db.execute(
                    "SELECT order_id, status, csr_sha256, identifiers FROM orders"
                )
            ),
            certificates=tuple(
                KeptCertificate(order_id, fingerprint, bool(is_released))
                for order_id, fingerprint, is_released in db.execute(
                    "SELECT order_id, fingerprint, is_released FROM certificates"
                )
            ),
            work=tuple(
                KeptWork(*row)
                for row in db.execute("SELECT work_id, order_url, taken_by, status FROM work")
            ),
            issued_here=tuple(
                LocalIssue(reference, _fingerprint(der))
                for reference, der in db.execute(
                    "SELECT order_ref, certificate_der FROM ca_certificates"
                )
            ),
            events=Counter(kind for (kind,) in db.execute("SELECT kind FROM events")),
        )


def is_sound(database: Path) -> bool:
    """Say whether SQLite finds the database whole, its foreign keys too."""
    with _connection(database, "ro") as db:
        whole = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return whole and not db.execute("PRAGMA foreign_key_check").fetchall()


def change(database: Path, statement: str) -> None:
    """Run one statement on the database, as somebody with a tool of his own would."""
    with _connection(database, "rw") as db:
        db.execute(statement)


def check_ledger(ca: Ledger, kept: Kept, delivered: Iterable[Delivered]) -> list[str]:
    """Return a sentence for each way in which an ACME CA and the broker disagree.

    For each of our orders: at most one finalize accepted, at most one certificate issued, the one
    that was issued is the one delivered, none is lost, at most one upstream order for the same
    names is left unfinalized, and none is unknown to the broker without having been counted.
    """
    return [
        *_check_once(ca),
        *_check_known(ca, kept),
        *_check_delivered(ca, kept, list(delivered)),
        *_check_work(kept),
        *_check_left_over(ca, kept),
    ]


def check_local_ledger(kept: Kept, delivered: Iterable[Delivered]) -> list[str]:
    """Return the same for the built-in CA, whose own table is its record."""
    order_of = {each.work_id: each.order_id for each in kept.work}
    issued = [(order_of[one.work_id], one) for one in kept.issued_here if one.work_id in order_of]
    findings = [
        f"order {order} has {count} certificates of the built-in CA"
        for order, count in Counter(order for order, _ in issued).items()
        if count > 1
    ]
    held = {each.fingerprint: each for each in kept.certificates if each.is_released}
    for order_id, one in issued:
        found = held.get(one.fingerprint)
        if found is None or found.order_id != order_id:
            findings.append(f"certificate of order {order_id} is unknown to the broker's orders")
    made = {one.fingerprint for _, one in issued}
    findings += [
        f"delivered certificate {one.fingerprint} is none of the built-in CA's"
        for one in delivered
        if one.fingerprint not in made
    ]
    return [*findings, *_check_work(kept), *_check_orders(kept, list(delivered))]


def unfinished_at(ca: Ledger) -> list[str]:
    """Return the ids of the CA's orders that were opened and never finalized."""
    finalized = {each.order_id for each in ca.finalizes}
    return [each.order_id for each in ca.orders if each.order_id not in finalized]


def unaccounted_at(ca: Ledger, kept: Kept) -> list[str]:
    """Return the ids of the CA's orders whose URL the broker never learned."""
    known = {(each.order_url or "").rpartition("/")[2] for each in kept.work}
    return [each.order_id for each in ca.orders if each.order_id not in known]


def _check_once(ca: Ledger) -> Iterator[str]:
    kinds: Sequence[tuple[str, Iterable[str]]] = (
        ("finalizes accepted for the CSR", (each.csr_sha256 for each in ca.finalizes)),
        ("finalizes accepted for the upstream order", (each.order_id for each in ca.finalizes)),
        ("certificates issued for the CSR", (each.csr_sha256 for each in ca.certificates)),
        ("orders with the fingerprint", (each.fingerprint for each in ca.certificates)),
    )
    for what, values in kinds:
        for value, count in Counter(values).items():
            if count > 1:
                yield f"{count} {what} {value}"


def _check_known(ca: Ledger, kept: Kept) -> Iterator[str]:
    held = {each.fingerprint: each for each in kept.certificates}
    valid = {each.order_id: each for each in kept.orders if each.status == "valid"}
    for finalize in ca.finalizes:
        owners = kept.orders_with(finalize.csr_sha256)
        if len(owners) != 1:
            yield f"{len(owners)} orders of ours have the CSR of upstream order {finalize.order_id}"
    for issued in ca.certificates:
        found = held.get(issued.fingerprint)
        if found is None:
            yield f"certificate {issued.fingerprint} of {issued.names} is lost"
            continue
        order = valid.get(found.order_id)
        if order is None or order.csr_sha256 != issued.csr_sha256:
            yield f"certificate {issued.fingerprint} is kept for another order, {found.order_id}"


def _check_delivered(ca: Ledger, kept: Kept, delivered: Sequence[Delivered]) -> Iterator[str]:
    issued = {each.csr_sha256: each.fingerprint for each in ca.certificates}
    for one in delivered:
        if issued.get(one.csr_sha256) != one.fingerprint:
            yield f"delivered {one.fingerprint}, issued {issued.get(one.csr_sha256)}"
    yield from _check_orders(kept, delivered)


def _check_orders(kept: Kept, delivered: Sequence[Delivered]) -> Iterator[str]:
    held = {(each.order_id, each.fingerprint) for each in kept.certificates if each.is_released}
    for one in delivered:
        owners = kept.orders_with(one.csr_sha256)
        if [(each.status, (each.order_id, one.fingerprint) in held) for each in owners] != [
            ("valid", True)
        ]:
            yield f"delivered {one.fingerprint} belongs to {owners}"
    for order in kept.orders:
        if order.status in ("processing", "invalid"):
            yield f"order {order.order_id} of {order.names} is {order.status}"


def _check_work(kept: Kept) -> Iterator[str]:
    taken = Counter(each.order_id for each in kept.work if each.order_id and each.status != "dead")
    for order_id, count in taken.items():
        if count > 1:
            yield f"order {order_id} has {count} upstream halves that live"


def _check_left_over(ca: Ledger, kept: Kept) -> Iterator[str]:
    names_of = {each.order_id: each.names for each in ca.orders}
    left_over = Counter(names_of[order_id] for order_id in unfinished_at(ca))
    for names, count in left_over.items():
        if count > 1:
            yield f"{count} upstream orders for {names} were never finalized"
    unknown = unaccounted_at(ca, kept)
    counted = kept.events["upstream-order-lost"]
    if len(unknown) > counted:
        yield f"{len(unknown)} upstream orders are unknown to the broker, which counted {counted}"
    finalized = {each.order_id for each in ca.finalizes}
    for order_id in unknown:
        if order_id in finalized:
            yield f"upstream order {order_id} was finalized and is unknown to the broker"


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


@contextlib.contextmanager
def _connection(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{database.as_uri()}?mode={mode}"
    with contextlib.closing(
        sqlite3.connect(uri, uri=True, timeout=READ_SECONDS, isolation_level=None)
    ) as db:
        yield db
