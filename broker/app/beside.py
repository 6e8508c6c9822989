"""What a broker begins beside its listeners when it starts, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.signatures import signing_for

if TYPE_CHECKING:
    from broker.app.assembly import Broker

__all__ = ["begin_beside", "tolerant"]

log = structlog.get_logger("penstock")


def begin_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin everything that has to be looked at or ended after a start; *stack* ends it."""
    _reconcile_beside(broker, stack)
    _settle_beside(broker, stack)
    _seal_beside(broker, stack)
    _look_at_accounts_beside(broker, stack)
    _look_at_keys_beside(broker, stack)
    _look_at_policies_beside(broker, stack)


def _reconcile_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to compare a restored store with its CAs, while it can be read already."""
    reason = broker.recovery.standstill.reason()
    if reason is None:
        return
    log.warning("read-only", reason=reason)
    task = asyncio.create_task(tolerant("reconcile", broker.reconcile)())
    stack.callback(task.cancel)


def _settle_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to end what a crash left of a change of account keys.

    Which key a CA knows is asked where that is in doubt, and versions that still sign are retired.
    """

    async def settle() -> None:
        await broker.settle_keys()
        await broker.rotate_keys()

    task = asyncio.create_task(tolerant("account-keys", settle)())
    stack.callback(task.cancel)


def _look_at_accounts_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to look whether an account of ours is lost, before anybody meets it."""
    look = tolerant("account-health", broker.outside.account_health.look_at_all)
    task = asyncio.create_task(look())
    stack.callback(task.cancel)


def _look_at_keys_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to look whether the keys in use are as they have to be; reads do not wait for it."""
    task = asyncio.create_task(tolerant("keys-in-use", broker.outside.keys.watch.look)())
    stack.callback(task.cancel)


def _look_at_policies_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to look whether policy files change; a look waits for the one before, however long."""
    outside = broker.outside
    watch, every = outside.policy_watch, outside.config.policy.look_every
    task = asyncio.create_task(watch.run(tolerant("policies", watch.turn), every))
    stack.callback(task.cancel)


def _seal_beside(broker: Broker, stack: AsyncExitStack) -> None:
    """Begin to seal what an earlier version kept in the clear."""
    run = broker.unless_held(broker.sealing.run)
    task = asyncio.create_task(tolerant("secrets-sealed", run)())
    stack.callback(task.cancel)


def tolerant(
    name: str, run: Callable[[], Awaitable[None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return *run* with its expected failures told to the log: its next turn comes anyway."""

    async def attempt() -> None:
        try:
            with signing_for(name, ""):
                await run()
        except (Unreachable, Broken) as error:
            log.error("scheduled job failed", job=name, reason=error.reason)

    return attempt
