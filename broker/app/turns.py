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
from broker.app.health_port import HealthPort
from broker.app.kept_config import Beginning
from broker.app.operator_tls import read_anchors
from broker.app.service_manager import tell_service_manager
from broker.app.vault import VaultMemory
from broker.clock import SystemClock
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.issuance.witness import Witness
from broker.policy.yamlfile import Faults
from broker.storage.faults import StoreLocked
from broker.telemetry import set_up_log
from broker.web.sockets import ListeningSockets

if TYPE_CHECKING:
    from broker.app.outside import Outside

__all__ = ["Lasting", "Turns", "addresses"]

BETWEEN: Final = "going on by another configuration"
"""What probes are told while no turn serves."""

PROBE_MODULES: Final = frozenset({"aiohttp.web_protocol", "broker.web.health"})
"""Where the tasks begin that answer probes."""

LOCK_TRIES: Final = 60
"""How often a store is tried that a command took between two turns, once a second."""

LOCK_PAUSE_SECONDS: Final = 1.0
"""Pause between two of those tries, in seconds: most commands take less."""

STRAYS_SECONDS: Final = 5.0
"""How long a job may take to end that a turn has left, in seconds: it was told to once already."""

log = structlog.get_logger("penstock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What a turn is given of those before it."""

    sockets: ListeningSockets = field(default_factory=ListeningSockets)
    health: HealthPort = field(default_factory=HealthPort)
    vault: VaultMemory = field(default_factory=VaultMemory)
    """What was had from Vault, and may not be had again now."""
    configuration: ConfigKeeper | None = None
    """Knows what is in force; None where nothing can change."""
    people_read: Callable[[ReadConfig], None] = lambda _reading: None
    """Is told of every reading whose people were taken in."""
    witness: Witness = field(default_factory=Witness)
    """Which orders this process has claimed, in whichever turn."""

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
        self._health = self.lasting.health
        self._reading = first.reading
        self._is_serving = False
        self._is_open = False
        """Whether this turn listens for ACME."""
        self._has_opened = False
        """Whether any did."""
        self._is_proven = first.error is not None
        """Whether any did by what is in force: nothing else is worth keeping for a start."""
        self._has_read_people = False
        """Whether this turn has taken in people from the file."""
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
                self._is_open = self._has_read_people = False
                before = asyncio.all_tasks()
                try:
                    following = await turn(self._reading.config)
                except Exception as error:  # noqa: BLE001 - whatever it is, what served before does
                    following = await self._after(error)
                if following is not None:
                    self._health.say(BETWEEN)
                    await _end_strays(before)
                    await self._change_over(following)
        finally:
            self.sockets.close()
            await self._health.leave_all_but(None)

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
                taken=lambda reading: self._taken(outside, reading),
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

    @property
    def has_way_back(self) -> bool:
        """Return whether the turn before this one listened for ACME, and would be begun again."""
        return self._has_opened and self._instead is not None

    async def opened(self) -> None:
        """Note that this turn listens for ACME; before that, nobody is served by it."""
        self._is_open = self._has_opened = True
        if self._is_serving:
            self._is_proven = True
            await asyncio.to_thread(self._keep)

    async def begun(self, outside: Outside) -> None:
        """Note that this turn serves.

        Raises:
            Unreachable, Broken: It cannot be recorded, so that it may not: what nobody could find
                among the events later is not in force.
        """
        if self._reading.text != self.keeper.in_force.text:
            is_proven, self._is_proven = self._is_proven, self._is_open
            try:
                await self._taken(outside, self._reading)
            except BaseException:
                self._is_proven = is_proven
                raise
            if not self._has_read_people:
                self.keeper.people = self._reading
        self._is_proven = self._is_proven or self._is_open
        self._is_serving, self._has_served, self._lock_tries = True, True, 0
        self._instead = None
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
            await self._take_leave()
            return None
        following = self._watch.following
        microseconds = int(asyncio.get_running_loop().time() * 1_000_000)
        tell_service_manager(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")
        log.info("going on by another configuration", sha256=following.sha256)
        self._health.say(BETWEEN)
        self._instead = self.keeper.in_force
        return following

    async def _take_leave(self) -> None:
        """Say that this is the end, and serve on for as long as others take to hear it.

        In a cluster a pod's address goes with it.  Who is still led there is answered by nobody,
        and its packets go there for as long as it tries, whoever serves by then.
        """
        self._health.say("the broker is ending", is_passing=False)
        tell_service_manager("STOPPING=1")
        log.info("stopping")
        if self._first.linger:
            await asyncio.sleep(self._first.linger.total_seconds())
        # Nobody is left waiting in the queue of a broker that ends.
        self.sockets.close()

    async def _taken(self, outside: Outside, reading: ReadConfig) -> None:
        """Record that *reading* is in force from now on, and keep it."""
        data = {"sha256": reading.sha256, "before": self.keeper.in_force.sha256}
        event = Event(
            kind=EventKind.CONFIGURATION_TAKEN, at=self._clock.now(), actor=SYSTEM, data=data
        )
        await outside.store.append(event, durable=True)
        self.keeper.take(reading)
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
            # Its text may hold anything, and these sentences stand on the health port.
            log.error("configuration does not start", exc_info=error)
            faults = (f"it does not start: {type(error).__name__}; the log has more",)
        self.keeper.refuse(ConfigOutcome.FAILED, faults, self._reading.sha256)
        if not self._has_served:
            self.keeper.resume(instead)
            self._is_proven = True
        return instead.with_people_of(self.keeper.people)

    async def _change_over(self, following: ReadConfig) -> None:
        """Make room for what *following* brings."""
        await self._health.leave_all_but(following.config.listen.health.address)
        self.sockets.begin_turn(addresses(following.config))
        set_up_log(form=following.config.log.format, level=following.config.log.level)
        # What a large set of policies was made of was kept out of collections for its time.
        gc.unfreeze()
        gc.collect()

    def _read_kept(self) -> ReadConfig | None:
        """Return what served before this process, unless that is what it begins with."""
        first = self._first
        found = None if first.kept is None or first.error is not None else first.kept.read()
        if found is None or first.reading.text == found.reading.text == found.people.text:
            return None
        operators = first.reading.config.operators
        try:
            read_anchors(None if operators is None else operators.anchors)
        except Broken:
            self.keeper.people = found.people  # with those of the file it would not start either
        return found.reading

    def _people_read(self, reading: ReadConfig) -> None:
        self.keeper.people, self._has_read_people = reading, True
        self._keep()

    def _keep(self) -> None:
        if self._first.kept is not None and self._is_proven:
            self._first.kept.write(self.keeper.in_force, self.keeper.people)


async def _end_strays(before: set[asyncio.Task[object]]) -> None:
    """End what a turn has left: a job that was under way as its schedule ended."""
    strays = {one for one in asyncio.all_tasks() - before if not _is_probe(one)}
    for stray in strays:
        stray.cancel()
    if strays:
        _, left = await asyncio.wait(strays, timeout=STRAYS_SECONDS)
        if left:
            log.warning("what a turn has left does not end", tasks=len(left))


def _is_probe(task: asyncio.Task[object]) -> bool:
    """Return whether *task* answers a probe: by now, all other listeners have ended."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__") in PROBE_MODULES


def addresses(config: Config) -> Collection[tuple[str, int] | Path]:
    """Return where a broker listens by *config*, but for the health port, which never stops."""
    listen = config.listen
    sections = (listen.acme, listen.agents, listen.plain, listen.tls_alpn, listen.operators)
    endpoints = [section.address for section in sections if section is not None]
    return {*((one.host, one.port) for one in endpoints), config.operator_socket}
