"""What is done while the ACME listener has no certificate that it could show.

The broker's own may have to be ordered from a CA over ACME, whose challenges this very broker
answers: everything but that listener works already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from broker.app.beside import tolerant
from broker.app.identity import Identity
from broker.issuance.errors import Unreachable

__all__ = ["open_later", "wait_for_certificate"]

PAUSE_SECONDS: Final = 2.0
"""Pause between looks for the first certificate of our own, in seconds: nobody is served before."""

LONGEST_SECONDS: Final = 30.0
"""How long a turn waits for it where another could be begun again, in seconds: clients wait as
long, and most CAs that are asked over ACME answer within it."""

log = structlog.get_logger("penstock")


async def wait_for_certificate(identity: Identity, stopping: asyncio.Event) -> None:
    """Wait for the first certificate, for as long as clients can be asked to, or until *stopping*.

    Raises:
        Broken: There will be none.
        Unreachable: There is none yet.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_SECONDS):
            while not identity.is_usable and not stopping.is_set():
                with suppress(Unreachable):
                    await identity.refresh()
                if not identity.is_usable:
                    await _pause(stopping)
    if not identity.is_usable:
        raise Unreachable(
            f"no TLS certificate for the ACME listener within {LONGEST_SECONDS:g} s: "
            f"{identity.trouble or 'it is being ordered'}"
        )


async def _pause(stopping: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PAUSE_SECONDS):
            await stopping.wait()


async def open_later(identity: Identity, open_acme: Callable[[], Awaitable[None]]) -> None:
    """Wait for the first certificate of an ACME upstream, then listen.

    Its challenges may have to be answered by this very broker, so that everything else works
    already; a CA that is away is waited for, and probes say so.
    """
    log.warning("not listening for ACME yet", reason="its TLS certificate is being ordered")
    refresh = tolerant("own-certificate", identity.refresh)
    while not identity.is_usable:
        await refresh()
        if not identity.is_usable:
            await asyncio.sleep(PAUSE_SECONDS)
    await open_acme()
    log.info("listening for ACME")
