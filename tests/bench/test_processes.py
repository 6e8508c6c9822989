"""What /proc tells is read as the manual has it."""

import os

import pytest

from bench.processes import TICK_SECONDS, descendants, parse_stat, usage_of


def test_stat_is_read_past_a_name_that_looks_like_more_fields() -> None:
    """The program's name may hold spaces and parentheses."""
    fields = ["S", "7", *["0"] * 9, "100", "20", "3", "1", *["0"] * 30]
    stat = parse_stat(f"42 (a) S 1 (b) {' '.join(fields)}\n")
    assert stat.parent == 7
    assert stat.cpu_seconds == pytest.approx(124 * TICK_SECONDS)


def test_descendants_are_found_over_generations() -> None:
    """Neither a sibling nor the parent belongs to the family."""
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 1: 0}
    assert descendants([2], parents) == {2, 3, 4}


def test_usage_of_a_running_process_counts_time_and_memory() -> None:
    """This very process has used both."""
    usage = usage_of(os.getpid())
    assert usage.cpu_seconds > 0
    assert usage.resident_mib >= usage.private_mib > 1
    assert usage.processes >= 1
