"""Looks whether the configuration file has changed, and whether the change can be taken.

It belongs to one turn of a broker.  What it finds good is for the next turn; what it finds broken
changes nothing but what the keeper tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

import structlog

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome, ReadConfig, sentences
from broker.app.operator_tls import read_anchors
from broker.config import Config
from broker.config.load import parse_with_lines, read_text
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.policy.yamlfile import Faults, Lines

__all__ = ["ConfigWatch", "Judge", "Taken"]

LOOK_EVERY: Final = timedelta(seconds=1)
"""How often the file is looked at: one call of stat(2)."""

REST: Final = timedelta(seconds=5)
"""How long a turn is left in peace before the file is followed: each turn is a pause for clients,
and whoever changes a file twenty times in a row means the last one."""

RETRY_AFTER: Final = timedelta(seconds=30)
"""Pause before a text is tried again that was refused for something beside it."""

Judge = Callable[[Config, Lines], Awaitable[None]]
"""Raises Faults, Broken or Unreachable where a broker could not serve by it."""

Taken = Callable[[ReadConfig], Awaitable[None]]
"""Puts in force what begins no turn, with an event; raises Unreachable where that has no place."""

Stamp = tuple[int, int, int, int, int] | None

log = structlog.get_logger("penstock")


class ConfigWatch:
    """Looks at one file for as long as a turn lasts."""

    def __init__(
        self, keeper: ConfigKeeper, path: Path, *, judge: Judge, taken: Taken, clock: Clock
    ) -> None:
        self._keeper = keeper
        self._path = path
        self._judge = judge
        self._taken = taken
        self._clock = clock
        self._looking = asyncio.Lock()
        self._before: Stamp = None
        """What the look before saw."""
        self._done: Stamp = None
        """What was dealt with last."""
        self._tried_at: datetime | None = None
        self.following: ReadConfig | None = None
        """What the next turn is to serve by."""
        self.found = asyncio.Event()
        """Set once there is one."""
        self.is_overtaken = False
        """Whether somebody asked for a look since: what was found may not be what they mean."""

    async def run(self, turn: Callable[[], Awaitable[None]]) -> NoReturn:
        """Take one *turn* after the other, such as a tolerant `look`; a fault of ours ends none."""
        await asyncio.sleep(REST.total_seconds())
        while True:
            try:
                await turn()
            except Exception:
                log.exception("configuration cannot be looked at")
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def look_now(self) -> None:
        """Have the file read and judged whether it has changed or not: somebody asks for it."""
        await self.look(is_asked=True)

    async def look(self, *, is_asked: bool = False) -> None:
        """Look once, and find out about whatever has changed."""
        async with self._looking:
            if self.found.is_set():
                self.is_overtaken |= is_asked
                return
            stamp = await asyncio.to_thread(_stamp, self._path)
            if not is_asked and not self._is_due(stamp):
                return
            try:
                text = await asyncio.to_thread(read_text, self._path)
            except (Broken, Faults) as error:
                self._keeper.refuse(ConfigOutcome.REFUSED, sentences(error), None, is_final=False)
            else:
                if not is_asked and await asyncio.to_thread(_stamp, self._path) != stamp:
                    return  # it is being written
                await self._try(text, is_asked=is_asked)
            self._done, self._tried_at = stamp, self._clock.now()

    def _is_due(self, stamp: Stamp) -> bool:
        is_at_rest, self._before = stamp == self._before, stamp
        if stamp != self._done or self._tried_at is None:
            return is_at_rest
        refusal = self._keeper.refusal
        is_passing = refusal is not None and not refusal.is_final
        return is_passing and self._clock.now() - self._tried_at >= RETRY_AFTER

    async def _try(self, text: str, *, is_asked: bool) -> None:
        """Find out what is to become of *text*."""
        keeper, config = self._keeper, None
        try:
            config, lines = await asyncio.to_thread(parse_with_lines, text, str(self._path))
            reading = ReadConfig(config=config, text=text)
            if reading.sha256 == keeper.in_force.sha256:
                keeper.agree()
            elif reading.is_like(keeper.in_force.config):
                await asyncio.to_thread(_look_at_people, config)
                await self._taken(reading)
            elif is_asked or not self._is_refused_for_good(reading):
                await self._judge(config, lines)
                self.following = reading
                self.found.set()
        except Exception as error:  # a fault of ours must not end the looking
            if isinstance(error, Faults | Broken | Unreachable):
                faults = sentences(error)
            else:
                log.exception("configuration cannot be judged")
                faults = (f"it cannot be judged: {type(error).__name__}; the log has more",)
            is_final = config is None and isinstance(error, Faults)
            digest = ReadConfig(config=keeper.in_force.config, text=text).sha256
            keeper.refuse(ConfigOutcome.REFUSED, faults, digest, is_final=is_final)

    def _is_refused_for_good(self, reading: ReadConfig) -> bool:
        refusal = self._keeper.refusal
        return refusal is not None and refusal.is_final and refusal.sha256 == reading.sha256


def _look_at_people(config: Config) -> None:
    """Read what people's certificates are believed by; raises Broken."""
    read_anchors(None if config.operators is None else config.operators.anchors)


def _stamp(path: Path) -> Stamp:
    """Return what changes when the file does; a link that is swapped leads to another one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
