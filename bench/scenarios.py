"""What is measured: the four questions, each answered in one run on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import servers
from bench.figures import Cell, median_cell, percentile
from bench.generator import Burst, Generator, Target
from bench.processes import usage_of
from bench.servers import Scene

__all__ = ["EFFORTS", "SCENES", "Effort", "Measured", "cell_of", "line_of", "measure", "round_of"]

WARM_ORDERS: Final = 4
"""Orders for each client before the clocks are read: connections are open and caches filled."""

Tell = Callable[[str], None]

SCENES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Scene]]]] = {
    "built-in": servers.built_in,
    "tunnel": servers.behind_penstock,
    "granted": lambda home: servers.behind_penstock(home, is_granted=True),
    "step-ca": servers.step_ca,
    "tunnel-step-ca": servers.behind_step_ca,
    "acme2certifier": servers.acme2certifier,
}
"""The servers that are measured one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    orders: dict[int, int]
    """Orders of a cell by the number of clients."""
    slow_orders: dict[int, int]
    """The same for a server that needs a second for an order."""
    rounds: int
    """Times that a cell is measured; the round with the median processor time counts."""
    memory_orders: int
    filled_with: int
    store_orders: int
    """Orders of each half of the comparison between a full store and an empty one."""
    scenes: tuple[str, ...] = tuple(SCENES)
    """Which servers, by the names of ``SCENES``."""


FULL: Final = Effort(
    orders={1: 60, 8: 200, 32: 256},
    slow_orders={1: 5, 8: 16, 32: 32},
    rounds=3,
    memory_orders=10_000,
    filled_with=100_000,
    store_orders=500,
)
"""About fifteen minutes on two idle cores."""

QUICK: Final = Effort(
    orders={1: 100, 8: 160, 32: 256},
    slow_orders={1: 5, 8: 16, 32: 32},
    rounds=1,
    memory_orders=1_000,
    filled_with=10_000,
    store_orders=200,
)
"""About four minutes; shows a direction, settles nothing."""

SMOKE: Final = Effort(
    orders={1: 4, 8: 16},
    slow_orders={},
    rounds=1,
    memory_orders=16,
    filled_with=64,
    store_orders=8,
    scenes=("built-in", "granted"),
)
"""Seconds: that everything runs, no figure worth keeping."""


EFFORTS: Final[Mapping[str, Effort]] = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


@dataclass(slots=True)
class Measured:
    """All that came out."""

    cells: list[Cell] = field(default_factory=list)
    rest_mib: dict[str, float] = field(default_factory=dict)
    """Resident memory before the first order, by scene."""
    worked_mib: dict[str, float] = field(default_factory=dict)
    """The same after ``Effort.memory_orders``."""
    store_cpu_ms: dict[str, float] = field(default_factory=dict)
    """Processor time an order, by ``empty`` and ``full``."""

    def cell(self, scene: str, concurrency: int) -> Cell | None:
        """Return one cell, None where it was not measured."""
        for cell in self.cells:
            if (cell.scene, cell.concurrency) == (scene, concurrency):
                return cell
        return None


def measure(home: Path, effort: Effort, tell: Tell) -> Measured:
    """Measure everything that *effort* names."""
    measured = Measured()
    for name in effort.scenes:
        with SCENES[name](home / name) as running:
            measured.rest_mib[running.name] = usage_of(running.server.pid).resident_mib
            orders = effort.slow_orders if name == "acme2certifier" else effort.orders
            _work(home / name, running, orders, effort, measured, tell)
    _measure_store(home, effort, measured, tell)
    return measured


def _work(
    home: Path,
    scene: Scene,
    orders: dict[int, int],
    effort: Effort,
    measured: Measured,
    tell: Tell,
) -> None:
    with scene.generator(home / "generator") as generator:
        for concurrency, number in orders.items():
            measured.cells.append(_cell(scene, generator, number, concurrency, effort.rounds))
            tell(line_of(measured.cells[-1]))
        if scene.name in ("built-in CA", "tunnel"):
            # The least number of orders has been placed already; the rest makes it round.
            generator.order(effort.memory_orders, 8)
            measured.worked_mib[scene.name] = usage_of(scene.server.pid).resident_mib
            tell(f"{scene.name}: {measured.worked_mib[scene.name]:.0f} MiB after orders")
    if scene.direct is not None and scene.name == "tunnel, granted":
        _measure_direct(home, scene, scene.direct, orders, effort, measured, tell)


