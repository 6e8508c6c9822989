"""The faults of a soak: what could not be mended is told, however it failed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
from typing import Any

import pytest

from tests.peers.process import PeerFailed
from tests.soak.faults import Fault, Faults


def begun(harm: Any) -> tuple[Faults, list[str]]:
    """Do harm to a scene that there is not; return what came of it, and what was told."""
    told: list[str] = []
    scene: Any = None
    faults = Faults(scene, random.Random(1), told.append)
    faults._begin("pebble", harm)
    for thread in faults._threads:
        thread.join()
    return faults, told


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PeerFailed("it did not start"), id="peer"),
        pytest.param(ConnectionResetError("reset"), id="os"),
        pytest.param(sqlite3.OperationalError("unable to open database file"), id="store"),
        pytest.param(subprocess.TimeoutExpired(["penstock"], 60.0), id="command"),
        pytest.param(ValueError("no JSON"), id="answer"),
    ],
)
def test_harm_that_is_not_mended_is_told(error: Exception) -> None:
    """It is among what is broken, for which the run fails, and not among what was mended."""

    def harm() -> Fault:
        raise error

    faults, told = begun(harm)
    assert faults.broken == [f"pebble: {error}"]
    assert told == [f"NOT MENDED pebble: {error}"]
    assert faults.done == []


def test_harm_that_is_mended_is_done() -> None:
    """And nothing is broken."""
    fault = Fault(0.0, "kill -9 pebble", 1.0)
    faults, told = begun(lambda: fault)
    assert (faults.done, faults.broken) == ([fault], [])
    assert told == ["kill -9 pebble, away 1.0 s"]
