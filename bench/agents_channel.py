"""What agents cost the broker: connections at rest, and all of them coming back at once.

The agents are simulated, in processes of their own on the same machine, and speak the real protocol
with identities that they enrolled for; their processor time is told apart from the broker's.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import usage_of
from bench.scenarios import Tell
from bench.servers import UNLIMITED
from tests.deployments.node_agents import TrustingPenstock
from tests.peers import process
from tests.simulator.fleet import Fleet

__all__ = ["Field", "Held", "Return", "make_broker", "measure_held", "measure_return"]

SETTLE_SECONDS: Final = 10.0
"""Between the last connect and the first reading."""

CONNECT_SECONDS: Final = 600.0
"""By when all have connected."""

RETURN_SECONDS: Final = 300.0
"""By when all are back."""

SIMULATORS: Final = 2
"""Processes of simulated agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """So many agents connected and at rest, of which the broker hears nothing."""

    agents: int
    resident_mib: float
    """Of the broker."""
    above_rest_mib: float
    """What is more than before the first agent came."""
    kib_each: float
    cpu_percent: float
    """Of one core, while beats are sent."""
    simulator_cpu_percent: float
    seconds: float
    """How long was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """All agents come back after the broker was killed and started again."""

    agents: int
    start_seconds: float
    """Until the broker was ready."""
    all_seconds: float
    """From ready until the last was connected."""
    half_seconds: float
    cpu_seconds: float
    """Of the broker since its start, until the last was connected."""


class Field:
    """A broker with ever more simulated agents."""

    def __init__(self, home: Path, stack: ExitStack, broker: TrustingPenstock) -> None:
        self.broker = broker
        stack.enter_context(broker)
        fleet = Fleet(
            home / "fleet",
            port=broker.agents_port,
            anchors=broker.ca_bundle,
            processes=SIMULATORS,
        )
        self.fleet = stack.enter_context(fleet)
        self.rest_mib = usage_of(broker.pid).resident_mib
        self.nodes: list[str] = []

    def grow(self, number: int, tell: Tell) -> None:
        """Enrol and connect agents until there are so many."""
        fresh = [f"n{index:05d}.example.test" for index in range(len(self.nodes), number)]
        if not fresh:
            return
        tokens = self.broker.mint(fresh)
        self.fleet.add(
            [{"name": node, "token": tokens[node], "certificates": []} for node in fresh]
        )
        begun, used = time.monotonic(), usage_of(self.broker.pid).cpu_seconds
        self.fleet.enrol(at_once=4)
        spent = usage_of(self.broker.pid).cpu_seconds - used
        tell(
            f"{len(fresh)} enrolled in {time.monotonic() - begun:.0f} s, "
            f"{1000 * spent / len(fresh):.1f} ms CPU each"
        )
        self.nodes += fresh
        self.fleet.connect(spread=len(fresh) / 200, names=fresh)
        self.wait_for_all(CONNECT_SECONDS)

    def wait_for_all(self, seconds: float) -> None:
        """Wait until every agent is connected."""
        self.fleet.wait_for("connected", len(self.nodes), seconds)


def make_broker(home: Path, **options: object) -> TrustingPenstock:
    """Return a broker without rate limits, which may have as many files open as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return TrustingPenstock(home, limits=UNLIMITED, **options)  # type: ignore[arg-type]


def measure_held(field: Field, numbers: Sequence[int], seconds: float, tell: Tell) -> list[Held]:
    """Measure the broker with so many agents connected, one number after the other."""
    made = []
    for number in numbers:
        field.grow(number, tell)
        time.sleep(SETTLE_SECONDS)
        begun = time.monotonic()
        used, simulated = usage_of(field.broker.pid).cpu_seconds, field.fleet.cpu_seconds()
        time.sleep(seconds)
        after, took = usage_of(field.broker.pid), time.monotonic() - begun
        more = after.resident_mib - field.rest_mib
        made.append(
            Held(
                agents=number,
                resident_mib=after.resident_mib,
                above_rest_mib=more,
                kib_each=1024 * more / number,
                cpu_percent=100 * (after.cpu_seconds - used) / took,
                simulator_cpu_percent=100 * (field.fleet.cpu_seconds() - simulated) / took,
                seconds=took,
            )
        )
        tell(str(made[-1]))
    return made


def measure_return(field: Field, tell: Tell) -> Return:
    """Kill the broker, start it, and wait until every agent is back."""
    field.fleet.times()
    field.broker.kill()
    process.wait_until(
        lambda: field.fleet.counts()["connected"] == 0, RETURN_SECONDS, "all agents have noticed"
    )
    field.fleet.times()
    begun = time.monotonic()
    field.broker.start()
    ready = time.monotonic()
    field.wait_for_all(RETURN_SECONDS)
    used = usage_of(field.broker.pid).cpu_seconds
    came = sorted(at for _, _, what, at in field.fleet.times() if what == "connected")
    made = Return(
        agents=len(field.nodes),
        start_seconds=ready - begun,
        all_seconds=came[-1] - ready,
        half_seconds=came[len(came) // 2] - ready,
        cpu_seconds=used,
    )
    tell(str(made))
    return made
