"""The command itself: it measures real servers and writes its report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.policy_report import read_report as read_policy_report
from bench.report import ROOT, read_report
from bench.vault import VAULT
from bench.vault_report import read_report as read_vault_report
from tests.peers.installation import CACHE
from tests.peers.process import clean_environment

SECONDS = 120
"""Longest smoke run; on two idle cores it needs about 25 s, beside other work twice that."""

pytestmark = [pytest.mark.peers, pytest.mark.e2e, pytest.mark.timeout(SECONDS + 30)]


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command for seconds."""
    # The generator is built once and kept where the peers are.
    kept = {"PENSTOCK_CACHE": str(CACHE), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run"), "--smoke", *arguments],
        env=clean_environment(home, kept),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_smoke_run_completes_with_no_error(tmp_path: Path) -> None:
    """A few orders from each server of ours: every one succeeds, and the report says so."""
    report = tmp_path / "report.json"
    done = run(tmp_path, "--report", str(report))
    assert done.returncode == 0, done.stderr
    measured = read_report(report).measured
    assert measured.cells
    assert [cell.faults for cell in measured.cells if cell.errors] == []
    assert set(measured.store_cpu_ms) == {"empty", "full"}
    assert "### All cells" in done.stdout


def test_keys_in_vault_are_measured_beside_files(tmp_path: Path) -> None:
    """Signatures and orders by both; connections to Vault are kept, however much is signed."""
    report = tmp_path / "vault.json"
    done = run(tmp_path, "--only", "vault", "--report", str(report))
    assert done.returncode == 0, done.stderr
    keys = read_vault_report(report).keys
    assert [cell.faults for cell in keys.cells if cell.errors] == []
    assert len({cell.scene for cell in keys.cells}) == 4
    in_vault = [each for each in keys.signing if each.keeper == VAULT]
    # One more than signs at once: hvac, which made the key, has its own.
    assert all(each.connections <= each.concurrency + 1 for each in in_vault)
    assert all(each.signatures > each.connections for each in in_vault)
    assert all(count > 0 for count in keys.signatures.values())
    assert "### What Vault adds to an order" in done.stdout


def test_policies_are_measured(tmp_path: Path) -> None:
    """Decisions, reloads beside a loop, and a replay of orders."""
    report = tmp_path / "policy.json"
    done = run(tmp_path, "--only", "policy", "--report", str(report))
    assert done.returncode == 0, done.stderr
    policies = read_policy_report(report).policies
    assert [each.rules for each in policies.deciding] == [1, 1_000]
    assert {each.parsed for each in policies.reloading} == {1, 3}
    assert [each["orders"] for each in policies.replays] == [300]
    assert "### Aims of policies" in done.stdout
