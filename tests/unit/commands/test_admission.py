"""``penstock admission``: what it starts, and how it fails."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import broker.app.admission
from broker.config.admission import AdmissionConfig
from broker.issuance.errors import Broken
from tests.unit.commands.conftest import Run
from tests.unit.config.test_admission import write


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Leave the process's log as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_it_serves_what_its_file_says(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And ends with it; the broker's own configuration is not looked at."""
    served: list[AdmissionConfig] = []

    async def serve(config: AdmissionConfig) -> None:
        served.append(config)

    monkeypatch.setattr(broker.app.admission, "serve_admission", serve)
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "nothing.yaml"))
    path = write(tmp_path / "admission.yaml")
    assert run("admission", "--config", str(path))[0] == 0
    assert served[0].cluster == "prod"


def test_a_file_with_faults_starts_nothing(run: Run, tmp_path: Path) -> None:
    """Each on a line of its own."""
    path = write(tmp_path / "admission.yaml", cluster="Prod", unknown=1)
    status, out, err = run("admission", "--config", str(path))
    assert (status, out) == (2, "")
    assert err.count(f"{path}:") == 2


def test_what_cannot_start_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one sentence."""

    async def serve(config: AdmissionConfig) -> None:
        raise Broken("cannot listen at 0.0.0.0:9443: address already in use")

    monkeypatch.setattr(broker.app.admission, "serve_admission", serve)
    status, _, err = run("admission", "--config", str(write(tmp_path / "admission.yaml")))
    assert status == 2
    assert "penstock: error: cannot listen at 0.0.0.0:9443" in err


def test_it_is_about_this_machine(run: Run) -> None:
    """Another broker cannot be named for it."""
    status, _, err = run("--server", "https://x:1", "--token", "env:X", "admission")
    assert status == 2
    assert "takes no --server" in err
