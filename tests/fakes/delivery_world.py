"""A world with nodes: the workflows of deliveries over a real store and a fake CA, and nodes that
read their outbox and answer as a test has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agents import wire
from broker.issuance.deliveries import Deliveries
from broker.issuance.delivery_rooms import Workrooms
from broker.issuance.events import Event, EventKind
from broker.issuance.managed_ports import NodeChallenges, NodeOrders, ReloadWindows
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    EnrolmentMethod,
    IssuedIdentity,
    ManagedRecord,
    NodeRecord,
    NodeStatus,
    QueuedMessage,
    Receipt,
    RolloutGate,
    Statement,
)
from broker.issuance.records import JobKind
from broker.protocol.certificates import parse_chain
from tests.fakes.fake_connections import FakeConnections
from tests.fakes.fake_rollout import FakeRollout
from tests.fakes.world import World, dns, make_csr, new_key

__all__ = ["DeliveryWorld", "Node"]

PROGRESS: Final = ("checked", "installed", "reloaded", "seen")
"""What a node that works tells of a certificate, in order."""


class DeliveryWorld(World):
    """A world whose processes also deliver."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(folder, **changes)
        self.runs_due = False
        self.rollout = FakeRollout()
        self.make_gate: Callable[[], RolloutGate] = lambda: self.rollout
        """Makes the gate of the next process."""
        self.connections = FakeConnections()
        self.windows: ReloadWindows | None = None
        self.challenges: NodeChallenges | None = None
        self.node_orders: Callable[[NodeOrders], NodeOrders] = lambda orders: orders
        """Stands before the orders that nodes make, from the next start on."""

    async def start(self) -> None:
        """Begin a process."""
        await super().start()
        store = self.traffic.watch(self.store, "store", counts=True)
        self.deliveries = Deliveries(
            Workrooms(
                store=store,
                policies=self.policies,
                planner=self.planner,
                orders=self.node_orders(self.orders),
                gate=self.make_gate(),
                connections=self.connections,
                outbox=store,
                dispatcher=self.dispatcher,
                clock=self.clock,
                challenges=self.challenges,
                retirements=self.renewing.retirements,
                windows=self.windows,
                approvals=self.approvals,
                freezes=self.freezes,
            )
        )
        self.dispatcher.on(JobKind.DELIVER, self.deliveries.advance)
        self.store.on_committed = self.deliveries.on_events
        await self.dispatcher.run_due()

    async def stop(self) -> None:
        """End the process."""
        await self.deliveries.stop()
        await super().stop()

    async def node(self, name: str = "web-01", **changes: Any) -> Node:
        """Let a node in, whose account policy trusts with names below robots.example.com."""
        client = await self.robot()
        key = new_key()
        now = self.clock.now()
        record = NodeRecord(
            node_id=f"node-{name}",
            name=name,
            community="default",
            status=NodeStatus.ACTIVE,
            account_id=client.account.account_id,
            method=EnrolmentMethod.TOKEN,
            names=(),
            profiles=(),
            owner="web team",
            contact="web@corp.example",
            spki_sha256="00" * 32,
            fingerprint=f"{name}-identity",
            identity_not_after=now + timedelta(days=30),
            enrolled_at=now,
        )
        record = replace(record, **changes)
        identity = IssuedIdentity(b"", b"der", record.fingerprint, record.identity_not_after)
        event = Event(kind=EventKind.NODE_ENROLLED, at=now, data={"node_id": record.node_id})
        await self.store.add_node(record, identity, event, token_id=None)
        return Node(self, record, key)

    async def sweep(self) -> int:
        """Have one sweep run, and all that it begins."""
        found = await self.deliveries.sweep.run()
        await self.settle()
        return found


