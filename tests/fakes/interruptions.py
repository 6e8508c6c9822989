"""Ends a process at a chosen step: before the step took effect, or after it did and nobody heard.

Every call of a watched object goes through one `Traffic`.  It counts what is under way, so that a
test can wait until nothing is, and it can cut the process off: from then on no call is made and
none is answered, like at the end of a process, until the next process calls `revive`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from tests.fakes.stall import Stall


class Cut(StrEnum):
    """On which side of a step the process ends."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Cutting:
    """The step at which the process ends: its name, and which of its occurrences, from 1."""

    step: str
    occurrence: int
    side: Cut

    def __str__(self) -> str:
        return f"{self.side} {self.step} #{self.occurrence}"


class Traffic:
    """Carries the calls of one process after another."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.cutting: Cutting | None = None
        self.is_cut = asyncio.Event()
        self.on_answer: Callable[[], None] | None = None
        """Called after each answer, before anyone hears of it."""
        self.started = 0
        self._seen: Counter[str] = Counter()
        self._stalls: dict[str, Stall] = {}
        self._under_way = 0
        self._quiet = asyncio.Event()

    @property
    def is_quiet(self) -> bool:
        """Whether no call is under way."""
        return self._under_way == 0

    def seen(self, step: str) -> int:
        """Return how often *step* has been come by."""
        return self._seen[step]

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        while self._under_way:
            self._quiet.clear()
            await self._quiet.wait()

    def stall(self, step: str) -> Stall:
        """Let the next call of *step* wait before it takes effect."""
        self._stalls[step] = Stall(is_after=False)
        return self._stalls[step]

    def revive(self) -> None:
        """Begin the next process, which is not cut off."""
        self.cutting = None
        self.is_cut.clear()

    def watch(self, target: object, label: str, *, counts: bool) -> Any:
        """Return *target* with its coroutine methods going through here.

        What *counts* is waited for by `quiet`: calls that come back without a test's help.
        """
        return _Watched(target, partial(self._carry, label, counts))

    async def _carry(
        self, label: str, counts: bool, method: str, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        await self._hold_if_cut()
        step = f"{label}.{method}"
        self.steps.append(step)
        self.started += 1
        self._seen[step] += 1
        await self._cut_at(step, Cut.BEFORE)
        if step in self._stalls:
            await self._stalls.pop(step).wait()
        self._under_way += counts
        error: Exception | None = None
        result: Any = None
        try:
            result = await call()
        except Exception as fault:  # noqa: BLE001 - carried to the caller, behind the cut
            error = fault
        finally:
            self._under_way -= counts
            if not self._under_way:
                self._quiet.set()
        if self.on_answer is not None and not self.is_cut.is_set():
            self.on_answer()
        await self._cut_at(step, Cut.AFTER)
        if error is not None:
            raise error
        return result

    async def _cut_at(self, step: str, side: Cut) -> None:
        if self.cutting == Cutting(step, self._seen[step], side):
            self.is_cut.set()
        await self._hold_if_cut()

    async def _hold_if_cut(self) -> None:
        if self.is_cut.is_set():
            await asyncio.get_running_loop().create_future()


class _Watched:
    """An object whose coroutine methods go through a `Traffic`."""

    def __init__(self, target: object, carry: Callable[..., Awaitable[Any]]) -> None:
        self._target = target
        self._carry = carry

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._carry(name, partial(attribute, *arguments, **named))

        return call
