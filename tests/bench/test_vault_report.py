"""From figures about keys in Vault to a report."""

from pathlib import Path

import pytest

from bench.figures import Cell
from bench.report import write_docs
from bench.vault import FILE, VAULT, Keys, Signing, place, scene_name
from bench.vault_report import END, START, aims, ratio_of, read_report, render, take, write_report


def cell(where: str, concurrency: int, p50_ms: float, *, errors: int = 0) -> Cell:
    """Return a cell of orders that were granted."""
    behind = {"Penstock as the CA": 7.5} | ({"Vault": 1.9} if where == VAULT else {})
    return Cell(
        scene=scene_name(where, is_granted=True),
        concurrency=concurrency,
        orders=10,
        errors=errors,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        orders_per_second=50.0,
        cpu_ms=10.0,
        behind_cpu_ms=behind,
        generator_cpu_ms=1.0,
        resident_mib=110.0,
        requests=4.0,
        polls=0.0,
    )


def measured(*, slow: float = 120.0) -> Keys:
    """Return figures in which an order with its key in Vault takes *slow* milliseconds."""
    signing = Signing(
        keeper=VAULT,
        concurrency=8,
        signatures=100,
        per_second=1400.0,
        p50_ms=5.0,
        p99_ms=12.0,
        cpu_ms=0.4,
        vault_cpu_ms=0.25,
        connections=9,
    )
    at = place(scene_name(VAULT, is_granted=True), 8)
    return Keys(
        signing=[signing],
        cells=[cell(FILE, 8, 100.0), cell(VAULT, 8, slow)],
        signing_ms={at: 12.0},
        signatures={at: 3.0},
    )


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All figures of it."""
    report = take(measured(), "smoke", {"Vault": "1.21.1"})
    write_report(report, tmp_path / "build" / "vault.json")
    assert read_report(tmp_path / "build" / "vault.json") == report


@pytest.mark.parametrize(("slow", "is_met"), [(130.0, True), (131.0, False)])
def test_aim_is_a_median_of_at_most_a_third_more(slow: float, is_met: bool) -> None:
    """Under eight clients."""
    keys = measured(slow=slow)
    assert ratio_of(keys, 8, is_granted=True) == pytest.approx(slow / 100)
    assert ratio_of(keys, 8, is_granted=False) is None
    latency, errors = aims(keys)
    assert latency.is_met is is_met
    assert errors.is_met


def test_errors_miss_their_aim() -> None:
    """Whoever made them."""
    keys = measured()
    keys.cells.append(cell(FILE, 32, 300.0, errors=2))
    assert [aim.what for aim in aims(keys) if not aim.is_met] == ["errors"]


def test_tables_tell_signatures_share_and_processor_time_apart(tmp_path: Path) -> None:
    """And go between their own marks of the page."""
    text = render(take(measured(), "smoke", {"Vault": "1.21.1"}))
    assert "| key in Vault | 8 | 1400 | 5.00 | 12.00 | 0.400 | 0.250 | 9 |" in text
    assert "| key in Vault, granted | 8 | 3.0 | 12.0 | 10 % | 1.20 |" in text
    assert "Penstock as the CA 7.5, Vault 1.9" in text
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{START}\nold\n{END}\n\nafter\n")
    write_docs(text, page, start=START, end=END)
    assert "old" not in page.read_text()
    assert page.read_text().endswith("\n\nafter\n")
