"""The operator API and the operator socket put together: one gate, two ways to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from broker.app.identity import Identity
from broker.app.operator_access import OperatorAccess, summaries
from broker.app.operator_metrics import OperatorMetrics
from broker.app.operator_tls import OperatorTls
from broker.app.outside import VERSION, Outside
from broker.app.turns import Lasting
from broker.issuance.events import Event
from broker.operations.belonging import StoredBelonging
from broker.web.authorizing import Gate
from broker.web.guarded import Guard
from broker.web.limits import Limit
from broker.web.listeners import start_tcp, start_unix
from broker.web.openapi import description_text
from broker.web.operator import Operations, create_operator_app
from broker.web.operator_api import ApiRates, create_operator_api

if TYPE_CHECKING:
    from broker.app.assembly import Broker

__all__ = ["OperatorDoors", "open_operator_doors", "start_operator_api"]

REFRESH_SECONDS: Final = 5.0
"""How often it is looked for a changed configuration, a new pair or new anchors, in seconds: a few
calls of stat(2).  Somebody who was taken out of the file is in for that long at most."""

USER_AGENT: Final = f"penstock/{VERSION}"

_log = structlog.get_logger("penstock.operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDoors:
    """What both ways have in common."""

    access: OperatorAccess
    gate: Gate
    metrics: OperatorMetrics


def operator_gate(
    outside: Outside,
    operations: Operations,
    access: OperatorAccess,
    clusters: Callable[[str], frozenset[str]] = lambda _name: frozenset(),
) -> Gate:
    """Return the gate before *operations*."""
    store = outside.store

    async def record(event: Event) -> None:
        await store.append(event, durable=True)

    return Gate(
        operations,
        StoredBelonging(store, store, store, clusters),
        clock=outside.clock,
        record=record,
        has_approvers=access.has_approvers,
    )


async def open_operator_doors(
    broker: Broker, stack: AsyncExitStack, config_path: Path | None
) -> OperatorDoors:
    """Open the socket, and have people looked up anew when *config_path* changes.

    Raises:
        Broken: The socket's path or the anchors cannot be used.
    """
    outside = broker.outside
    access = OperatorAccess(outside.config, outside.clock, user_agent=USER_AGENT, path=config_path)
    metrics = OperatorMetrics(outside.telemetry.registry)
    access.after_reading.append(lambda: metrics.show_failures(access.failures))
    await _meet_people(access, outside.lasting)
    doors = OperatorDoors(
        access=access,
        gate=operator_gate(outside, broker.operations, access, broker.communities_of_cluster),
        metrics=metrics,
    )
    app = create_operator_app(broker.operations, gate=doors.gate, users=access)
    section = outside.config.operators
    is_shared = section is not None and any(one.users for one in section.people.values())
    listener = await start_unix(
        app,
        outside.config.operator_socket,
        is_shared=is_shared,
        sockets=outside.lasting.sockets,
    )
    outside.draining.add(listener.stop)
    task = asyncio.create_task(_keep_fresh(access))
    stack.callback(task.cancel)

    def read_again() -> None:
        asked = asyncio.create_task(access.refresh(is_asked=True))
        stack.callback(asked.cancel)

    broker.on_hangup.append(read_again)
    return doors


async def _meet_people(access: OperatorAccess, lasting: Lasting) -> None:
    """Have readings told, and read at once where the file says other than what is in force."""

    def tell() -> None:
        if access.reading is not None:
            lasting.people_read(access.reading)

    access.after_reading.append(tell)
    keeper = lasting.configuration
    if keeper is not None and keeper.refusal is not None:
        await access.refresh(is_asked=True)


async def _keep_fresh(access: OperatorAccess) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        await access.refresh()


async def _keep_tls_fresh(tls: OperatorTls) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        await asyncio.to_thread(tls.refresh)


async def start_operator_api(
    doors: OperatorDoors, outside: Outside, identity: Identity, stack: AsyncExitStack
) -> None:
    """Open the listener of the operator API, if one is configured; *stack* closes it.

    Raises:
        Broken: The address cannot be used.
    """
    listen = outside.config.listen.operators
    if listen is None:
        return
    tls = OperatorTls(identity.files, doors.access.anchors)
    await asyncio.to_thread(tls.refresh)
    # Anchors that have changed hold at once; the broker's own pair is looked at every few seconds.
    doors.access.after_reading.append(tls.refresh)
    task = asyncio.create_task(_keep_tls_fresh(tls))
    stack.callback(task.cancel)
    limits = outside.config.limits
    app = create_operator_api(
        doors.gate,
        doors.access,
        is_current=tls.is_current,
        rates=ApiRates(limits.rates.operators, limits.rates.operator_refusals),
        clock=outside.clock,
        record=doors.gate.record,
        description=description_text(summaries()),
        on_answer=doors.metrics.answered,
    )
    listener = await start_tcp(
        app,
        host=listen.address.host,
        port=listen.address.port,
        tls=tls.front,
        idle_time=limits.idle_timeout,
        guard=Guard(
            handshake_time=limits.handshake_timeout,
            connections=limits.connections_per_address,
            on_refused=lambda: outside.telemetry.limit_reached(Limit.CONNECTIONS),
        ),
        sockets=outside.lasting.sockets,
    )
    outside.draining.add(listener.stop)
    _log.info("listening for operators", address=str(listen.address))
