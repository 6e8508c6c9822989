"""Whatever happens in whatever order, an order has one finalize and one certificate, its own.

A machine of accounts, a CA that misbehaves, and a broker that is killed, starved of power and cut
off in the middle of a step.  After each step the promises hold; at the end everything that went
wrong is mended, and whatever was begun has to come to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.records import OrderRecord, WorkStatus
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.protocol.transitions import ORDER_TABLE
from tests.fakes.fake_upstream import CaOrder, Leaf
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import Client, World, make_csr, new_key

NAMES = ("a.example.com", "b.example.com", "a.robots.example.com")
METHODS = ("open_order", "seek_order", "authorize", "finalize", "read_order", "download")
STEPS = (
    *(f"ca.{method}" for method in METHODS),
    "store.create_order",
    "store.change_challenge",
    "store.mark_sent",
    "store.record_opened",
    "store.adopt_work",
    "store.claim_finalize",
    "store.change_work",
    "store.close_order",
    "store.append",
    "store.postpone_job",
    "store.finish_job",
)
OUTCOMES = (Unreachable("away"), Unreachable("busy", left_nothing=True), Broken("nonsense"))
REFUSAL = Refused(Problem(ProblemType.BAD_CSR, "see https://ca.example/help"))
LENGTHS = (0.1, 1.0, 6.0, 20.0, 90.0)
"""Seconds: a poll, a retry, past the finalize wait, past a pause, past a poll run."""

FINAL = (OrderStatus.VALID, OrderStatus.INVALID)


def reachable() -> dict[OrderStatus, set[OrderStatus]]:
    """Return the statuses that each status can lead to, in any number of steps."""
    found = {status: {status} for status in OrderStatus}
    for _ in OrderStatus:
        for (before, _event), after in ORDER_TABLE.items():
            found[before] |= found[after]
    return found


REACHABLE = reachable()


def key_of(csr_or_leaf: bytes, *, is_csr: bool) -> bytes:
    """Return the public key of a CSR or of a certificate."""
    load = x509.load_der_x509_csr if is_csr else x509.load_der_x509_certificate
    key = load(csr_or_leaf).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Placed:
    """An order as its client knows it."""

    client: Client
    order: OrderRecord
    csrs: list[bytes] = field(default_factory=list)

    def csr(self, number: int) -> bytes:
        """Return one of two CSRs, each with a key that no other order has."""
        names = [name.value for name in self.order.identifiers]
        while len(self.csrs) <= number:
            self.csrs.append(make_csr(*names))
        return self.csrs[number]


class OrderMachine(RuleBasedStateMachine):
    """Two requesters and a robot, one broker, one CA."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.exits = contextlib.ExitStack()
        self.exits.callback(self.loop.close)
        self.exits.enter_context(capture_logs())
        folder = self.exits.enter_context(memory_folder())
        self.world = self.loop.run_until_complete(self._make(folder))
        self.placed: list[Placed] = []
        self.answers: list[tuple[bytes, asyncio.Task[OrderRecord]]] = []
        self.seen: dict[str, OrderRecord] = {}
        self.power_cuts = 0

    async def _make(self, folder: Any) -> World:
        world = World(folder)
        world.keeps_snapshots = True
        await world.start()
        return world

    @property
    def ca(self) -> Any:
        """The CA."""
        return self.world.ca

    def do(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Return what comes of *doing*; None when a client is refused or cut off."""
        return self.loop.run_until_complete(self._do(doing))

    async def _do(self, doing: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(doing)
        cut = asyncio.ensure_future(self.world.traffic.is_cut.wait())
        await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
        await self.world.settle()
        is_cut = cut.done()
        cut.cancel()
        if is_cut:
            task.cancel()
            await self._restart()
        await asyncio.wait({task})
        if task.cancelled() or isinstance(task.exception(), Problem):
            return None
        return task.result()

    async def _restart(self, *, power_cut: bool = False) -> None:
        for _, answer in self.answers:
            answer.cancel()
        await asyncio.gather(*(answer for _, answer in self.answers), return_exceptions=True)
        self.answers.clear()
        await self.world.restart(power_cut=power_cut)
        await self.world.settle()

    # ------------------------------------------------------------------------------- clients

    @initialize(has_power_cuts=st.booleans())
    def begin(self, has_power_cuts: bool) -> None:
        """Register everyone.  Without power cuts every upstream order is accounted for."""
        world = self.world
        self.has_power_cuts = has_power_cuts
        self.clients = [
            self.do(world.client()),
            self.do(world.client()),
            self.do(world.robot()),
        ]

    @rule(who=st.integers(0, 2), name=st.sampled_from(NAMES), other=st.booleans())
    def place(self, who: int, name: str, other: bool) -> None:
        """Order a certificate."""
        client = self.clients[who]
        order = self.do(client.order(name, profile="other" if other else None))
        if order is not None:
            self.placed.append(Placed(client, order))

    @rule(who=st.integers(0, 2), name=st.sampled_from(NAMES), other=st.booleans())
    def place_and_prove(self, who: int, name: str, other: bool) -> None:
        """Order a certificate, and show control of the name."""
        count = len(self.placed)
        self.place(who, name, other)
        if len(self.placed) > count:
            self.do(self._prove(self.placed[-1]))

    @rule(who=st.integers(0, 2), name=st.sampled_from(NAMES), times=st.integers(1, 3))
    def issue(self, who: int, name: str, times: int) -> None:
        """Go the whole way at once."""
        count = len(self.placed)
        self.place_and_prove(who, name, other=False)
        if len(self.placed) > count:
            self.do(self._finalize(self.placed[-1], [0] * times))

    @precondition(lambda self: self.placed)
    @rule(which=st.integers(0, 9), is_wrong=st.sampled_from([False, False, False, True]))
    def prove(self, which: int, is_wrong: bool) -> None:
        """Respond to the challenge of an order, now and then without an answer in place."""
        placed = self._pick(which, OrderStatus.PENDING)
        name = placed.order.identifiers[0].value
        self.world.validator.wrong = {name} if is_wrong else set()
        self.do(self._prove(placed))
        self.world.validator.wrong = set()

    async def _prove(self, placed: Placed) -> None:
        for authorization in await placed.client.authorizations(placed.order):
            if authorization.challenges:
                await placed.client.respond(authorization)

    @precondition(lambda self: self.placed)
    @rule(which=st.integers(0, 9), csrs=st.lists(st.integers(0, 1), min_size=1, max_size=3))
    def finalize(self, which: int, csrs: list[int]) -> None:
        """Finalize, perhaps several times at once, and wait for no answer."""
        self.do(self._finalize(self._pick(which, OrderStatus.READY), csrs))

    @precondition(lambda self: self.placed)
    @rule(which=st.integers(0, 9), csr=st.integers(0, 1))
    def finalize_again(self, which: int, csr: int) -> None:
        """Repeat a finalize while the order is on its way."""
        self.do(self._finalize(self._pick(which, OrderStatus.PROCESSING), [csr]))

    async def _finalize(self, placed: Placed, csrs: list[int]) -> None:
        for csr_der in map(placed.csr, csrs):
            doing = self.world.orders.finalize(
                placed.client.account, placed.order.order_id, csr_der
            )
            self.answers.append((csr_der, asyncio.ensure_future(doing)))

    def _pick(self, which: int, status: OrderStatus) -> Placed:
        """Return one of the orders, if there are such, that were of this status just now."""
        fitting = [
            one
            for one in self.placed
            if one.order.order_id in self.seen and self.seen[one.order.order_id].status is status
        ]
        some = fitting or self.placed
        return some[which % len(some)]

    @precondition(lambda self: self.placed)
    @rule(which=st.integers(0, 9))
    def give_up(self, which: int) -> None:
        """Deactivate the authorization of an order."""
        placed = self._pick(which, OrderStatus.READY)
        deactivate = self.world.authorizations.deactivate
        self.do(deactivate(placed.client.account, placed.order.authorization_ids[0]))

    # ---------------------------------------------------------------------------------- the CA

    @rule(
        switch=st.sampled_from(["is_coalescing", "lists_orders", "shows_ready", "is_away"]),
        polls=st.integers(0, 3),
    )
    def switch(self, switch: str, polls: int) -> None:
        """Let the CA be otherwise from now on, and take its time over finalized orders."""
        setattr(self.ca, switch, not getattr(self.ca, switch))
        self.ca.polls = polls

    @rule(
        method=st.sampled_from(METHODS),
        outcome=st.sampled_from(OUTCOMES),
        after=st.booleans(),
        times=st.integers(1, 3),
    )
    def fail(self, method: str, outcome: Exception, after: bool, times: int) -> None:
        """Let the next calls fail, before they took effect or after."""
        is_after = after and not getattr(outcome, "left_nothing", False)
        self.ca.fail(method, outcome, times=times, after=is_after)

    @rule(method=st.sampled_from(["open_order", "authorize", "finalize"]))
    def lose(self, method: str) -> None:
        """Let the CA do what it is asked for once, and let nobody hear of it."""
        self.ca.lose_answer(method)

    @rule(method=st.sampled_from(["open_order", "authorize", "finalize"]))
    def refuse(self, method: str) -> None:
        """Let the CA refuse once."""
        self.ca.fail(method, REFUSAL)

    @rule(is_on=st.booleans())
    def refuse_to_issue(self, is_on: bool) -> None:
        """Let orders turn invalid after their finalize, or no more."""
        self.ca.fails_after_finalize = REFUSAL.problem if is_on else None

    @rule()
    def misissue(self) -> None:
        """Let the CA issue to somebody else for once, and an operator resume it."""
        self.do(self._resume())
        self.ca.misissue = self._spoil_once

    def _spoil_once(self, leaf: Leaf) -> Leaf:
        self.ca.misissue = lambda one: one
        return replace(leaf, public_key=new_key().public_key())

    @rule()
    def grow_old(self) -> None:
        """Let the CA's oldest unfinalized order end, and an operator resume what is suspended."""
        for theirs in self.ca.unfinalized[:1]:
            self.ca.expire(theirs.url)
        self.do(self._resume())

    async def _resume(self) -> None:
        for pair in await self.world.store.suspensions():
            event = Event(kind=EventKind.UPSTREAM_RESUMED, at=self.world.clock.now())
            await self.world.store.resume(pair.upstream, pair.upstream_profile, event)

    # ------------------------------------------------------------------------------ the broker

    @rule(cap=st.sampled_from(["90d", "60d", "30d"]))
    def change_cap(self, cap: str) -> None:
        """Put another cap in force."""
        self.world.policies.change("cap: 90d", f"cap: {cap}")

    @rule(seconds=st.sampled_from(LENGTHS))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.do(self._let_pass(timedelta(seconds=seconds)))

    async def _let_pass(self, length: timedelta) -> None:
        """Let time pass, with the sweeps that the schedule makes."""
        await self.world.let_pass(length)
        await self.world.dispatcher.run_due()
        await self.world.orders.expire_due()

    @rule(how=st.sampled_from(["kill", "kill", "kill", "power cut", "power cut", "night"]))
    def end(self, how: str) -> None:
        """Kill the broker, take its power away, or stop it until the next morning."""
        if how == "night":
            self.world.clock.advance(timedelta(hours=9))
        is_power_cut = how == "power cut" and self.has_power_cuts
        self.power_cuts += is_power_cut
        self.do(self._restart(power_cut=is_power_cut))
        self.do(self._let_pass(timedelta(0)))

    @rule(step=st.sampled_from(STEPS), side=st.sampled_from(Cut))
    def cut_off(self, step: str, side: Cut) -> None:
        """Let the broker end when it next comes by a step, before the step or after."""
        traffic = self.world.traffic
        traffic.cutting = Cutting(step, traffic.seen(step) + 1, side)

    # --------------------------------------------------------------------------------- promises

    @invariant()
    def promises_hold(self) -> None:
        """Hold what is promised, at every moment."""
        self.loop.run_until_complete(self._hold())

    async def _hold(self) -> None:
        orders = await self.world.store.list_orders(
            community=None, account_id=None, status=None, after=None, limit=1000
        )
        for order in orders:
            before = self.seen.get(order.order_id, order)
            assert order.status in REACHABLE[before.status], "a status went back"
            if before.csr_sha256 is not None:
                assert order.csr_sha256 == before.csr_sha256, "another CSR was taken"
            if before.certificate_id is not None:
                assert order.certificate_id == before.certificate_id, "a certificate was replaced"
            self.seen[order.order_id] = order
        assert set(self.seen) == {order.order_id for order in orders}, "an order was lost"
        for placed in self.placed:
            self._hold_one(placed, self.seen[placed.order.order_id])
        await self._hold_certificates(orders)
        self._hold_answers()

    def _hold_one(self, placed: Placed, order: OrderRecord) -> None:
        """At most one finalize was accepted for any CSR of this order, and the right one."""
        taken = [one for one in self.ca.orders.values() if one.csr_der in placed.csrs]
        assert len(taken) <= 1, "two of the CA's orders were finalized for one of ours"
        for one in taken:
            assert one.accepted == 1
            assert hashlib.sha256(one.csr_der).hexdigest() == order.csr_sha256

    async def _hold_certificates(self, orders: Any) -> None:
        kept = {one.certificate_id: one for one in await self.world.certificates()}
        assert len({one.order_id for one in kept.values()}) == len(kept)
        for order in orders:
            assert (order.certificate_id is not None) is (order.status is OrderStatus.VALID)
            if order.certificate_id is not None:
                certificate = kept[order.certificate_id]
                assert certificate.is_released
                assert certificate.account_id == order.account_id
                assert certificate.identifiers == order.identifiers
                assert order.csr_der is not None
                assert key_of(certificate.leaf_der, is_csr=False) == key_of(
                    order.csr_der, is_csr=True
                ), "a certificate for somebody else's key was released"

    def _hold_answers(self) -> None:
        """Who was answered with the order had the CSR that counts."""
        for csr_der, answer in [one for one in self.answers if one[1].done()]:
            self.answers.remove((csr_der, answer))
            if answer.cancelled() or isinstance(answer.exception(), Problem | Unreachable):
                continue
            assert answer.result().csr_sha256 == hashlib.sha256(csr_der).hexdigest()

    # ----------------------------------------------------------------------------------- the end

    def teardown(self) -> None:
        """Mend everything, and see everything come to its end."""
        try:
            self.loop.run_until_complete(self._end())
        finally:
            self.loop.run_until_complete(self.world.stop())
            self.exits.close()

    async def _end(self) -> None:
        world, ca = self.world, self.world.ca
        await self._restart()
        ca.is_away = ca.shows_ready = ca.is_coalescing = False
        ca.lists_orders, ca.polls, ca.misissue = True, 0, lambda leaf: leaf
        ca.fails_after_finalize = None
        ca.mend()
        for _ in range(4):
            await self._resume()
            await self._let_pass(timedelta(hours=2))
            await world.settle()
        await self._hold()
        jobs = await world.store.due_jobs(world.clock.now() + timedelta(days=1), 100)
        for order in self.seen.values():
            assert order.status is not OrderStatus.PROCESSING, f"an order was forgotten: {jobs}"
        assert jobs == [], "a job was left behind"
        kept = {one.fingerprint: one for one in await world.certificates()}
        for theirs in ca.issued:
            self._hold_issued(theirs, kept)
        known = await world.store.known_urls("ca", "default")
        strangers = [one for one in ca.orders if one not in known]
        lost = await world.count(EventKind.UPSTREAM_ORDER_LOST)
        assert len(strangers) <= lost + self.power_cuts, "an upstream order is unaccounted for"
        assert await self._living_work() == []

    def _hold_issued(self, theirs: CaOrder, kept: dict[str, Any]) -> None:
        """Every certificate that was signed is released to its order, or withheld and revoked."""
        fingerprint = hashlib.sha256(theirs.leaf_der).hexdigest()
        assert fingerprint in kept, "a certificate was lost"
        if not kept[fingerprint].is_released:
            assert fingerprint in self.ca.revoked, "a withheld certificate was not revoked"

    async def _living_work(self) -> list[str]:
        """Return orders that are over and whose upstream work is neither spent nor dead."""
        found = []
        for order in self.seen.values():
            work = await self.world.store.work_of_order(order.order_id)
            if work is not None and work.status is not WorkStatus.SPENT and order.status in FINAL:
                found.append(order.order_id)
        return found


def test_order_machine() -> None:
    """Accounts, a CA and a broker in random turns keep every promise."""
    run_state_machine_as_test(
        OrderMachine,
        settings=settings(
            max_examples=max(1, settings().max_examples * 2 // 3),
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )
