"""Syslog over TLS (RFC 5425): the collector proves who it is, and so do we.

The protocol has no acknowledgements, and what a socket took is lost with the collector.  So the
connection is ended properly before anything counts as sent: the collector answers our close_notify
only when it has read everything before it (RFC 8446 §6.1).  Until then it is sent again.

rsyslog over GnuTLS ends the connection without a close_notify of its own.  That counts too, unless
configured otherwise: by then TCP has acknowledged all of ours.  Who can forge that on the way
leaves a gap in the numbers at the collector.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import ssl
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.audit.feeding import Entry
from broker.audit.syslog import SyslogForm, frame, message_of
from broker.issuance.errors import Unreachable

__all__ = ["SyslogTls", "TlsSettings"]

CONNECT_SECONDS: Final = 10.0
"""Longest that connecting and the handshake may take, in seconds."""

SEND_SECONDS: Final = 30.0
"""Longest that a collector may take to read a page, in seconds."""

END_SECONDS: Final = 10.0
"""Longest that it may take to end the connection from its side, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Where the collector is, how it is known, and who we are."""

    host: str
    port: int
    server_name: str
    """The name that its certificate has to bear."""
    ca_bundle: Path
    """The only roots that are trusted."""
    certificate: Path | None = None
    """Our own chain, read again for every connection."""
    key: Path | None = None
    is_close_strict: bool = False
    """Whether the collector has to end the connection with a close_notify of its own."""


class SyslogTls:
    """Implements `feeding.Sink` over one connection at a time."""

    def __init__(self, settings: TlsSettings, form: SyslogForm) -> None:
        self._settings = settings
        self._form = form
        self._socket: ssl.SSLSocket | None = None

    def send(self, entries: Sequence[Entry]) -> None:
        """Send the entries; raises Unreachable."""
        octets = b"".join(frame(message_of(entry, self._form)) for entry in entries)
        try:
            connected = self._connected()
            connected.settimeout(SEND_SECONDS)
            connected.sendall(octets)
        except (OSError, ValueError) as error:
            self.abort()
            raise self._away(error) from error

    def confirm(self) -> None:
        """End the connection, and see the collector end it as well; raises Unreachable."""
        connected, self._socket = self._socket, None
        if connected is None:
            raise Unreachable(f"syslog collector {self._place} was let go of")
        try:
            with connected:
                _verify_open(connected)
                connected.settimeout(END_SECONDS)
                self._end(connected)
        except (OSError, ValueError) as error:
            raise self._away(error) from error

    def abort(self) -> None:
        """Break the connection."""
        connected, self._socket = self._socket, None
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()

    def _end(self, connected: ssl.SSLSocket) -> None:
        """Say that this is the end, and hear the same; raises OSError where that is not so."""
        try:
            plain = connected.unwrap()
        except ssl.SSLEOFError:
            if self._settings.is_close_strict:
                raise
            _verify_taken(connected)
            return
        with plain:
            # One that hung up on us says close_notify as well, and resets what it did not read.
            if plain.recv(1):
                raise ConnectionResetError("spoken to by the collector, which has nothing to say")
            _verify_taken(plain)

    @property
    def _place(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is None:
            settings = self._settings
            context = _context(settings)
            plain = socket.create_connection((settings.host, settings.port), CONNECT_SECONDS)
            # Known before the handshake, so that whoever stops us can end that as well.
            self._socket = context.wrap_socket(
                plain, server_hostname=settings.server_name, do_handshake_on_connect=False
            )
            self._socket.do_handshake()
        return self._socket

    def _away(self, error: OSError | ValueError) -> Unreachable:
        if isinstance(error, ssl.SSLCertVerificationError):
            told = f"its certificate is not trusted: {error.verify_message}"
        elif isinstance(error, ssl.SSLError):
            told = f"TLS failed: {error.reason or error}"
        elif isinstance(error, TimeoutError):
            told = "no answer in time"
        else:
            told = (getattr(error, "strerror", None) or str(error)).lower()
        return Unreachable(f"syslog collector {self._place}: {told}")


def _context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=settings.ca_bundle)
    if settings.certificate is not None and settings.key is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    return context


def _verify_open(connected: ssl.SSLSocket) -> None:
    """See that the collector has not ended the connection before we did: it crashed, or refused us.

    Raises:
        OSError: It has.
    """
    poll = select.poll()
    poll.register(connected, select.POLLRDHUP)
    if poll.poll(0):
        raise ConnectionResetError("ended by the collector before everything was sent")


def _verify_taken(connected: socket.socket) -> None:
    """See that the collector's machine has acknowledged everything, and has not reset it since.

    Raises:
        OSError: It has not.
    """
    left = array.array("i", [0])
    fcntl.ioctl(connected, termios.TIOCOUTQ, left)  # SIOCOUTQ of Linux has the same number
    error = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if left[0] or error:
        raise ConnectionResetError("ended by the collector before it had everything")
