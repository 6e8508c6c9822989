"""Unix sockets that outlive their listeners; for TCP see tests/contract/web/test_tcp.py."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.web.sockets import ListeningSockets


@pytest.fixture
def sockets() -> Iterator[ListeningSockets]:
    """Nothing yet, and nothing in the end."""
    made = ListeningSockets()
    yield made
    made.close()


def is_answered(path: Path) -> bool:
    """Say whether a connection gets as far as the queue."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_who_connects_between_two_turns_waits(sockets: ListeningSockets, tmp_path: Path) -> None:
    """The next to listen accepts what came before it."""
    path = tmp_path / "a.sock"
    sockets.unix(path, 0o600).close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        sockets.begin_turn({path})
        with sockets.unix(path, 0o600) as listening:
            listening.accept()[0].close()


def test_file_gets_the_mode_of_the_turn(sockets: ListeningSockets, tmp_path: Path) -> None:
    """It may be shared by one configuration and not by the next."""
    path = tmp_path / "a.sock"
    for mode in (0o666, 0o600, 0o666):
        sockets.unix(path, mode).close()
        assert stat.S_IMODE(path.stat().st_mode) == mode
        sockets.begin_turn({path})


def test_what_is_not_wanted_any_more_is_closed(sockets: ListeningSockets, tmp_path: Path) -> None:
    """And its file is gone; what is wanted stays."""
    kept, gone = tmp_path / "kept.sock", tmp_path / "gone.sock"
    for path in (kept, gone):
        sockets.unix(path, 0o600).close()
    sockets.begin_turn({kept})
    assert is_answered(kept)
    assert not gone.exists()
    sockets.close()
    assert not kept.exists()


def test_file_that_somebody_took_away_is_made_again(
    sockets: ListeningSockets, tmp_path: Path
) -> None:
    """Else nobody would find the socket any more."""
    path = tmp_path / "a.sock"
    sockets.unix(path, 0o600).close()
    path.unlink()
    sockets.begin_turn({path})
    sockets.unix(path, 0o600).close()
    assert is_answered(path)


def test_file_that_is_no_socket_is_not_taken_away(
    sockets: ListeningSockets, tmp_path: Path
) -> None:
    """What lies where the socket was is somebody's; neither the next turn nor the end costs it."""
    path = tmp_path / "a.sock"
    sockets.unix(path, 0o600).close()
    path.unlink()
    path.write_text("precious")
    sockets.begin_turn({path})
    with pytest.raises(Broken, match="no socket"):
        sockets.unix(path, 0o600)
    sockets.close()
    assert path.read_text() == "precious"


def test_socket_of_another_process_is_left_alone(sockets: ListeningSockets, tmp_path: Path) -> None:
    """Only what is kept here is one's own."""
    path = tmp_path / "a.sock"
    other = ListeningSockets()
    other.unix(path, 0o600).close()
    with pytest.raises(Broken, match="another process answers there"):
        sockets.unix(path, 0o600)
    other.close()
    sockets.unix(path, 0o600).close()


def test_no_child_inherits_them(sockets: ListeningSockets, tmp_path: Path) -> None:
    """A child that outlives the broker would hold its clients."""
    with sockets.unix(tmp_path / "a.sock", 0o600) as listening:
        assert not os.get_inheritable(listening.fileno())
