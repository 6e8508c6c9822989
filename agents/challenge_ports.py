"""The two ports on which challenges are answered: open while there is something to answer.

Each is served by one thread that waits for all its connections at once, so that somebody who opens
many and says nothing holds up nobody.  The port for http-01 knows one path for each token and
answers 404 to all else.  The one for tls-alpn-01 speaks to nobody who does not ask for
``acme-tls/1`` and for a name that is being validated, and hangs up after the handshake.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

__all__ = ["ChallengePorts", "PortFault", "alpn_context", "split_address"]

MAX_REQUEST_BYTES: Final = 8 * 1024
"""Most that is read of an HTTP request, in bytes; those of CAs have under 500."""

MAX_HELLO_BYTES: Final = 64 * 1024
"""Most that is read of a TLS client, in bytes; a handshake has under 4,000 from its side."""

MAX_CONNECTIONS: Final = 256
"""Most connections to one port at once; a further one takes the place of the oldest."""

CONVERSATION_SECONDS: Final = 10.0
"""How long a connection may last, in seconds; a CA far away needs half a second."""

PREFIX: Final = b"/.well-known/acme-challenge/"

ALPN_ALONE: Final = b"\x00\x10\x00\x0d\x00\x0b\x0aacme-tls/1"
"""The extension of a ClientHello that offers ``acme-tls/1`` and nothing else, as RFC 8737 §3 has a
validating client do it: type 16, three lengths, the name."""


class PortFault(Exception):
    """The port cannot be listened at."""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def alpn_context(certificate_pem: str, key_pem: str) -> ssl.SSLContext:
    """Return what a handshake for one name is answered with; its key touches no disk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["acme-tls/1"])
    descriptor = os.memfd_create("alpn")
    try:
        os.write(descriptor, (certificate_pem + key_pem).encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


class ChallengePorts:
    """Both ports and what they answer."""

    def __init__(self, http: str | None, tls_alpn: str | None) -> None:
        self._told: dict[bytes, bytes] = {}
        self._shown: dict[str, ssl.SSLContext] = {}
        front = _front(self._shown)
        self._http = _Port(http, lambda: _HttpTalk(self._told))
        self._tls = _Port(tls_alpn, lambda: _TlsTalk(front))

    def tell(self, token: str, authorization: str) -> None:
        """Answer *token* with *authorization* from now on; raises PortFault."""
        self._http.open()
        self._told[token.encode("ascii")] = authorization.encode("ascii")

    def forget(self, token: str) -> None:
        """Answer *token* no longer."""
        self._told.pop(token.encode("ascii"), None)
        if not self._told:
            self._http.close()

    def show(self, identifier: str, context: ssl.SSLContext) -> None:
        """Answer handshakes for *identifier* with *context* from now on; raises PortFault."""
        self._tls.open()
        self._shown[_sni_of(identifier)] = context

    def hide(self, identifier: str) -> None:
        """Answer handshakes for *identifier* no longer."""
        self._shown.pop(_sni_of(identifier), None)
        if not self._shown:
            self._tls.close()

    def close(self) -> None:
        """Close both ports."""
        self._told.clear()
        self._shown.clear()
        self._http.close()
        self._tls.close()


def _sni_of(identifier: str) -> str:
    """Return the name that a validating client sends: of an address, that of its reverse zone
    (RFC 8738 §6)."""
    try:
        return ipaddress.ip_address(identifier).reverse_pointer
    except ValueError:
        return identifier.lower()


def _front(shown: Mapping[str, ssl.SSLContext]) -> ssl.SSLContext:
    """Return the context that a handshake begins with: it has no certificate of its own."""
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2
    front.set_alpn_protocols(["acme-tls/1"])

    def choose(
        talk: ssl.SSLObject | ssl.SSLSocket, name: str | None, _front: ssl.SSLContext
    ) -> int | None:
        found = shown.get((name or "").lower())
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        talk.context = found
        return None

    front.sni_callback = choose
    return front


class _Talk(Protocol):
    """One conversation: bytes in, bytes out, and whether it is over once they are sent."""

    is_over: bool

    def hear(self, octets: bytes) -> bytes:
        """Take in *octets* and return what is to be sent."""


class _HttpTalk:
    """One request, and an answer after which the connection is closed."""

    def __init__(self, told: Mapping[bytes, bytes]) -> None:
        self._told = told
        self._heard = bytearray()
        self.is_over = False

    def hear(self, octets: bytes) -> bytes:
        """Take in *octets* and return what is to be sent."""
        self._heard += octets
        if len(self._heard) > MAX_REQUEST_BYTES:
            self.is_over = True
            return _http_answer(b"431 Request Header Fields Too Large", b"")
        if b"\r\n\r\n" not in self._heard:
            return b""
        self.is_over = True
        line = bytes(self._heard).split(b"\r\n", 1)[0].split(b" ")
        if len(line) != 3 or line[0] != b"GET" or not line[2].startswith(b"HTTP/1."):
            return _http_answer(b"400 Bad Request", b"")
        found = None
        if line[1].startswith(PREFIX):
            found = self._told.get(line[1][len(PREFIX) :])
        if found is None:
            return _http_answer(b"404 Not Found", b"")
        return _http_answer(b"200 OK", found)


def _http_answer(status: bytes, content: bytes) -> bytes:
    """Return an answer; RFC 8555 §8.3 wants the key authorization as octets."""
    head = (
        b"HTTP/1.1 %b\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n"
    )
    return head % (status, len(content)) + content


class _TlsTalk:
    """One handshake, and nothing after it."""

    def __init__(self, front: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._talk = front.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._heard = bytearray()
        self._is_validation = False
        self._count_bytes = 0
        self.is_over = False

    def hear(self, octets: bytes) -> bytes:
        """Take in *octets* and return what is to be sent."""
        self._count_bytes += len(octets)
        if self._count_bytes > MAX_HELLO_BYTES:
            self.is_over = True
            return b""
        self._heard += octets
        if not self._is_validation and not self._has_asked():
            return b""
        self._incoming.write(bytes(self._heard))
        self._heard.clear()
        try:
            self._talk.do_handshake()
            self.is_over = True
            with contextlib.suppress(ssl.SSLError):
                self._talk.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.is_over = True
        return self._outgoing.read()

    def _has_asked(self) -> bool:
        """Say whether the first record is there and asks for ``acme-tls/1`` alone."""
        if len(self._heard) < 5:
            return False
        if self._heard[0] != 0x16:
            self.is_over = True
            return False
        length = 5 + int.from_bytes(self._heard[3:5], "big")
        if len(self._heard) < length:
            return False
        self._is_validation = ALPN_ALONE in self._heard[:length]
        self.is_over = not self._is_validation
        return self._is_validation


class _Connection:
    """A connected client, what it still has to be sent, and until when it may stay."""

    def __init__(self, connected: socket.socket, talk: _Talk) -> None:
        self.socket = connected
        self.talk = talk
        self.unsent = b""
        self.until = time.monotonic() + CONVERSATION_SECONDS


class _Port:
    """One address, listened at by a thread of its own from ``open`` to ``close``."""

    def __init__(self, address: str | None, make_talk: Callable[[], _Talk]) -> None:
        self._address = address
        self._make_talk = make_talk
        self._thread: threading.Thread | None = None
        self._waker = -1

    def open(self) -> None:
        """Listen, unless it does already."""
        if self._thread is not None:
            return
        if self._address is None:
            raise PortFault("no address is configured for it")
        host, port = split_address(self._address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        try:
            listening = socket.create_server(
                (host, port), family=family, backlog=MAX_CONNECTIONS, dualstack_ipv6=both
            )
        except OSError as error:
            reason = (error.strerror or "it failed").lower()
            raise PortFault(f"cannot listen at {self._address}: {reason}") from None
        listening.settimeout(0)
        woken, self._waker = os.pipe2(os.O_CLOEXEC)
        serving = _Serving(listening, woken, self._make_talk)
        self._thread = threading.Thread(target=serving.run, name="challenges", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no longer and leave all connections."""
        thread, self._thread = self._thread, None
        if thread is not None:
            os.close(self._waker)
            thread.join()


class _Serving:
    """The thread's work: all connections of one port."""

    def __init__(
        self, listening: socket.socket, woken: int, make_talk: Callable[[], _Talk]
    ) -> None:
        self._listening = listening
        self._woken = woken
        self._make_talk = make_talk
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the other end of the pipe is closed."""
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        try:
            while self._turn():
                self._leave_late_ones()
        finally:
            for one in list(self._connections.values()):
                self._leave(one)
            self._selector.close()
            self._listening.close()
            os.close(self._woken)

    def _turn(self) -> bool:
        seconds = 1.0 if self._connections else None
        for key, _ in self._selector.select(seconds):
            if key.fd == self._woken:
                return False
            if key.fd == self._listening.fileno():
                self._accept()
            elif key.fd in self._connections:
                self._attend(self._connections[key.fd])
        return True

    def _accept(self) -> None:
        try:
            connected, _ = self._listening.accept()
        except OSError:
            # The client has left, or the process has no descriptor to spare: make room for it.
            if self._connections:
                self._leave(next(iter(self._connections.values())))
            return
        connected.settimeout(0)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._leave(next(iter(self._connections.values())))
        self._connections[connected.fileno()] = _Connection(connected, self._make_talk())
        self._selector.register(connected, selectors.EVENT_READ)

    def _attend(self, one: _Connection) -> None:
        try:
            if not one.unsent:
                octets = one.socket.recv(16 * 1024)
                if not octets:
                    self._leave(one)
                    return
                one.unsent = one.talk.hear(octets)
            if one.unsent:
                one.unsent = one.unsent[one.socket.send(one.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(one)
            return
        if one.talk.is_over and not one.unsent:
            self._leave(one)
            return
        wanted = selectors.EVENT_WRITE if one.unsent else selectors.EVENT_READ
        self._selector.modify(one.socket, wanted)

    def _leave_late_ones(self) -> None:
        now = time.monotonic()
        for one in [one for one in self._connections.values() if one.until <= now]:
            self._leave(one)

    def _leave(self, one: _Connection) -> None:
        self._connections.pop(one.socket.fileno(), None)
        self._selector.unregister(one.socket)
        with contextlib.suppress(OSError):
            one.socket.shutdown(socket.SHUT_WR)
        one.socket.close()
