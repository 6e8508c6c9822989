"""What nodes state that they have and want, made into certificates that the broker keeps fresh.

A statement is the whole truth of its node: what it does not name any more is not renewed any
more.  Whether the node may have a name is asked when a certificate is due, not here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog

from broker.issuance.accounts import new_id
from broker.issuance.asking import Asking
from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import Workrooms, managed_event
from broker.issuance.delivery_stages import AT_NODE
from broker.issuance.events import Event, EventKind
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    ManagedRecord,
    NodeRecord,
    Receipt,
    Statement,
)
from broker.issuance.receipts import Receipts
from broker.issuance.records import CertificateRecord
from broker.issuance.releasing import Releasing
from broker.issuance.renewal_times import RenewalTimes
from broker.issuance.sweeping import Sweep
from broker.protocol.certificates import ChainError, parse_chain
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Stating"]

AT_ONCE: Final = 32
"""Most certificates that a statement begins at once; the sweep takes the others within seconds."""

MAX_RECORDS: Final = 12_000
"""Most certificates of one node that are kept, those too that it states no more: a mail host of a
thousand organisations has 5,000."""

MAX_GENERATION: Final = 1_000_000_000
"""Highest generation that a node is believed: one that counts on from there hurts itself alone."""

ASKED_AGAIN: Final = timedelta(minutes=1)
"""A node that states itself this long after it was asked or sent something, and has not answered,
is asked or sent it again: it may have lost what it had taken in."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Changes:
    """What one statement changes."""

    records: list[ManagedRecord] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    compelled: list[ManagedRecord] = field(default_factory=list)
    """Those whose delivery under way brings the wrong thing."""
    seen: list[tuple[DeliveryRecord, Statement]] = field(default_factory=list)
    """Deliveries that are at their end, which no receipt has told."""
    unanswered: list[str] = field(default_factory=list)
    """Deliveries that the node may have lost."""