def _measure_direct(
    home: Path,
    scene: Scene,
    target: Target,
    orders: dict[int, int],
    effort: Effort,
    measured: Measured,
    tell: Tell,
) -> None:
    """Order from the CA behind the tunnel, past the tunnel."""
    ((_, behind),) = scene.behind.items()
    direct = Scene(name="the CA itself, granted", server=behind, target=target, ports=scene.ports)
    with direct.generator(home / "direct") as generator:
        for concurrency, number in orders.items():
            measured.cells.append(_cell(direct, generator, number, concurrency, effort.rounds))
            tell(line_of(measured.cells[-1]))


def _cell(scene: Scene, generator: Generator, orders: int, concurrency: int, rounds: int) -> Cell:
    generator.order(min(orders, WARM_ORDERS * concurrency), concurrency)
    return median_cell([round_of(scene, generator, orders, concurrency) for _ in range(rounds)])


def round_of(scene: Scene, generator: Generator, orders: int, concurrency: int) -> Cell:
    """Order once, and return what it cost the server and whatever stands behind it."""
    pids = {"": scene.server.pid, **{name: peer.pid for name, peer in scene.behind.items()}}
    before = {name: usage_of(pid).cpu_seconds for name, pid in pids.items()}
    burst = generator.order(orders, concurrency)
    after = {name: usage_of(pid) for name, pid in pids.items()}
    spent = {name: after[name].cpu_seconds - before[name] for name in pids}
    return cell_of(scene.name, concurrency, burst, spent, resident_mib=after[""].resident_mib)


def cell_of(
    scene: str,
    concurrency: int,
    burst: Burst,
    spent: dict[str, float],
    *,
    resident_mib: float,
) -> Cell:
    """Return the figures of one burst; *spent* holds seconds, the server's under ``""``."""
    done = max(burst.orders, 1)
    times = burst.milliseconds or [0.0]
    each = {name: 1000 * seconds / done for name, seconds in spent.items()}
    return Cell(
        scene=scene,
        concurrency=concurrency,
        orders=burst.orders,
        errors=burst.errors,
        faults=burst.faults,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        orders_per_second=burst.orders / burst.seconds if burst.seconds > 0 else 0.0,
        cpu_ms=each.pop(""),
        behind_cpu_ms=each,
        generator_cpu_ms=1000 * burst.cpu_seconds / done,
        resident_mib=resident_mib,
        requests=burst.requests / done,
        polls=burst.polls / done,
    )


def _measure_store(home: Path, effort: Effort, measured: Measured, tell: Tell) -> None:
    """Order from two brokers by turns, of which one begins with a full store."""
    with (
        servers.built_in(home / "store-empty") as empty,
        servers.built_in(home / "store-full", filled_with=effort.filled_with) as full,
        empty.generator(home / "generator-empty") as to_empty,
        full.generator(home / "generator-full") as to_full,
    ):
        pairs: Sequence[tuple[str, Scene, Generator]] = (
            ("empty", empty, to_empty),
            ("full", full, to_full),
        )
        rounds: dict[str, list[Cell]] = {name: [] for name, _, _ in pairs}
        for _, _, generator in pairs:
            generator.order(min(effort.store_orders, 64), 8)
        for _ in range(effort.rounds):
            for name, scene, generator in pairs:
                rounds[name].append(round_of(scene, generator, effort.store_orders, 8))
        for name, cells in rounds.items():
            middle = median_cell(cells)
            measured.store_cpu_ms[name] = middle.cpu_ms
            tell(f"{name} store: {middle.cpu_ms:.2f} ms an order, {middle.errors} errors")


def line_of(cell: Cell) -> str:
    """Return a cell as a line for whoever watches."""
    behind = "".join(f", {name} {each:.1f}" for name, each in cell.behind_cpu_ms.items())
    return (
        f"{cell.scene}, {cell.concurrency} clients: {cell.cpu_ms:.2f} ms CPU an order{behind}; "
        f"p50 {cell.p50_ms:.1f} ms, p99 {cell.p99_ms:.1f} ms, "
        f"{cell.orders_per_second:.1f} a second, {cell.errors} errors"
    )
