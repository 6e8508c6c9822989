"""Percentiles, medians of rounds, ratios and aims are what they are called."""

from dataclasses import replace

import pytest

from bench.figures import Aim, Cell, median_cell, percentile, ratio

CELL = Cell(
    scene="built-in CA",
    concurrency=8,
    orders=100,
    errors=0,
    p50_ms=10.0,
    p99_ms=20.0,
    orders_per_second=50.0,
    cpu_ms=5.0,
    generator_cpu_ms=1.0,
    resident_mib=90.0,
    requests=6.0,
    polls=1.0,
)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 2, id="median-of-four"),
        pytest.param(0.75, 3, id="three-quarters"),
        pytest.param(0.99, 4, id="nearly-all"),
        pytest.param(1.0, 4, id="all"),
        pytest.param(0.01, 1, id="hardly-any"),
    ],
)
def test_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    """Nearest rank: nothing is interpolated, and the order of the values does not matter."""
    assert percentile([3, 1, 4, 2], share) == expected


@pytest.mark.parametrize(
    ("values", "share"),
    [
        pytest.param([], 0.5, id="no-values"),
        pytest.param([1.0], 0.0, id="no-share"),
        pytest.param([1.0], 1.1, id="more-than-all"),
    ],
)
def test_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    """No figure is made up."""
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_ratio_says_how_many_times_the_other_is_ours() -> None:
    """Ten against five is twice; against nothing it cannot be told."""
    assert ratio(5.0, 10.0) == 2.0
    assert ratio(0.0, 10.0) == 0.0


def test_median_round_stands_for_its_cell_with_the_errors_of_all() -> None:
    """One disturbed round changes nothing, and no error is dropped with it."""
    rounds = [
        replace(CELL, cpu_ms=5.0, p50_ms=10.0),
        replace(CELL, cpu_ms=50.0, p50_ms=90.0, errors=2, faults={"finalize": 2}),
        replace(CELL, cpu_ms=6.0, p50_ms=12.0, errors=1, faults={"finalize": 1}),
    ]
    middle = median_cell(rounds)
    assert (middle.cpu_ms, middle.p50_ms, middle.errors) == (6.0, 12.0, 3)
    assert middle.faults == {"finalize": 3}
    with pytest.raises(ValueError, match="no rounds"):
        median_cell([])


def test_aim_tells_by_how_much_it_is_missed() -> None:
    """At the bound it is met."""
    assert Aim(what="x", bound=4.0, measured=4.0, unit="ms").outcome == "met"
    missed = Aim(what="x", bound=4.0, measured=5.25, unit="ms")
    assert (missed.is_met, missed.outcome) == (False, "missed by 1.2 ms")