class Stating:
    """Takes statements and adoptions."""

    def __init__(
        self,
        rooms: Workrooms,
        *,
        asking: Asking,
        releasing: Releasing,
        receipts: Receipts,
        ends: DeliveryEnds,
        times: RenewalTimes,
        sweep: Sweep,
    ) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._asking = asking
        self._releasing = releasing
        self._receipts = receipts
        self._ends = ends
        self._times = times
        self._sweep = sweep

    # ------------------------------------------------------------------------------- statements

    async def stated(self, node: NodeRecord, statements: Sequence[Statement]) -> None:
        """Take what a node states; the same again changes nothing.

        Raises:
            Problem: malformed, for a name that it states twice.
            Conflict: Something of it changed meanwhile; the node states it again.
        """
        names = {one.name for one in statements}
        if len(names) != len(statements):
            raise Problem(ProblemType.MALFORMED, "a certificate is stated twice")
        known = {one.name: one for one in await self._store.managed_of(node.node_id)}
        _verify_room(names | set(known))
        going = {one.managed_id: one for one in await self._store.open_deliveries_of(node.node_id)}
        changes = _Changes()
        for statement in statements:
            record = known.get(statement.name) or self._fresh(node, statement, changes)
            await self._reconcile(node, record, statement, going.get(record.managed_id), changes)
        for name, record in known.items():
            if name not in names and record.is_wanted:
                self._drop(node, record, changes)
        if changes.records:
            changed = {one.managed_id for one in changes.records}
            before = [one for one in known.values() if one.managed_id in changed]
            await self._store.keep_managed(changes.records, changes.events, before=before)
        await self._act(node, changes, going)

    async def _act(
        self, node: NodeRecord, changes: _Changes, going: dict[str, DeliveryRecord]
    ) -> None:
        for record in changes.records:
            delivery = going.get(record.managed_id)
            if not record.is_wanted and delivery is not None:
                why = "the node does not want this certificate any more"
                await self._ends.withdraw_open(delivery.delivery_id, why)
        for delivery, statement in changes.seen:
            await self._receipts.receipted(node, [self._receipt(delivery, statement)])
        for record in changes.compelled:
            try:
                await self._asking.begin(record.managed_id, reason="changed")
            except Problem as problem:
                await self._sweep.refused(record, node, problem)
        for delivery_id in changes.unanswered:
            await self._say_again(delivery_id)
        now = self._rooms.clock.now()
        due = [one for one in changes.records if one.next_at is not None and one.next_at <= now]
        await self._sweep.look_at(due[:AT_ONCE])

    def _fresh(self, node: NodeRecord, statement: Statement, changes: _Changes) -> ManagedRecord:
        record = ManagedRecord(
            managed_id=new_id(),
            node_id=node.node_id,
            name=statement.name,
            community=node.community,
            identifiers=statement.identifiers,
            profile=statement.profile,
            key_kind=statement.key_kind,
            is_wanted=False,
            generation=_generation(statement),
            certificate_id=None,
            not_after=None,
            csr_der=None,
            next_at=None,
            attempts=0,
            created_at=self._rooms.clock.now(),
        )
        changes.events.append(
            managed_event(EventKind.CERTIFICATE_MANAGED, record, node, record.created_at)
        )
        return record

    def _drop(self, node: NodeRecord, record: ManagedRecord, changes: _Changes) -> None:
        now = self._rooms.clock.now()
        dropped = replace(
            record, is_wanted=False, next_at=None, due_since=None, attempts=0, fault=None
        )
        changes.records.append(dropped)
        changes.events.append(managed_event(EventKind.CERTIFICATE_UNMANAGED, dropped, node, now))

    async def _reconcile(
        self,
        node: NodeRecord,
        record: ManagedRecord,
        statement: Statement,
        going: DeliveryRecord | None,
        changes: _Changes,
    ) -> None:
        """Add to *changes* what the statement makes of the record."""
        wanted = replace(
            record,
            identifiers=statement.identifiers,
            profile=statement.profile,
            key_kind=statement.key_kind,
            is_wanted=True,
        )
        is_changed = wanted != record
        installed = await self._installed(node, statement)
        wanted = _with_installed(wanted, statement, installed)
        wanted = replace(wanted, generation=max(record.generation, _generation(statement)))
        if going is None:
            wanted = await self._planned(node, record, wanted, is_changed=is_changed)
        elif is_changed and record.is_wanted:
            changes.compelled.append(wanted)
        elif installed is not None and installed.order_id == going.order_id:
            if statement.is_seen and going.stage in AT_NODE:
                changes.seen.append((going, statement))
                # The receipt's own change brings the record to what is stated.
                return
        elif self._is_unanswered(going):
            changes.unanswered.append(going.delivery_id)
        if wanted != record:
            changes.records.append(wanted)

    async def _installed(self, node: NodeRecord, statement: Statement) -> CertificateRecord | None:
        """Return the certificate of this node's own that it says it has."""
        if statement.fingerprint is None:
            return None
        found = await self._store.find_certificate_by_fingerprint(statement.fingerprint.lower())
        if found is None or found.account_id != node.account_id or not found.is_released:
            return None
        return found

    async def _planned(
        self,
        node: NodeRecord,
        record: ManagedRecord,
        wanted: ManagedRecord,
        *,
        is_changed: bool,
    ) -> ManagedRecord:
        """Return *wanted* with its time: a pause after failures is kept unless it was changed."""
        now = self._rooms.clock.now()
        if is_changed:
            wanted = replace(wanted, attempts=0, fault=None, due_since=None, told_at=None)
        elif record.attempts and record.next_at is not None:
            return wanted
        if await self._sweep.reason_for(wanted, node) is not None:
            kept = record.next_at
            return replace(wanted, next_at=now if kept is None or kept > now else kept)
        return await self._times.planned(wanted, node)

    def _is_unanswered(self, going: DeliveryRecord) -> bool:
        since = {
            DeliveryStage.ASKED: going.begun_at,
            DeliveryStage.PUSHED: going.pushed_at,
        }.get(going.stage)
        return since is not None and since + ASKED_AGAIN <= self._rooms.clock.now()

    async def _say_again(self, delivery_id: str) -> None:
        view = await self._store.find_delivery(delivery_id)
        if view is None:
            return
        if view.delivery.stage is DeliveryStage.ASKED:
            message = self._asking.question(view)
        elif view.delivery.stage is DeliveryStage.PUSHED:
            message = await self._releasing.message(view)
        else:
            return
        await self._rooms.outbox.queue_messages([message])
        self._rooms.connections.wake(view.node.node_id)

    def _receipt(self, delivery: DeliveryRecord, statement: Statement) -> Receipt:
        return Receipt(
            delivery_id=delivery.delivery_id,
            generation=delivery.generation,
            stage=DeliveryStage.SEEN,
            fingerprint=statement.fingerprint or "",
            at=self._rooms.clock.now(),
            note="told by the node's statement",
        )

    # --------------------------------------------------------------------------------- adoption

    async def adopted(self, node: NodeRecord, name: str, chain_pem: bytes) -> None:
        """Take over a pair that is served already: nothing is issued before it is due.

        Raises:
            Problem: It is no chain.
        """
        try:
            chain = parse_chain(chain_pem)
        except ChainError as error:
            raise Problem(ProblemType.MALFORMED, f"adopted certificate: {error}") from error
        leaf = chain.leaf
        known = {one.name: one for one in await self._store.managed_of(node.node_id)}
        _verify_room({name, *known})
        statement = Statement(
            name=name,
            identifiers=tuple(sorted(leaf.identifiers)),
            profile=None,
            key_kind=leaf.key_kind,
            fingerprint=leaf.fingerprint,
            not_after=leaf.not_after,
            is_seen=True,
        )
        changes = _Changes()
        record = known.get(name)
        if record is None:
            record = replace(self._fresh(node, statement, changes), is_wanted=True)
        ours = await self._installed(node, statement)
        adopted = replace(
            record,
            certificate_id=None if ours is None else ours.certificate_id,
            not_after=leaf.not_after,
            served_pem=chain.pem if ours is None else None,
        )
        if await self._store.open_delivery(record.managed_id) is None:
            adopted = await self._planned(node, record, adopted, is_changed=False)
        if adopted != known.get(name):
            before = [known[name]] if name in known else []
            await self._store.keep_managed([adopted], changes.events, before=before)


def _verify_room(names: Collection[str]) -> None:
    """See that a node does not fill the store; raises Problem."""
    if len(names) > MAX_RECORDS:
        raise Problem(
            ProblemType.MALFORMED,
            f"{len(names)} certificates, with those that are stated no more, are past the limit"
            f" of {MAX_RECORDS} for a node",
        )


def _generation(statement: Statement) -> int:
    """Return the generation that the node has: a broker that was restored from a backup may be
    behind it, and what it sends has to be newer than what is there."""
    return min(max(statement.generation, 0), MAX_GENERATION)


def _with_installed(
    wanted: ManagedRecord, statement: Statement, installed: CertificateRecord | None
) -> ManagedRecord:
    """Return *wanted* with what its node says is in its place."""
    if installed is not None:
        return replace(
            wanted,
            certificate_id=installed.certificate_id,
            not_after=installed.not_after,
            served_pem=None,
        )
    if statement.fingerprint is None:
        return replace(wanted, certificate_id=None, not_after=None, served_pem=None)
    served = wanted.served_pem
    if served is not None and parse_chain(served).leaf.fingerprint != statement.fingerprint.lower():
        served = None
    return replace(wanted, certificate_id=None, not_after=statement.not_after, served_pem=served)
