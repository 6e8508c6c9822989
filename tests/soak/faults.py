"""What goes wrong on purpose: a seed decides what is killed, when, and for how long it is away."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.peers import process
from tests.soak.scene import Scene

__all__ = ["Fault", "Faults"]

KINDS: Final = {"agent": 10, "broker": 3, "pebble": 1, "pebble stopped": 1}
"""What happens how often, as weights: kill -9, and SIGSTOP of Pebble."""

PAUSE_SECONDS: Final = (3.0, 12.0)
"""Between two faults."""

AWAY_SECONDS: Final = {"agent": (0.1, 8.0), "broker": (0.1, 6.0), "pebble": (0.5, 4.0)}
"""For how long what was killed is left dead."""

STOPPED_SECONDS: Final = (2.0, 15.0)
"""For how long Pebble is stopped: longer than a request to it may take."""

PEBBLE_APART_SECONDS: Final = 90.0
"""Between two deaths of Pebble: each costs all its accounts, orders and roots."""

RECOVERY_SECONDS: Final = 120.0
"""By when the runbook of the lost account has been carried out, however often the broker is killed
meanwhile."""

START_TRIES: Final = 5

NOT_MENDED: Final = (
    process.PeerFailed,
    OSError,
    sqlite3.Error,
    subprocess.SubprocessError,
    ValueError,
)
"""What comes of a process, a store or a command that is not as it was before the harm."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong, and was mended."""

    at: float
    """Seconds since 1970."""
    what: str
    away_seconds: float
    note: str = ""


@dataclass(slots=True)
class Faults:
    """Does harm to a scene until it is told to end."""

    scene: Scene
    dice: random.Random
    tell: Callable[[str], None]
    done: list[Fault] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What could not be mended."""
    _away: set[str] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pebble_died: float = 0.0

    def run(self, seconds: float) -> None:
        """Do harm for so long, then wait until all is mended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, self.dice.uniform(*PAUSE_SECONDS)))
            if time.monotonic() < deadline:
                self._one()
        for thread in self._threads:
            thread.join()

    def counts(self) -> Counter[str]:
        """Return how often each kind of fault was done."""
        return Counter(fault.what.split(" of ")[0] for fault in self.done)

    def _one(self) -> None:
        (kind,) = self.dice.choices(list(KINDS), list(KINDS.values()))
        if kind == "agent":
            node = self.dice.choice([host.node for host in self.scene.hosts])
            away = self.dice.uniform(*AWAY_SECONDS["agent"])
            self._begin(node, lambda: self._kill_agent(node, away))
        elif kind == "broker":
            away = self.dice.uniform(*AWAY_SECONDS["broker"])
            self._begin("broker", lambda: self._kill_broker(away))
        elif kind == "pebble":
            away = self.dice.uniform(*AWAY_SECONDS["pebble"])
            if time.monotonic() - self._pebble_died > PEBBLE_APART_SECONDS:
                self._begin("pebble", lambda: self._kill_pebble(away))
        else:
            away = self.dice.uniform(*STOPPED_SECONDS)
            self._begin("pebble", lambda: self._stop_pebble(away))

    def _begin(self, what: str, harm: Callable[[], Fault]) -> None:
        """Do it in a thread of its own, unless the same is away already."""
        with self._lock:
            if what in self._away:
                return
            self._away.add(what)

        def work() -> None:
            try:
                fault = harm()
                self.done.append(fault)
                self.tell(f"{fault.what}, away {fault.away_seconds:.1f} s {fault.note}".rstrip())
            except NOT_MENDED as error:
                self.broken.append(f"{what}: {error}")
                self.tell(f"NOT MENDED {what}: {error}")
            finally:
                with self._lock:
                    self._away.discard(what)

        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _kill_agent(self, node: str, away: float) -> Fault:
        host = self.scene.host(node)
        at = _now()
        host.kills.append(at)
        host.agent.kill()
        time.sleep(away)
        _start(host.agent)
        return Fault(at, f"kill -9 agent of {node}", away)

    def _kill_broker(self, away: float) -> Fault:
        at = _now()
        self.scene.broker_kills.append(at)
        self.scene.broker.kill()
        time.sleep(away)
        _start(self.scene.broker)
        return Fault(at, "kill -9 broker", away, f"(ready again after {_now() - at:.1f} s)")

    def _kill_pebble(self, away: float) -> Fault:
        at = _now()
        self._pebble_died = time.monotonic()
        self.scene.pebble.kill()
        time.sleep(away)
        _start(self.scene.pebble)
        self.scene.learn_root()
        again = self.scene.recover(time.monotonic() + RECOVERY_SECONDS)
        took = _now() - at
        return Fault(
            at,
            "kill -9 pebble",
            away,
            f"(account recovered after {took:.1f} s, {again} orders again)",
        )

    def _stop_pebble(self, away: float) -> Fault:
        at, pid = _now(), self.scene.pebble.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(away)
        finally:
            os.kill(pid, signal.SIGCONT)
        return Fault(at, "stop pebble", away)


def _start(peer: process.Peer) -> None:
    """Start what was killed; on a busy machine its port may be taken for a moment."""
    for left in reversed(range(START_TRIES)):
        try:
            return peer.start()
        except process.PeerFailed:
            if not left:
                raise
    return None


def _now() -> float:
    return time.time()  # noqa: TID251  the wall clock, as logs and receipts have it
