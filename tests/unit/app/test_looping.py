"""The loop to serve on: uvloop where it is installed, asyncio's own elsewhere."""

import asyncio
import sys

import pytest
import uvloop

from broker.app.looping import run_to_end


def loop_of_a_run() -> type[asyncio.AbstractEventLoop]:
    """Return the class of the loop that a run takes place on."""
    seen = []

    async def look() -> None:
        seen.append(type(asyncio.get_running_loop()))

    run_to_end(look())
    (found,) = seen
    return found


def test_uvloop_is_taken_where_it_is_installed() -> None:
    """It holds ten thousand idle connections in a tenth of the memory."""
    assert loop_of_a_run() is uvloop.Loop


def test_broker_runs_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but speed and memory depends on it."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert issubclass(loop_of_a_run(), asyncio.SelectorEventLoop)


def test_failure_comes_out() -> None:
    """A broker that cannot start says so to whoever started it."""

    async def fail() -> None:
        raise RuntimeError("port 8443 is taken")

    with pytest.raises(RuntimeError, match="port 8443 is taken"):
        run_to_end(fail())
