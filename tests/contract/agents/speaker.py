"""A server of one TLS connection after another that says what a test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.peers import authority

__all__ = ["Connected", "Speaker", "Speech", "answering", "read_request"]

Connected = ssl.SSLSocket
Speech = Callable[[Connected], None]

SECONDS = 20.0
"""Longest wait for anything that comes at once, in seconds."""


def read_request(connected: socket.socket) -> bytes:
    """Return a request whose body, if it has one, came with its head."""
    octets = b""
    while b"\r\n\r\n" not in octets:
        part = connected.recv(65_536)
        if not part:
            return octets
        octets += part
    return octets


def answering(*answers: bytes, requests: list[bytes] | None = None) -> list[Speech]:
    """Return speeches that read a request and give each answer, then close."""

    def speak(answer: bytes) -> Speech:
        def say(connected: Connected) -> None:
            request = read_request(connected)
            if requests is not None:
                requests.append(request)
            connected.sendall(answer)

        return say

    return [speak(answer) for answer in answers]


class Speaker:
    """Listens on loopback; each connection has the next speech."""

    def __init__(
        self, tmp: Path, speeches: list[Speech], *, server: authority.Signer | None = None
    ) -> None:
        self.root = authority.make_root("speaker")
        signer = server or authority.make_server(self.root, ["127.0.0.1"])
        certificate, key, self.anchors = authority.write_server_files(tmp, signer, self.root)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.load_verify_locations(self.anchors)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._speeches = speeches
        self.port = 0
        self.url = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Speaker]:
        """Serve until the end of the block."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(SECONDS)
            self.port = int(listener.getsockname()[1])
            self.url = f"https://127.0.0.1:{self.port}"
            thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
            thread.start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)

    def _run(self, listener: socket.socket) -> None:
        for speech in self._speeches:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(SECONDS)
            with (
                plain,
                contextlib.suppress(OSError),
                self._context.wrap_socket(plain, server_side=True) as connected,
            ):
                speech(connected)
