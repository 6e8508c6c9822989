"""A report survives its file, and its tables say what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.report import (
    END,
    START,
    Report,
    added_ms,
    aims,
    read_report,
    render,
    write_docs,
    write_report,
)
from bench.scenarios import Measured
from tests.bench.test_figures import CELL


def measured() -> Measured:
    """Return figures in which every aim but two is met."""
    return Measured(
        cells=[
            replace(CELL, concurrency=1, cpu_ms=3.0),
            replace(CELL, concurrency=32, cpu_ms=4.5),
            replace(CELL, scene="step-ca", concurrency=1, cpu_ms=9.0, errors=3),
            replace(CELL, scene="tunnel", concurrency=32, cpu_ms=5.0, errors=1),
            replace(CELL, scene="tunnel, granted", concurrency=1, p50_ms=14.0),
            replace(CELL, scene="the CA itself, granted", concurrency=1, p50_ms=9.0),
        ],
        rest_mib={"built-in CA": 80.0},
        worked_mib={"built-in CA": 90.0},
        store_cpu_ms={"empty": 4.0, "full": 4.1},
    )


def report(figures: Measured) -> Report:
    """Return a report of a machine that is nowhere."""
    return Report(
        taken_at="2026-01-02T03:04+00:00",
        effort="full",
        commit="0000000",
        machine={"processors": "2 × Any"},
        versions={"penstock": "0"},
        measured=figures,
    )


def test_report_comes_back_from_its_file(tmp_path: Path) -> None:
    """What is read is what was written."""
    written = report(measured())
    write_report(written, tmp_path / "deep" / "report.json")
    assert read_report(tmp_path / "deep" / "report.json") == written


def test_aims_name_what_is_met_and_what_is_missed() -> None:
    """The worst cell counts, and the errors of others do not."""
    outcomes = {aim.what: aim.outcome for aim in aims(measured())}
    assert outcomes == {
        "an order through the tunnel, worst cell": "met",
        "an order with the built-in CA, worst cell": "missed by 0.5 ms CPU",
        "more on a full store": "met",
        "median latency that the tunnel adds, 1 client": "met",
        "errors of Penstock, 32 clients": "missed by 1.0",
    }


def test_aims_that_were_not_measured_are_not_listed() -> None:
    """No cell, no aim, and nothing added by a tunnel that was not there."""
    assert list(aims(Measured())) == []
    assert added_ms(Measured(), 1) is None


def test_tables_show_ratios_and_the_day_before() -> None:
    """step-ca takes three times as much; before it was twice of now."""
    now = report(measured())
    before = report(Measured(cells=[replace(CELL, concurrency=1, cpu_ms=6.0)]))
    text = render(now, before)
    assert "| built-in CA to step-ca | 1 | 3.00 | 1.00 | 1.00 |" in text
    assert "| built-in CA | 1 | 6.0 | 3.0 | 10.0 | 10.0 |" in text
    assert "Before and after" not in render(now, None)


def test_figures_are_written_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    """Writing twice is writing once; a page without marks is left alone."""
    page = tmp_path / "page.md"
    page.write_text(f"prose\n{START}\nold\n{END}\nmore prose\n")
    for _ in range(2):
        write_docs("new", page)
    assert page.read_text() == f"prose\n{START}\n\nnew\n\n{END}\nmore prose\n"
    page.write_text("prose\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_docs("new", page)
    assert page.read_text() == "prose\n"
