"""All rooms put together: the one place where a port meets its adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from broker.app.agents import AgentRooms
from broker.app.deliveries import ClientWatch, make_client_watch
from broker.app.held import held_operations, held_workflows
from broker.app.inspecting import DATABASE
from broker.app.outside import Outside, go_outside, make_state
from broker.app.policies import first_look, open_policies
from broker.app.recovering import own_certificates
from broker.app.turns import Lasting
from broker.app.upgrading import open_store
from broker.app.workshop import furnished
from broker.clock import SystemClock
from broker.config import Config
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.freezes import Freezes
from broker.issuance.key_moves import KeyMoves
from broker.issuance.orders import Orders
from broker.issuance.own_certificate import OwnCertificates
from broker.issuance.registration import RegistrationAuthority
from broker.issuance.renewing import Renewing
from broker.issuance.sealing import SecretSealing
from broker.operations import Recovery
from broker.web.operator import Operations
from broker.web.workflows import Workflows

__all__ = ["Broker", "assembled"]

JOBS_SECONDS: Final = 5.0
"""How long jobs may take to end once they are told to, in seconds: with what clients are given
before, an end fits into the 30 s after which orchestrators kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker, assembled and not yet listening."""

    outside: Outside
    dispatcher: Dispatcher
    orders: Orders
    workflows: Workflows
    operations: Operations
    recovery: Recovery
    own: OwnCertificates | None
    """Orders the listener's certificate, where an ACME upstream issues it."""
    renewing: Renewing
    moves: KeyMoves
    sealing: SecretSealing
    clients: ClientWatch
    """Looks whether clients renew by themselves."""
    on_hangup: list[Callable[[], None]] = field(default_factory=list)
    """What is done on SIGHUP, beside reading policies."""
    approvals: RegistrationAuthority
    """Takes what people say to requests, and does what the clock does to them."""
    freezes: Freezes
    """Knows what is frozen."""
    agents: AgentRooms | None = None
    """What serves agents; None where the configuration has none."""

    def communities_of_cluster(self, cluster: str) -> frozenset[str]:
        """Return the communities that pods of *cluster* can be of; none for a stranger."""
        return frozenset() if self.agents is None else self.agents.workloads.communities_of(cluster)

    async def tell_left_out(self) -> None:
        """Put on record how many refusals of a flood were not kept each, for every room.

        Raises:
            Unreachable, Broken: Not all could be kept, and are told later; the others were.
        """
        rooms = [self.orders.refusals.tell_left_out, self.freezes.refusals.tell_left_out]
        if self.agents is not None:
            rooms.append(self.agents.joining.refusals.tell_left_out)
        fault: Unreachable | Broken | None = None
        for tell in rooms:
            try:
                await tell()
            except (Unreachable, Broken) as error:
                fault = fault or error
        if fault is not None:
            raise fault

    def unless_held(self, run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Return *run*, which does nothing while a restored store has to be reconciled."""

        async def attempt() -> None:
            if self.recovery.standstill.restoration is None:
                await run()

        return attempt

    async def go_on(self) -> None:
        """Start every job that is due, unless a restored store has to be reconciled first."""
        await self.unless_held(self.dispatcher.run_due)()

    async def expire_due(self) -> None:
        """Close orders, move approvals and end freezes whose time has passed."""
        await self.freezes.sweep()
        await self.orders.expire_due()
        await self.approvals.sweep()

    async def ask_about_renewals(self) -> None:
        """Ask the CAs about the certificates that are due, unless nothing may change."""
        if self.recovery.standstill.restoration is None:
            await self.renewing.watch.refresh_due()

    async def settle_keys(self) -> None:
        """Ask CAs which account key they know where that is in doubt, unless nothing may change."""
        if self.recovery.standstill.restoration is None:
            await self.outside.upstream_keys.settle()
            await self.moves.tidy()

    async def rotate_keys(self) -> None:
        """Retire what came before account keys, and rotate one that has grown old."""
        if self.recovery.standstill.restoration is None:
            await self.outside.key_rotation.take_turn()

    async def reconcile(self) -> None:
        """Compare a restored store with its CAs, and go on with everything if that may be."""
        if self.recovery.standstill.restoration is not None:
            await self.recovery.reconciliation.run()
            await self.go_on()


@asynccontextmanager
async def assembled(config: Config, lasting: Lasting | None = None) -> AsyncIterator[Broker]:
    """Assemble a broker over its store, whose exclusive lock is held for as long.

    *lasting* is what it finds of the turns before it.

    Raises:
        Broken: Something in the configuration or the state cannot be used, or another process
            works on the store.
        Unreachable: The store cannot be opened now.
    """
    found = first_look(config)
    if found.error is not None and not (config.state / DATABASE).exists():
        raise found.error  # nothing was ever in force here
    make_state(config)
    store = await open_store(config, SystemClock())
    try:
        policies = await open_policies(config, found, store, SystemClock())
        outside = go_outside(config, policies, store, lasting or Lasting())
        try:
            broker = await _assemble(outside)
            try:
                yield broker
            finally:
                # A hook may take its minute; what is told twice leaves its traces and ends.
                with suppress(TimeoutError):
                    async with asyncio.timeout(JOBS_SECONDS):
                        await broker.dispatcher.stop()
        finally:
            await outside.close()
    finally:
        await store.close()


async def _assemble(outside: Outside) -> Broker:
    await outside.upstreams.load_accounts()
    await outside.upstream_keys.load()
    await outside.upstreams.load_authorities()
    workshop = await furnished(outside)
    standstill = workshop.recovery.standstill
    if standstill.restoration is None:
        await workshop.takeover.moves.drop_strays()
    return Broker(
        outside=outside,
        renewing=workshop.renewing,
        moves=workshop.takeover.moves,
        sealing=SecretSealing(outside.store, outside.keys.sealer, outside.clock),
        clients=make_client_watch(outside),
        agents=workshop.agents,
        approvals=workshop.approvals.authority,
        freezes=workshop.freezes,
        dispatcher=workshop.dispatcher,
        orders=workshop.orders,
        recovery=workshop.recovery,
        own=own_certificates(
            outside.config,
            outside.store,
            policies=outside.policies,
            planner=workshop.planner,
            dispatcher=workshop.dispatcher,
            clock=outside.clock,
        ),
        workflows=held_workflows(workshop.workflows(), standstill),
        operations=held_operations(workshop.desk(), standstill),
    )
