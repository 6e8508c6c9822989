"""From figures about policies to a report."""

from pathlib import Path

import pytest

from bench.policy import Deciding, Policies, Reloading, rule_files
from bench.policy_report import (
    END,
    START,
    aims,
    read_report,
    render,
    take,
    write_report,
)
from bench.report import write_docs
from broker.policy.parsing import parse_files


def measured(*, p50_us: float = 100.0, stall_ms: float = 5.0, seconds: float = 0.7) -> Policies:
    """Return figures that meet every aim unless something else is said."""
    deciding = [
        Deciding(rules=1, decisions=200, per_second=20_000, p50_us=40, p99_us=60),
        Deciding(rules=10_000, decisions=200, per_second=9_000, p50_us=p50_us, p99_us=150),
    ]
    reloading = Reloading(
        what="one file of rules changed",
        rules=10_000,
        files=21,
        parsed=1,
        seconds=seconds,
        stall_ms=stall_ms,
        p99_ms=1.5,
    )
    replay = {
        "orders": 100_000,
        "certificates": 50_000,
        "rules": 100,
        "seconds": 41.2,
        "per_second": 3640,
    }
    return Policies(deciding=deciding, reloading=[reloading], replays=[replay], idle_stall_ms=0.5)


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All figures of it."""
    report = take(measured(), "smoke", {"penstock": "0.1.0"})
    write_report(report, tmp_path / "build" / "policy.json")
    assert read_report(tmp_path / "build" / "policy.json") == report


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        (measured(), []),
        (measured(p50_us=201), ["a decision among 10000 rules, median"]),
        (measured(stall_ms=51), ["event loop held by a reload"]),
        (measured(seconds=2.1), ["reload, one file of rules changed, 10000 rules"]),
    ],
    ids=["all met", "decision", "stall", "reload"],
)
def test_aims_are_those_of_the_project(figures: Policies, missed: list[str]) -> None:
    """A decision under 200 µs, a reload under 2 s, a loop that is never held."""
    assert [aim.what for aim in aims(figures) if not aim.is_met] == missed


def test_tables_go_between_their_own_marks(tmp_path: Path) -> None:
    """Of the page."""
    text = render(take(measured(), "smoke", {"penstock": "0.1.0"}))
    assert "| 10000 | 9000 | 100 | 150 |" in text
    assert "| one file of rules changed | 10000 | 1 of 21 | 0.70 | 5.0 | 1.5 |" in text
    assert "| 100000 | 50000 | 100 | 41.2 | 3640 |" in text
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{START}\nold\n{END}\n\nafter\n")
    write_docs(text, page, start=START, end=END)
    assert "old" not in page.read_text()
    assert page.read_text().endswith("\n\nafter\n")


def test_rules_that_are_measured_are_rules() -> None:
    """All of them can be read, and each file has its share."""
    files = {name: text.encode() for name, text in rule_files(1_001).items()}
    assert len(files) == 3
    assert parse_files(files).faults == ()
