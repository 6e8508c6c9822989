"""Threads that do deliveries: a few at once, those of one key one after the other, together.

What comes for a key while its work is under way waits and is then done as one group: certificates
that share a server are reloaded once for all of them.  A thread ends when there is nothing to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from agents.clock import Clock

__all__ = ["Workers"]

MAX_GROUP: Final = 256
"""Most items of one key that are done together: an undo of them all stays under a minute."""

Item = TypeVar("Item")


class Workers(Generic[Item]):
    """Does items by key."""

    def __init__(
        self,
        do: Callable[[str, list[Item]], None],
        *,
        limit: int,
        clock: Clock,
        apart: Callable[[str], float] = lambda _key: 0.0,
    ) -> None:
        self._do = do
        self._limit = limit
        self._clock = clock
        self._apart = apart
        self._changed = threading.Condition()
        self._waiting: dict[str, list[Item]] = {}
        self._earliest: dict[str, float] = {}
        self._busy: set[str] = set()
        self._threads = 0
        self._is_stopped = False

    def submit(self, key: str, item: Item) -> None:
        """Have *item* done, after all of that key that came before."""
        with self._changed:
            self._waiting.setdefault(key, []).append(item)
            if self._threads < self._limit and not self._is_stopped:
                self._threads += 1
                threading.Thread(target=self._run, name="work", daemon=True).start()
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many items wait or are under way."""
        return sum(map(len, self._waiting.values())) + len(self._busy)

    def stop(self, seconds: float) -> int:
        """Begin nothing more, and return how much is still under way after so many seconds."""
        until = self._clock.monotonic() + seconds
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            while self._busy and (left := until - self._clock.monotonic()) > 0:
                self._changed.wait(left)
            return len(self._busy)

    def join(self, seconds: float) -> int:
        """Return how much is not done after so many seconds."""
        until = self._clock.monotonic() + seconds
        with self._changed:
            while len(self) and (left := until - self._clock.monotonic()) > 0:
                self._changed.wait(left)
            return len(self)

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                key, items = taken
                try:
                    self._do(key, items)
                finally:
                    self._give_back(key)
        finally:
            with self._changed:
                self._threads -= 1

    def _take(self) -> tuple[str, list[Item]] | None:
        with self._changed:
            while not self._is_stopped:
                free = [key for key in self._waiting if key not in self._busy]
                if not free:
                    return None
                now = self._clock.monotonic()
                key = min(free, key=lambda one: self._earliest.get(one, 0.0))
                wait = self._earliest.get(key, 0.0) - now
                if wait <= 0:
                    items = self._waiting[key]
                    left = items[MAX_GROUP:]
                    if left:
                        self._waiting[key] = left
                    else:
                        del self._waiting[key]
                    self._busy.add(key)
                    return key, items[:MAX_GROUP]
                self._changed.wait(wait)
            return None

    def _give_back(self, key: str) -> None:
        with self._changed:
            self._busy.discard(key)
            now = self._clock.monotonic()
            self._earliest = {k: at for k, at in self._earliest.items() if at > now}
            if apart := self._apart(key):
                self._earliest[key] = now + apart
            self._changed.notify_all()
