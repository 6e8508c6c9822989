"""Anti-replay nonces of one process: each names the boot that made it and is spent once.

A nonce carries its own proof (an HMAC under a key that never leaves the process), so that issuing
one costs no memory.  Only spending does, one bit each, in windows whose number is bounded.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.ports import Clock
from broker.protocol.encoding import encode_base64url, is_base64url, parse_base64url
from broker.protocol.problems import Problem, ProblemType

__all__ = ["BootNonces"]

LIFETIME: Final = timedelta(hours=2)
"""How long a nonce can be redeemed: slow DNS hooks keep a client waiting for up to an hour."""

WINDOW_AGE: Final = timedelta(minutes=10)
"""Longest time that one window takes up nonces; a nonce may live that much longer."""

WINDOW_SIZE: Final = 65_536
"""Most nonces in one window: their spent bits fill 8 KiB."""

MAX_WINDOWS: Final = 4096
"""Most windows kept: at most 32 MiB, and two hours at 37,000 nonces a second."""

_BODY: Final = struct.Struct("!8sIH")
_MAC_BYTES: Final = 16
"""Length of the proof in a nonce, in bytes: 128 bits, which nobody guesses."""
_CHARS: Final = 40
"""Length of a nonce in characters: 30 octets in base64url."""


@dataclass(slots=True)
class _Window:
    opened_at: datetime
    issued: int = 0
    spent: bytearray = field(default_factory=bytearray)

    def is_spent(self, index: int) -> bool:
        byte = index >> 3
        return byte < len(self.spent) and bool(self.spent[byte] >> (index & 7) & 1)

    def spend(self, index: int) -> None:
        byte = index >> 3
        if byte >= len(self.spent):
            self.spent.extend(bytes(byte + 1 - len(self.spent)))
        self.spent[byte] |= 1 << (index & 7)


class BootNonces:
    """The ``Nonces`` port for a broker of one process.

    A nonce of another boot is refused because this boot cannot know whether it was spent.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._boot = secrets.token_bytes(8)
        self._keyed = hmac.new(secrets.token_bytes(32), digestmod="sha256")
        self._windows: OrderedDict[int, _Window] = OrderedDict()
        self._number = 0
        self._open_window(clock.now())

    def issue(self) -> str:
        """Return a fresh nonce."""
        now = self._clock.now()
        window = self._windows[self._number]
        if window.issued >= WINDOW_SIZE or now - window.opened_at >= WINDOW_AGE:
            window = self._open_window(now)
        body = _BODY.pack(self._boot, self._number, window.issued)
        window.issued += 1
        return encode_base64url(body + self._mac(body))

    async def redeem(self, nonce: str) -> None:
        """Spend *nonce*.

        Raises:
            Problem: malformed outside the alphabet of RFC 8555 §6.5.1; badNonce when it is
                forged, spent, too old or another boot's.  A fresh one goes with the answer.
        """
        if not is_base64url(nonce):
            raise Problem(ProblemType.MALFORMED, "nonce is not base64url")
        body = self._verify_origin(nonce)
        _, number, index = _BODY.unpack(body)
        window = self._windows.get(number)
        if window is None or self._is_old(window, self._clock.now()):
            raise _bad_nonce("is too old")
        if window.is_spent(index):
            raise _bad_nonce("has been used before")
        window.spend(index)

    @property
    def spent_bytes(self) -> int:
        """Return how many bytes the memory of spent nonces fills."""
        return sum(len(window.spent) for window in self._windows.values())

    def _verify_origin(self, nonce: str) -> bytes:
        try:
            token = parse_base64url(nonce) if len(nonce) == _CHARS else b""
        except ValueError:
            token = b""
        body, mac = token[: _BODY.size], token[_BODY.size :]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise _bad_nonce("was not issued by this server since it started")
        return body

    def _mac(self, body: bytes) -> bytes:
        # A copy of the keyed state: setting the key up anew costs more than the MAC itself.
        mac = self._keyed.copy()
        mac.update(body)
        return mac.digest()[:_MAC_BYTES]

    def _open_window(self, now: datetime) -> _Window:
        self._forget_old(now)
        self._number += 1
        window = self._windows[self._number] = _Window(opened_at=now)
        while len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        return window

    def _forget_old(self, now: datetime) -> None:
        while self._windows and self._is_old(next(iter(self._windows.values())), now):
            self._windows.popitem(last=False)

    @staticmethod
    def _is_old(window: _Window, now: datetime) -> bool:
        return now - window.opened_at >= LIFETIME + WINDOW_AGE


def _bad_nonce(reason: str) -> Problem:
    return Problem(ProblemType.BAD_NONCE, f"nonce {reason}, take the one in this answer")
