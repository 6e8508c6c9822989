"""The command itself: it measures real servers and writes its report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import ROOT, read_report
from tests.peers.installation import CACHE
from tests.peers.process import clean_environment

SECONDS = 120
"""Longest smoke run; on two idle cores it needs about 25 s, beside other work twice that."""

pytestmark = [pytest.mark.peers, pytest.mark.e2e, pytest.mark.timeout(SECONDS + 30)]


def test_smoke_run_completes_with_no_error(tmp_path: Path) -> None:
    """A few orders from each server of ours: every one succeeds, and the report says so."""
    report = tmp_path / "report.json"
    # The generator is built once and kept where the peers are.
    kept = {"PENSTOCK_CACHE": str(CACHE), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run"), "--smoke", "--report", str(report)],
        env=clean_environment(tmp_path, kept),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = read_report(report).measured
    assert measured.cells
    assert [cell.faults for cell in measured.cells if cell.errors] == []
    assert set(measured.store_cpu_ms) == {"empty", "full"}
    assert "### All cells" in done.stdout
