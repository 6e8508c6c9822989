"""A burst becomes a cell by plain division."""

from dataclasses import replace

from bench.generator import Burst
from bench.scenarios import EFFORTS, SCENES, cell_of, line_of

BURST = Burst(
    orders=4,
    errors=1,
    faults={"finalize: no": 1},
    seconds=2.0,
    milliseconds=[10.0, 40.0, 20.0, 30.0],
    requests=24,
    polls=6,
    bad_nonces=0,
    cpu_seconds=0.008,
)


def test_figures_are_told_for_each_order_that_succeeded() -> None:
    """Processor time of the server and of what stands behind it are kept apart."""
    cell = cell_of("tunnel", 8, BURST, {"": 0.02, "the CA": 0.04}, resident_mib=90.0)
    assert (cell.cpu_ms, cell.behind_cpu_ms) == (5.0, {"the CA": 10.0})
    assert (cell.p50_ms, cell.p99_ms, cell.orders_per_second) == (20.0, 40.0, 2.0)
    assert (cell.requests, cell.polls, cell.generator_cpu_ms) == (6.0, 1.5, 2.0)
    assert (cell.errors, cell.faults) == (1, {"finalize: no": 1})
    assert line_of(cell).startswith("tunnel, 8 clients: 5.00 ms CPU an order, the CA 10.0;")


def test_run_without_a_single_success_is_told_and_not_divided_by() -> None:
    """Zero orders give figures all the same, with their errors."""
    failed = replace(BURST, orders=0, errors=4, milliseconds=[])
    cell = cell_of("tunnel", 1, failed, {"": 0.02}, resident_mib=90.0)
    assert (cell.orders, cell.errors, cell.p50_ms) == (0, 4, 0.0)


def test_every_effort_names_scenes_that_exist() -> None:
    """The full and the quick one measure all of them."""
    for effort in EFFORTS.values():
        assert set(effort.scenes) <= set(SCENES)
    assert set(EFFORTS["full"].scenes) == set(EFFORTS["quick"].scenes) == set(SCENES)
