"""One configuration after the other in one process: a turn ends as a broker ends, and the next
begins as one starts.

What outlives a turn is here: the listening sockets, what is known of the configuration file, and
what came by a signal meanwhile (docs/adr/0039).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome, ReadConfig, sentences
from broker.app.config_metrics import ConfigMetrics
from broker.app.config_trial import ConfigTrial
from broker.app.config_watch import ConfigWatch
from broker.app.hangup import Hangups
from broker.app.kept_config import Beginning
from broker.app.service_manager import tell_service_manager
from broker.clock import SystemClock
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.policy.yamlfile import Faults
from broker.storage.faults import StoreLocked
from broker.telemetry import set_up_log
from broker.web.sockets import ListeningSockets

if TYPE_CHECKING:
    from broker.app.outside import Outside

__all__ = ["Lasting", "Turns", "addresses"]

LOCK_TRIES: Final = 60
"""How often a store is tried that a command took between two turns, once a second."""

LOCK_PAUSE_SECONDS: Final = 1.0
"""Pause between two of those tries, in seconds: most commands take less."""

log = structlog.get_logger("penstock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What a turn is given of those before it."""

    sockets: ListeningSockets = field(default_factory=ListeningSockets)
    configuration: ConfigKeeper | None = None
    """Knows what is in force; None where nothing can change."""
    people_read: Callable[[ReadConfig], None] = lambda _reading: None
    """Is told of every reading whose people were taken in."""

    def warning(self) -> str | None:
        """Return why the configuration file is not in force, None while it is."""
        return None if self.configuration is None else self.configuration.warning()


