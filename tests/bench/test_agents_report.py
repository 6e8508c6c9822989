"""From figures about agents to a report."""

from dataclasses import replace
from pathlib import Path

from bench.agents import Agents
from bench.agents_channel import Held, Return
from bench.agents_memory import Resident
from bench.agents_push import Served, Wave
from bench.agents_report import END, START, aims, read_report, render, take, write_report
from bench.agents_sweep import Swept
from bench.report import write_docs


def measured(*, private_mib: float = 11.5, cpu_ms: float = 205.0) -> Agents:
    """Return figures in which the agent and a sweep over many cost so much."""
    served = Served(
        what="pushed until it is served",
        nodes=2000,
        median_seconds=0.9,
        p99_seconds=1.8,
        longest_seconds=2.1,
    )
    sweeps = [
        Swept(managed=number, due=100, idle_cpu_ms=20, cpu_ms=cpu, rounds=[cpu], window_seconds=20)
        for number, cpu in ((100, 200.0), (100_000, cpu_ms))
    ]
    return Agents(
        resident=[
            Resident(
                name="penstock-agent",
                what="holds its connection",
                resident_mib=22.0,
                private_mib=private_mib,
                cpu_seconds=0.5,
            )
        ],
        held=[
            Held(
                agents=10_000,
                resident_mib=490.0,
                above_rest_mib=375.0,
                kib_each=38.4,
                cpu_percent=3.0,
                simulator_cpu_percent=2.5,
                seconds=60.0,
            )
        ],
        returned=Return(
            agents=2_000, start_seconds=1.5, all_seconds=7.0, half_seconds=2.5, cpu_seconds=9.0
        ),
        one=[served],
        wave=Wave(
            nodes=2000,
            seen_seconds=1.4,
            served_seconds=1.7,
            kept_seconds=6.5,
            broker_cpu_seconds=20.0,
            simulator_cpu_seconds=9.0,
            times=[served],
        ),
        swept=sweeps,
    )


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All figures of it."""
    report = take(measured(), "smoke", {"Vault": "1.21.1"})
    write_report(report, tmp_path / "build" / "agents.json")
    assert read_report(tmp_path / "build" / "agents.json") == report


def test_report_without_some_of_it_is_read_too(tmp_path: Path) -> None:
    """A run without peers has no memory, and one that was cut short no wave."""
    report = take(Agents(), "smoke", {})
    write_report(report, tmp_path / "agents.json")
    assert read_report(tmp_path / "agents.json") == report
    assert render(report)


def test_aims_are_met_and_missed_by_figures() -> None:
    """Each aim has its own figure."""
    met = {aim.what: aim.outcome for aim in aims(measured())}
    assert len(met) == 7
    assert set(met.values()) == {"met"}
    missed = [aim for aim in aims(measured(private_mib=12.5, cpu_ms=400)) if aim.outcome != "met"]
    assert [aim.measured for aim in missed] == [12.5, 100.0]


def test_sweeps_are_compared_round_by_round() -> None:
    """With how sure the difference is; where there is one round, there is none to compare."""
    figures = measured()
    assert "In the same minutes" not in render(take(figures, "smoke", {}))
    figures.swept = [
        replace(one, rounds=rounds)
        for one, rounds in zip(figures.swept, ([300, 400, 200], [310, 440, 210]), strict=True)
    ]
    assert (
        "In the same minutes 100000 took 20 ms more than 100, with a standard error of 10 ms over "
        "3 rounds; the middle one of the differences is 10 ms."
    ) in render(take(figures, "smoke", {}))


def test_tables_go_between_the_marks_of_the_page(tmp_path: Path) -> None:
    """What is around them stays."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{START}\nformer figures\n{END}\nafter\n")
    write_docs(render(take(measured(), "full", {})), page, start=START, end=END)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "former figures" not in text
    assert "| 10000 | 490 | 375 | 38.4 | 3.00 | 2.50 |" in text
