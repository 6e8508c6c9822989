"""What the log tells of client certificates that a TLS listener does not believe, and of clients
that do not believe the listener's own.

asyncio and uvloop tell nobody: a handshake that fails is an exception of whoever accepted the
connection.  Most that fail there are scanners; a certificate that is refused belongs to somebody
who was let in once, or will ask why they are not.
"""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Final

import structlog

__all__ = ["HandshakeLog"]

PAUSE: Final = timedelta(minutes=1)
"""Shortest time between two lines: whoever is refused comes again at once, and anybody can ask."""

_NOT_BELIEVED: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
"""Alerts by which a client says that it does not believe who answers (RFC 8446 §6.2)."""

_log = structlog.get_logger("penstock.web")


class HandshakeLog:
    """Writes a line about failed handshakes, a warning now and then."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._refused = _Pace()
        self._refusing = _Pace()

    def failed(self, peer: str, error: OSError, *, at: float) -> None:
        """Tell of a handshake with *peer* that failed *at* a loop's time, in seconds."""
        if isinstance(error, ssl.SSLCertVerificationError):
            if self._refused.is_time(at):
                _log.warning(
                    "client certificate refused",
                    listener=self._listener,
                    peer=peer,
                    reason=error.verify_message,
                    left_out_before=self._refused.begin(at),
                )
        elif getattr(error, "reason", None) in _NOT_BELIEVED:
            # A clock that is wrong, or other anchors; a node says the same in its own log.
            if self._refusing.is_time(at):
                _log.warning(
                    "own certificate not believed",
                    listener=self._listener,
                    peer=peer,
                    reason=str(getattr(error, "reason", "")).lower(),
                    left_out_before=self._refusing.begin(at),
                )
        else:
            # No TLS, none that we speak, too slow or gone: nobody to answer.
            _log.debug("handshake failed", peer=peer, reason=str(error))


class _Pace:
    """Keeps lines of one kind apart."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._left_out = 0

    def is_time(self, at: float) -> bool:
        """Return whether there may be a line; if not, one more is left out."""
        if self._last is None or at - self._last >= PAUSE.total_seconds():
            return True
        self._left_out += 1
        return False

    def begin(self, at: float) -> int:
        """Note that there is a line, and return how many were left out before it."""
        self._last, left_out, self._left_out = at, self._left_out, 0
        return left_out
