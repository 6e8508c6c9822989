"""What systemd is told."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.app.service_manager import tell_service_manager


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket that systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_state_is_a_datagram(systemd: socket.socket, tmp_path: Path) -> None:
    """One for each state."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    for state in ("READY=1", "STOPPING=1"):
        tell_service_manager(state, environment)
    assert [systemd.recv(64) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_abstract_socket_is_found() -> None:
    """Its name begins with an @ in the environment, and with a zero on the wire."""
    name = f"penstock-test-notify-{os.getpid()}"  # one for the whole machine
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(30)
        tell_service_manager("READY=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert listening.recv(64) == b"READY=1"


@pytest.mark.parametrize("path", ["", "relative", "/not/there"])
def test_without_systemd_nothing_is_said_and_nothing_fails(path: str) -> None:
    """The broker runs in containers too."""
    tell_service_manager("READY=1", {"NOTIFY_SOCKET": path})
