"""One connection that is kept for the next request.

A handshake costs the broker more than a request does.  Whoever sends takes the connection out and
gives it back, so that no two threads ever speak on it at once.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Hashable

from agents.exchange import Exchange

__all__ = ["Kept"]


class Kept:
    """Holds at most one connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[Hashable, Exchange] | None = None

    def take(self, way: Hashable) -> Exchange | None:
        """Return the connection if it goes that way and is silent, and hold it no longer."""
        held = self._swap(None)
        if held is None:
            return None
        if held[0] == way and _is_silent(held[1]):
            return held[1]
        held[1].close()
        return None

    def give(self, way: Hashable, exchange: Exchange) -> None:
        """Hold *exchange* in place of whichever there is."""
        held = self._swap((way, exchange))
        if held is not None:
            held[1].close()

    def release(self) -> None:
        """Close what is held."""
        held = self._swap(None)
        if held is not None:
            held[1].close()

    def _swap(self, new: tuple[Hashable, Exchange] | None) -> tuple[Hashable, Exchange] | None:
        with self._lock:
            held, self._held = self._held, new
            return held


def _is_silent(exchange: Exchange) -> bool:
    """Tell whether nothing has come that nobody asked for: mostly that is its end."""
    poll = select.poll()
    poll.register(exchange.socket, select.POLLIN)
    return not poll.poll(0)