class Turns:
    """Has a broker serve by one configuration after the other."""

    def __init__(self, first: Beginning) -> None:
        self._first = first
        self._clock = SystemClock()
        self.keeper = ConfigKeeper(first.reading, self._clock)
        self.sockets = ListeningSockets()
        self.hangups = Hangups()
        self.lasting = Lasting(
            sockets=self.sockets, configuration=self.keeper, people_read=self._people_read
        )
        self._reading = first.reading
        self._is_serving = False
        self._instead: ReadConfig | None = None
        """What is served by if the configuration of this turn does not start."""
        self._watch: ConfigWatch | None = None
        self._has_served = False
        self._lock_tries = 0
        if first.error is not None:
            text = sentences(first.error)
            self.keeper.refuse(ConfigOutcome.REFUSED, text, None, is_final=False)
            self.keeper.is_last_good = True
            self.keeper.people = first.people or first.reading

    async def run(self, turn: Callable[[Config], Awaitable[ReadConfig | None]]) -> None:
        """Take *turn* after turn until one returns nothing.

        Raises:
            Broken, Unreachable, Faults: The first does not start and nothing else is known, or what
                had served before does not any more.
        """
        self._instead = await asyncio.to_thread(self._read_kept)
        following: ReadConfig | None = self._reading
        try:
            while following is not None:
                self._reading, self._is_serving = following, False
                before = asyncio.all_tasks()
                try:
                    following = await turn(self._reading.config)
                except Exception as error:  # noqa: BLE001 - whatever it is, what served before does
                    following = await self._after(error)
                if following is not None:
                    await _end_strays(before)
                    self._change_over(following)
        finally:
            self.sockets.close()

    # ------------------------------------------------------------------------- within a turn

    def watch(self, outside: Outside) -> ConfigWatch | None:
        """Return what looks at the file in this turn; None where there is none."""
        metrics = ConfigMetrics(outside.telemetry.registry)
        outside.telemetry.before_render.append(lambda: metrics.show(self.keeper))
        self._watch = None
        if self._first.path is not None:
            self._watch = ConfigWatch(
                self.keeper,
                self._first.path,
                judge=ConfigTrial(outside).judge,
                taken=lambda before: self._taken(outside, before),
                clock=self._clock,
            )
        return self._watch

    @property
    def path(self) -> Path | None:
        """Return where the configuration lies, if it is read again."""
        return self._first.path

    @property
    def is_following(self) -> bool:
        """Return whether the file is followed."""
        return self._first.is_following

    async def begun(self, outside: Outside) -> None:
        """Note that this turn serves."""
        self._is_serving, self._has_served, self._lock_tries = True, True, 0
        self._instead = None
        before = self.keeper.in_force
        if self._reading.text != before.text:
            self.keeper.take(self._reading)
            await self._taken(outside, before.sha256)
        else:
            await asyncio.to_thread(self._keep)

    async def until(self, stopping: asyncio.Event) -> ReadConfig | None:
        """Return what the next turn is to serve by; None once the broker is told to stop."""
        waits = [asyncio.create_task(stopping.wait())]
        if self._watch is not None:
            waits.append(asyncio.create_task(self._watch.found.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if stopping.is_set() or self._watch is None or self._watch.following is None:
            # Nobody is left waiting in the queue of a broker that ends.
            self.sockets.close()
            tell_service_manager("STOPPING=1")
            log.info("stopping")
            return None
        following = self._watch.following
        microseconds = int(asyncio.get_running_loop().time() * 1_000_000)
        tell_service_manager(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")
        log.info("going on by another configuration", sha256=following.sha256)
        self._instead = self.keeper.in_force
        return following

    async def _taken(self, outside: Outside, before: str) -> None:
        """Record that another configuration is in force, and keep it."""
        data = {"sha256": self.keeper.in_force.sha256, "before": before}
        event = Event(
            kind=EventKind.CONFIGURATION_TAKEN, at=self._clock.now(), actor=SYSTEM, data=data
        )
        await outside.store.append(event, durable=True)
        await asyncio.to_thread(self._keep)

    # ------------------------------------------------------------------------- between turns

    async def _after(self, error: Exception) -> ReadConfig:
        """Return what to go on with after *error*, or raise it."""
        watch = self._watch
        if self._is_serving:
            if watch is None or watch.following is None:
                raise error
            log.warning("a turn did not end well", reason=str(error))
            return watch.following
        if isinstance(error, StoreLocked) and self._has_served and self._lock_tries < LOCK_TRIES:
            self._lock_tries += 1
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
            return self._reading
        instead, self._instead = self._instead, None
        # Before anything has served, what may pass is for whoever starts the process again.
        is_passing = not self._has_served and isinstance(error, StoreLocked | Unreachable)
        if instead is None or is_passing:
            raise error
        if isinstance(error, Faults | Broken | Unreachable):
            faults = sentences(error)
        else:
            faults = (f"{type(error).__name__}: {error}",)
        self.keeper.refuse(ConfigOutcome.FAILED, faults, self._reading.sha256)
        if not self._has_served:
            self.keeper.resume(instead)
        return instead.with_people_of(self.keeper.people)

    def _change_over(self, following: ReadConfig) -> None:
        """Make room for what *following* brings."""
        self.sockets.begin_turn(addresses(following.config))
        set_up_log(form=following.config.log.format, level=following.config.log.level)
        # What a large set of policies was made of was kept out of collections for its time.
        gc.unfreeze()
        gc.collect()

    def _read_kept(self) -> ReadConfig | None:
        """Return what served before this process, unless that is what it begins with."""
        first = self._first
        found = None if first.kept is None or first.error is not None else first.kept.read()
        if found is None or found.reading.text == first.reading.text:
            return None
        self.keeper.people = first.reading
        return found.reading

    def _people_read(self, reading: ReadConfig) -> None:
        self.keeper.people = reading
        self._keep()

    def _keep(self) -> None:
        if self._first.kept is not None:
            self._first.kept.write(self.keeper.in_force, self.keeper.people)


async def _end_strays(before: set[asyncio.Task[object]]) -> None:
    """End what a turn has left: a job that was under way as its schedule ended."""
    strays = asyncio.all_tasks() - before
    for stray in strays:
        stray.cancel()
    await asyncio.gather(*strays, return_exceptions=True)


def addresses(config: Config) -> Collection[tuple[str, int] | Path]:
    """Return where a broker listens by *config*."""
    listen = config.listen
    sections = (
        listen.acme, listen.agents, listen.plain, listen.tls_alpn, listen.health, listen.operators
    )  # fmt: skip
    endpoints = [section.address for section in sections if section is not None]
    return {*((one.host, one.port) for one in endpoints), config.operator_socket}
