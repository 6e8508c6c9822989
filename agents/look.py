"""Looks which certificate a server serves, and whether it is the new one.

Nothing is trusted and nothing is said beyond the handshake: the one question is whether the leaf is
the certificate that was put in place, by the SHA-256 of its DER.  Servers reload late, so the
question is put again until the configured attempts or the configured time are used up.  Each
attempt has a deadline of its own and a limit of bytes, so a server that trickles or never answers
costs no more than that.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from agents.config import LookSection
from agents.starttls import Line, StartTlsFault, start_tls

__all__ = ["Connection", "NotSeen", "Seen", "Unanswered", "look"]

MAX_HANDSHAKE_BYTES: Final = 512 * 1024
"""Most that is read from a server in one look, in bytes: chains of RSA-4096 certificates with
staples measure under 30 KiB, post-quantum ones under 100."""

ATTEMPT_SECONDS: Final = 5.0
"""Longest that one attempt may take, in seconds; a handshake on one host takes milliseconds."""

CHUNK_BYTES: Final = 16 * 1024
"""How much is read at once, in bytes: a record of TLS."""

FIRST_PAUSE_SECONDS: Final = 0.2
"""Pause before the second attempt; each further one is twice as long.  A server with nothing to do
takes a tenth of a second to reload."""

LONGEST_PAUSE_SECONDS: Final = 3.0
"""Longest pause between two attempts."""

CIPHERS: Final = {"ec": "aECDSA", "rsa": "aRSA"}
"""What OpenSSL calls the suites of TLS 1.2 that are signed by a kind of key."""


class NotSeen(Exception):
    """The server does not serve the new certificate; the text says what was seen instead.

    ``served`` is the fingerprint of what it serves, if it served anything.
    """

    def __init__(self, reason: str, served: str | None = None) -> None:
        super().__init__(reason)
        self.served = served


Connect: TypeAlias = "Callable[[LookSection, float], Connection]"
"""Opens a connection to a server, which ends by itself after so many seconds."""


class Unanswered(Exception):
    """One attempt did not come as far as a certificate; raised within this module alone."""


class Connection(Line, Protocol):
    """A connection that can be left."""

    def close(self) -> None:
        """Leave it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The server was seen to serve the new certificate."""

    fingerprint: str
    attempts: int
    """How often it had to be asked."""

    protocol: str
    """Version of TLS that was spoken."""


def look(
    section: LookSection,
    fingerprint: str,
    *,
    key_kind: str | None = None,
    connect: Connect | None = None,
    pause: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Seen:
    """Return once the server of *section* serves the certificate with *fingerprint*.

    *fingerprint* is the SHA-256 of its DER in lower case hex.  A server may have certificates of
    two kinds and choose by what the client can; with *key_kind* it is asked once more as a client
    that knows that kind alone.

    Raises:
        NotSeen: It does not, after all attempts and at the end of the time for them.
    """
    problem = NotSeen(f"{section.connect}: no answer in time")
    asked = _Asked(section, connect or _connect)
    deadline = monotonic() + section.timeout.total_seconds()
    seconds = FIRST_PAUSE_SECONDS
    for attempt in range(1, section.attempts + 1):
        if attempt > 1:
            pause(max(0.0, min(seconds, deadline - monotonic())))
            seconds = min(seconds * 2, LONGEST_PAUSE_SECONDS)
        left = deadline - monotonic()
        if left <= 0:
            break
        try:
            served, protocol = asked.show(fingerprint, key_kind, min(left, ATTEMPT_SECONDS))
        except Unanswered as error:
            problem = NotSeen(f"{section.connect}: {error}", problem.served)
            continue
        if served == fingerprint:
            return Seen(fingerprint, attempt, protocol)
        reason = f"serves certificate {served[:16]} instead of {fingerprint[:16]}"
        problem = NotSeen(f"{section.connect} {reason}", served)
    raise problem


class _Asked:
    """The server, asked once or twice in each attempt."""

    def __init__(self, section: LookSection, connect: Connect) -> None:
        self._section = section
        self._connect = connect

    def show(self, wanted: str, kind: str | None, seconds: float) -> tuple[str, str]:
        """Return the fingerprint of what is served, and the version of TLS.

        Another one than *wanted* may be one of another kind, so it is asked for *kind* alone.
        """
        first = self._ask(None, seconds)
        ciphers = CIPHERS.get((kind or "").partition("-")[0])
        if first[0] == wanted or ciphers is None:
            return first
        try:
            return self._ask(ciphers, seconds)
        except Unanswered:
            return first

    def _ask(self, ciphers: str | None, seconds: float) -> tuple[str, str]:
        line = self._connect(self._section, seconds)
        try:
            if self._section.starttls is not None:
                start_tls(self._section.starttls, line)
            served, protocol = _shake_hands(line, _context(ciphers), _server_name(self._section))
        except StartTlsFault as error:
            raise Unanswered(str(error)) from None
        finally:
            line.close()
        return hashlib.sha256(served).hexdigest(), protocol


class _Line:
    """A connection with one deadline for all of it, and a limit of what is read."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self._left_bytes = MAX_HANDSHAKE_BYTES

    def send(self, octets: bytes) -> None:
        """Send all of *octets*."""
        try:
            self._socket.settimeout(self._left_seconds())
            self._socket.sendall(octets)
        except OSError as error:
            raise Unanswered(_reason(error)) from None

    def receive(self, most_bytes: int) -> bytes:
        """Return what is there; nothing at the end."""
        try:
            self._socket.settimeout(self._left_seconds())
            found = self._socket.recv(most_bytes)
        except OSError as error:
            raise Unanswered(_reason(error)) from None
        self._left_bytes -= len(found)
        if self._left_bytes < 0:
            raise Unanswered(f"the server sent more than {MAX_HANDSHAKE_BYTES} bytes")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _left_seconds(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unanswered("no answer in time")
        return left


def _connect(section: LookSection, seconds: float) -> _Line:
    deadline = time.monotonic() + seconds
    try:
        connected = socket.create_connection((section.host, section.port), timeout=seconds)
    except OSError as error:
        raise Unanswered(_reason(error)) from None
    return _Line(connected, deadline)


def _shake_hands(
    line: Connection, context: ssl.SSLContext, server_name: str | None
) -> tuple[bytes, str]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    while True:
        try:
            talk.do_handshake()
            break
        except ssl.SSLWantReadError:
            line.send(outgoing.read())
            found = line.receive(CHUNK_BYTES)
            if not found:
                raise Unanswered("the server closed the connection within the handshake") from None
            incoming.write(found)
        except ssl.SSLError as error:
            raise Unanswered(f"no TLS handshake: {_reason(error)}") from None
    served = talk.getpeercert(binary_form=True)
    if served is None:
        raise Unanswered("the server shows no certificate")
    _take_leave(line, talk, outgoing)
    return served, talk.version() or "TLS"


def _take_leave(line: Connection, talk: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
    """End the handshake and TLS in good order, or servers log a fault for each look."""
    with contextlib.suppress(ssl.SSLError, Unanswered):
        try:
            talk.unwrap()
        except ssl.SSLWantReadError:
            line.send(outgoing.read())


def _context(ciphers: str | None) -> ssl.SSLContext:
    """Return a context that trusts nothing and refuses nothing: only the leaf is compared."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    return context


def _server_name(section: LookSection) -> str | None:
    """Return what is sent as SNI: no address (RFC 6066 §3), and no wildcard."""
    name = section.server_name
    if not name or "*" in name:
        return None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return None


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it failed").replace("_", " ").lower()
    return (error.strerror or "cannot be reached").lower()