@dataclass(slots=True)
class Node:
    """A host with an agent that keeps its state."""

    world: DeliveryWorld
    record: NodeRecord
    identity_key: ec.EllipticCurvePrivateKey
    wanted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    installed: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Certificate → (chain, generation)."""
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    csrs: dict[str, bytes] = field(default_factory=dict)
    """Delivery → CSR."""
    heard: list[QueuedMessage] = field(default_factory=list)
    inbox: list[QueuedMessage] = field(default_factory=list)
    """What was taken in and not done yet."""
    ends: str = "seen"
    """The last receipt that it gives; another than ``seen`` ends the way there."""
    profile: str | None = "private"

    async def state(self, *only: str, **changes: Any) -> None:
        """State what it wants and has, and wait for what that begins."""
        await self.world.deliveries.stated(self.record, [*self.statements(*only, **changes)])
        await self.world.settle()

    def statements(self, *only: str, **changes: Any) -> Sequence[Statement]:
        """Return what it states."""
        names = [name for name in self.wanted if not only or name in only]
        return [replace(self._statement(name), **changes) for name in names]

    def _statement(self, name: str) -> Statement:
        chain, generation = self.installed.get(name, (None, 0))
        leaf = None if chain is None else parse_chain(chain).leaf
        return Statement(
            name=name,
            identifiers=tuple(dns(one) for one in self.wanted[name]),
            profile=self.profile,
            key_kind="ec-p256",
            fingerprint=None if leaf is None else leaf.fingerprint,
            not_after=None if leaf is None else leaf.not_after,
            generation=generation,
            is_seen=leaf is not None,
        )

    async def wants(self, name: str = "www", *names: str) -> None:
        """Want one more certificate, and state so."""
        self.wanted[name] = names or (f"{name}.robots.example.com",)
        await self.state()

    async def work(self) -> None:
        """Answer all messages that wait, and those that follow from them."""
        while self.inbox or await self.read():
            while self.inbox:
                # What it was stopped at is done again.
                await self.answer(self.inbox[0])
                self.inbox.pop(0)
            await self.world.settle()

    async def read(self) -> Sequence[QueuedMessage]:
        """Return what waits, and acknowledge it."""
        found = await self.world.store.queued_messages(self.record.node_id, 0, 32)
        for message in found:
            # What is written has to be what the channel's vocabulary says.
            wire.parse_message(
                {"id": message.message_id, "kind": message.kind, "body": dict(message.body)}
            )
        self.heard += found
        self.inbox += found
        if found:
            await self.world.store.acknowledge(self.record.node_id, found[-1].seq)
        return found

    async def answer(self, message: QueuedMessage) -> None:
        """Do what a message says."""
        if message.kind == "want-csr":
            await self.offer(str(message.body["delivery"]))
        elif message.kind == "certificate":
            await self.install(message)

    async def offer(self, delivery_id: str, csr_der: bytes | None = None) -> None:
        """Send the CSR of a delivery, the same each time."""
        question = next(
            one for one in reversed(self.heard) if one.body.get("delivery") == delivery_id
        )
        name = str(question.body["certificate"])
        if csr_der is None and delivery_id not in self.csrs:
            if question.body["is_new_key"] or name not in self.keys:
                self.keys[name] = new_key()
            names = question.body["names"]
            assert isinstance(names, list)
            self.csrs[delivery_id] = make_csr(*names, key=self.keys[name])
        csr_der = csr_der or self.csrs[delivery_id]
        await self.world.deliveries.offered(self.record, delivery_id, csr_der)
        await self.world.settle()

    async def install(self, message: QueuedMessage) -> None:
        """Install a certificate, telling of each step, up to the one that it ends with."""
        for stage in PROGRESS:
            if self.ends not in PROGRESS:
                await self.tell(message, self.ends)
                return
            await self.tell(message, stage)
            if stage == "installed":
                pem = str(message.body["chain_pem"]).encode()
                generation = message.body["generation"]
                assert isinstance(generation, int)
                self.installed[str(message.body["certificate"])] = pem, generation
            if stage == self.ends:
                return

    async def tell(self, message: QueuedMessage, *stages: str, **changes: Any) -> None:
        """Give one receipt, or several at once."""
        receipts = [replace(self.receipt(message, stage), **changes) for stage in stages]
        await self.world.deliveries.receipted(self.record, receipts)
        await self.world.settle()

    def receipt(self, message: QueuedMessage, stage: str) -> Receipt:
        """Return a receipt for what a message brought."""
        pem = str(message.body["chain_pem"]).encode()
        generation = message.body["generation"]
        assert isinstance(generation, int)
        return Receipt(
            delivery_id=str(message.body["delivery"]),
            generation=generation,
            stage=DeliveryStage(stage),
            fingerprint=parse_chain(pem).leaf.fingerprint,
            at=self.world.clock.now(),
        )

    async def managed(self, name: str = "www") -> ManagedRecord:
        """Return what the broker keeps of a certificate."""
        found = await self.world.store.managed_of(self.record.node_id)
        return next(one for one in found if one.name == name)

    async def deliveries(self, name: str = "www") -> Sequence[DeliveryRecord]:
        """Return the deliveries of a certificate, newest first."""
        return await self.world.store.deliveries_of((await self.managed(name)).managed_id, 100)

    async def stage(self, name: str = "www") -> DeliveryStage:
        """Return how far the newest delivery of a certificate has come."""
        return (await self.deliveries(name))[0].stage

    def leaf(self, name: str = "www") -> x509.Certificate:
        """Return what it serves."""
        return x509.load_pem_x509_certificates(self.installed[name][0])[0]

    async def settled(self, name: str = "www", *names: str) -> None:
        """Want a certificate, and have it served."""
        await self.wants(name, *names)
        await self.work()
        assert await self.stage(name) is DeliveryStage.SEEN, await self.deliveries(name)
