"""SIGHUP."""

import asyncio
import os
import signal

from broker.app.hangup import listening_for_hangup


async def test_hangup_reads_again() -> None:
    """Policies, and whatever else has asked to be told."""
    done, told = asyncio.Event(), []

    async def reload() -> None:
        done.set()

    with listening_for_hangup(reload, [lambda: told.append("hook")]):
        os.kill(os.getpid(), signal.SIGHUP)
        await done.wait()
    assert told == ["hook"]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
