"""Unix sockets: private, replaced when left over, refused when in use."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from aiohttp import web

from broker.issuance.errors import Broken
from broker.web.listeners import Draining, start_unix


async def test_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600 from the moment it is there."""
    path = tmp_path / "a.sock"
    listener = await start_unix(web.Application(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177
    await listener.stop()


async def test_leftover_socket_is_replaced(tmp_path: Path) -> None:
    """A broker that was killed does not keep its successor from starting."""
    path = tmp_path / "a.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    listener = await start_unix(web.Application(), path)
    await listener.stop()


async def test_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """Two brokers never share one operator socket."""
    path = tmp_path / "a.sock"
    first = await start_unix(web.Application(), path)
    with pytest.raises(Broken, match="another process answers there"):
        await start_unix(web.Application(), path)
    await first.stop()


async def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A misconfigured path does not cost a file."""
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(Broken, match="no socket"):
        await start_unix(web.Application(), path)
    assert path.read_text() == "precious"


async def test_missing_directory_is_a_reason_to_stop(tmp_path: Path) -> None:
    """The sentence names the path."""
    with pytest.raises(Broken, match="gone"):
        await start_unix(web.Application(), tmp_path / "gone" / "a.sock")


@pytest.mark.parametrize(("is_shared", "mode"), [(False, 0o600), (True, 0o666)])
async def test_socket_is_its_owners_unless_it_is_shared(
    tmp_path: Path, is_shared: bool, mode: int
) -> None:
    """Who may reach a shared one is for its directory to say, and who they are for the kernel."""
    path = tmp_path / "operator.sock"
    listener = await start_unix(web.Application(), path, is_shared=is_shared)
    assert stat.S_IMODE(path.lstat().st_mode) == mode
    await listener.stop()


async def test_listeners_stop_side_by_side() -> None:
    """One that is slow holds up no other, and what fails is told once all have stopped."""
    together, stopped = asyncio.Barrier(2), list[str]()
    draining = Draining()

    async def stop() -> None:
        await together.wait()
        stopped.append("one")

    async def fail() -> None:
        raise OSError("gone")

    for each in (stop, fail, stop):
        draining.add(each)
    with pytest.raises(OSError, match="gone"):
        await draining.end()
    assert stopped == ["one", "one"]
    await draining.end()
