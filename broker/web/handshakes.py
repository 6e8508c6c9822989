"""What the log tells of client certificates that a TLS listener does not believe.

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

_log = structlog.get_logger("penstock.web")


class HandshakeLog:
    """Writes a line about failed handshakes, a warning now and then."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._last: float | None = None
        self._left_out = 0

    def failed(self, peer: str, error: OSError, *, at: float) -> None:
        """Tell of a handshake with *peer* that failed *at* a loop's time, in seconds."""
        if not isinstance(error, ssl.SSLCertVerificationError):
            # No TLS, none that we speak, too slow or gone: nobody to answer.
            _log.debug("handshake failed", peer=peer, reason=str(error))
            return
        if self._last is not None and at - self._last < PAUSE.total_seconds():
            self._left_out += 1
            return
        _log.warning(
            "client certificate refused",
            listener=self._listener,
            peer=peer,
            reason=error.verify_message,
            left_out_before=self._left_out,
        )
        self._last, self._left_out = at, 0
