"""SIGHUP."""

import asyncio
import os
import signal

from broker.app.hangup import Hangups, listening_for_hangup


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


async def test_hangup_between_two_turns_is_kept() -> None:
    """Whoever serves next has it at once; the twin, one that comes later, as well."""
    hangups, told = Hangups(), list[str]()
    done = asyncio.Event()

    async def reload() -> None:
        told.append("reload")
        done.set()

    hangups.call_hooks()
    await hangups.reload()
    assert told == []
    with hangups.led_to(reload, [lambda: told.append("hook")]):
        await done.wait()
        assert told == ["hook", "reload"]
        hangups.call_hooks()
        await hangups.reload()
    assert told == ["hook", "reload"] * 2
    hangups.call_hooks()
    assert len(told) == 4


async def test_hangup_that_a_turn_is_over_for_is_kept() -> None:
    """The next one reads again; the turn that kept it does not."""
    hangups, told, done = Hangups(), list[str](), asyncio.Event()

    async def overtaken() -> None:
        told.append("first")
        hangups.keep()

    async def read() -> None:
        told.append("second")
        done.set()

    with hangups.led_to(overtaken, []):
        await hangups.reload()
    with hangups.led_to(read, []):
        await done.wait()
    assert told == ["first", "second"]
