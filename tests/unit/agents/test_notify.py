"""What systemd is told."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.notify import Notifier
from tests.fakes.node_clock import NodeClock


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket that systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_each_state_is_a_datagram(systemd: socket.socket, tmp_path: Path) -> None:
    """READY, RELOADING with its time, WATCHDOG, STATUS in one line, STOPPING."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    notifier = Notifier(NodeClock(), environment)
    notifier.ready()
    notifier.reloading()
    notifier.alive()
    notifier.status("two\nlines")
    notifier.stopping()
    assert [systemd.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"RELOADING=1\nMONOTONIC_USEC=0",
        b"WATCHDOG=1",
        b"STATUS=two lines",
        b"STOPPING=1",
    ]


@pytest.mark.parametrize("path", ["", "relative", "/not/there"])
def test_without_systemd_nothing_is_said_and_nothing_fails(path: str) -> None:
    """The agent runs in containers too."""
    Notifier(NodeClock(), {"NOTIFY_SOCKET": path}).ready()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
    ids=["asked", "of-us", "of-another", "no-number", "not-asked"],
)
def test_the_watchdog_is_fed_at_half_its_time(
    environment: dict[str, str], seconds: float | None
) -> None:
    """Only where it is meant for this process."""
    assert Notifier(NodeClock(), environment).watchdog_seconds == seconds
