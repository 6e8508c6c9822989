"""From figures about a cluster to a report."""

from pathlib import Path

import pytest

from bench.kubernetes import Admitted, AtRest, OnCluster, started
from bench.kubernetes_field import Image
from bench.kubernetes_report import END, START, aims, read_report, render, take, write_report
from bench.kubernetes_resources import Taken, quantity
from bench.kubernetes_upgrade import Upgraded
from bench.report import write_docs


def measured(*, charged_mib: float = 12.1, lost: int = 0, image_mib: float = 1.5) -> OnCluster:
    """Return figures that meet every aim unless something else is said."""
    return OnCluster(
        install_seconds=31.0,
        started=[
            started("ours", 1, [4.9, 5.1, 5.0]),
            started("ours", 100, [20.0] * 98 + [40.0, 60.0]),
        ],
        at_rest=AtRest(
            pods=100,
            charged_mib=charged_mib,
            resident_mib=22.1,
            private_mib=11.1,
            cpu_percent=0.02,
            begun_cpu_seconds=1.1,
        ),
        own=[
            Taken(
                container="broker: broker",
                requested_mib=192.0,
                limit_mib=768.0,
                charged_mib=141.0,
                peak_mib=180.0,
                requested_cpu=0.1,
                cpu_percent=0.8,
            )
        ],
        admitted=[Admitted(what="past the webhook", times=200, median_ms=5.0, p99_ms=9.0)],
        images=[Image(name="penstock-agent", above_base_mib=image_mib, base_mib=130.0)],
        upgraded=Upgraded(
            seconds=21.0,
            clients=4,
            orders=90,
            lost=lost,
            faults=0,
            asked_again=55,
            away_seconds=9.8,
            pause_seconds=11.3,
            rhythm_seconds=0.3,
            pods=20,
            pods_longest_seconds=33.0,
            signed=110,
            signed_twice=0,
        ),
    )


def test_sidecar_of_the_injector_stands_beside_ours(tmp_path: Path) -> None:
    """Only where it was measured; it has no aim."""
    figures = measured()
    assert "Vault's agent |" not in render(take(figures, "smoke", {}))
    theirs = AtRest(
        pods=100,
        charged_mib=30.0,
        resident_mib=90.0,
        private_mib=29.0,
        cpu_percent=0.5,
        begun_cpu_seconds=1.5,
    )
    figures.injector_at_rest = theirs
    text = render(take(figures, "smoke", {}))
    assert "| Penstock | 100 | 12.1 | 22.1 | 11.1 | 0.020 | 1.10 |" in text
    assert "| Vault's agent | 100 | 30.0 | 90.0 | 29.0 | 0.500 | 1.50 |" in text
    assert len(aims(figures)) == len(aims(measured()))
    report = take(figures, "smoke", {})
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All figures of it, and of one that was cut short."""
    for name, figures in (("whole", measured()), ("short", OnCluster(install_seconds=30.0))):
        report = take(figures, "smoke", {"penstock": "0.1.0"})
        write_report(report, tmp_path / f"{name}.json")
        assert read_report(tmp_path / f"{name}.json") == report
        assert render(report)


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        (measured(), []),
        (measured(charged_mib=65), ["a sidecar at rest, of 100, as charged to it"]),
        (measured(lost=1), ["orders lost while the broker is replaced"]),
        (measured(image_mib=61), ["image of the agent above its base"]),
    ],
    ids=["all met", "heavy sidecar", "a lost order", "large image"],
)
def test_aims_tell_what_is_missed(figures: OnCluster, missed: list[str]) -> None:
    """Each by what it is about."""
    assert [aim.what for aim in aims(figures) if not aim.is_met] == missed


def test_times_of_pods_are_told_by_median_and_tail() -> None:
    """Of as many as there were, not of as many as started at once."""
    found = started("ours", 100, [20.0] * 98 + [40.0, 60.0])
    assert (found.times, found.median_seconds) == (100, 20.0)
    assert (found.p99_seconds, found.longest_seconds) == (40.0, 60.0)


def test_report_lands_between_its_marks(tmp_path: Path) -> None:
    """The page has a section of its own for it, and what stands around it stays."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{START}\nof long ago\n{END}\nafter\n", "utf-8")
    text = render(take(measured(), "smoke", {"penstock": "0.1.0"}))
    write_docs(text, page, start=START, end=END)
    whole = page.read_text("utf-8")
    assert whole.startswith("before\n")
    assert whole.endswith("after\n")
    assert "of long ago" not in whole
    assert "| ours | 100 | 100 | 20.0 | 40.0 | 60.0 |" in whole
    assert "| orders lost while the broker is replaced | 0 | 0 | met |" in whole


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0.0), ("2", 2.0), ("5m", 0.005), ("64Mi", 64 * 1024**2), ("1Gi", 1024**3)],
)
def test_quantities_are_kubernetes(text: str, number: float) -> None:
    """With the units that the chart has."""
    assert quantity(text) == number


def test_unknown_unit_is_an_error() -> None:
    """It is not taken for bytes."""
    with pytest.raises(ValueError, match="5X"):
        quantity("5X")
