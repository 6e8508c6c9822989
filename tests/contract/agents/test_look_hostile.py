"""Servers that trickle, flood, hang or lie cost a look no more than its time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agents.config import LookSection, StartTls
from agents.look import NotSeen, look
from tests.contract.agents.pairs import NAME, make_pair, put
from tests.peers.nginx import Nginx
from tests.peers.process import free_port

pytestmark = pytest.mark.peers

FINGERPRINT = "ab" * 32
Behave = Callable[[socket.socket], None]


def say_nothing(client: socket.socket) -> None:
    """Wait until the client leaves."""
    while client.recv(4096):
        pass


def close_at_once(client: socket.socket) -> None:
    """Leave without a word."""


def speak_plainly(client: socket.socket) -> None:
    """Answer with something that is no TLS."""
    client.recv(4096)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def trickle(client: socket.socket) -> None:
    """Send a byte of a record that never ends, again and again."""
    client.sendall(b"\x16\x03\x03\x40\x00")
    stop = threading.Event()
    while not stop.wait(0.02):
        client.sendall(b"\x00")


def flood(client: socket.socket) -> None:
    """Send records of a handshake without end."""
    while True:
        client.sendall(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 1000)


def greet_for_ever(client: socket.socket) -> None:
    """Send a greeting that never ends."""
    while True:
        client.sendall(b"220-mail.example\r\n" * 1000)


def greet_without_end_of_line(client: socket.socket) -> None:
    """Send one line that never ends."""
    while True:
        client.sendall(b"x" * 10_000)


@contextlib.contextmanager
def serving(behave: Behave) -> Iterator[int]:
    """Run a server that treats each client by *behave*; lend its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    clients.append(client)
                    with client, contextlib.suppress(OSError):
                        behave(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            thread.join()


SHORT, LONG = timedelta(seconds=0.8), timedelta(seconds=20)
"""For who says nothing, and for who answers, also on a busy machine."""


def section(port: int, starttls: StartTls | None = None, *, timeout: timedelta) -> LookSection:
    """Return where to look, and for how long."""
    return LookSection(
        host="127.0.0.1",
        port=port,
        server_name=NAME,
        starttls=starttls,
        attempts=2,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    ("behave", "starttls", "reason"),
    [
        (say_nothing, None, "no answer in time"),
        (say_nothing, StartTls.SMTP, "no answer in time"),
        (say_nothing, StartTls.LDAP, "no answer in time"),
        (close_at_once, None, "within the handshake|cannot be reached|reset|broken pipe"),
        (close_at_once, StartTls.IMAP, "ended before it was whole|reset"),
        (speak_plainly, None, "no TLS handshake"),
        (trickle, None, "no answer in time"),
        (flood, None, "no TLS handshake|sent more than|reset|broken pipe"),
        (greet_for_ever, StartTls.SMTP, "more than 64 lines"),
        (greet_without_end_of_line, StartTls.SMTP, "a line is longer than"),
        (greet_without_end_of_line, StartTls.IMAP, "a line is longer than"),
        (greet_without_end_of_line, StartTls.LDAP, "sent no message"),
    ],
)
def test_hostile_server_is_not_seen(behave: Behave, starttls: StartTls | None, reason: str) -> None:
    """A server that does anything but serve the certificate is not seen, and that is told."""
    # Who answers is waited for, also on a busy machine; who trickles or says nothing is not.
    timeout = SHORT if "in time" in reason else LONG
    with serving(behave) as port, pytest.raises(NotSeen, match=reason) as caught:
        look(section(port, starttls, timeout=timeout), FINGERPRINT)
    assert caught.value.served is None


def test_server_that_is_not_there_is_not_seen() -> None:
    """A port that nobody listens at is told."""
    with pytest.raises(NotSeen, match="connection refused"):
        look(section(free_port(), timeout=LONG), FINGERPRINT)


def test_honest_server_is_seen(tmp_path: Path) -> None:
    """The same look sees a server that does what it should."""
    with_pair = put(make_pair(), tmp_path / "pair")
    with Nginx(tmp_path / "nginx", tmp_path / "pair") as nginx:
        assert look(section(nginx.port, timeout=LONG), with_pair).fingerprint == with_pair


def test_server_with_two_kinds_of_keys_is_asked_for_each(tmp_path: Path) -> None:
    """A server that chooses by what the client can shows both certificates to a look."""
    first = put(make_pair(), tmp_path / "pair")
    rsa = make_pair(is_rsa=True)
    put(rsa, tmp_path / "rsa")
    nginx = Nginx(tmp_path / "nginx", tmp_path / "pair")
    nginx.more_certificates = (tmp_path / "rsa",)
    with nginx:
        where = section(nginx.port, timeout=LONG)
        assert look(where, first, key_kind="ec-p256").fingerprint == first
        found = look(where, rsa.fingerprint, key_kind="rsa-2048")
        assert found.fingerprint == rsa.fingerprint
        with pytest.raises(NotSeen):
            look(where, FINGERPRINT, key_kind="rsa-2048")
