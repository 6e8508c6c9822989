"""``penstock policy status``, ``reload`` and ``history``."""

import json
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Unreachable
from tests.unit.commands.conftest import FakeOperations, Run

IN_FORCE: dict[str, Any] = {
    "in_force": {"sha256": "ab12" * 16, "since": "2026-03-01T12:00:00Z", "version": 7},
    "policies": {"default": {"file": "default.yaml", "sha256": "cd34"}},
    "refused": None,
}

REFUSED = {
    **IN_FORCE,
    "refused": {
        "sha256": "ef56",
        "since": "2026-03-01T13:00:00Z",
        "is_tried_again": False,
        "faults": ["default.yaml:3: cap: is zero", "default.yaml:9: names: is missing"],
    },
}


def test_status_of_what_is_in_force(run: Run, operations: FakeOperations) -> None:
    """Exit status 0."""
    operations.answers["policy_status"] = IN_FORCE
    status, out, _ = run("policy", "status")
    assert status == 0
    assert "ab12ab12" in out
    assert "version: 7" in out


@pytest.mark.parametrize(
    ("is_kept", "says"),
    [(False, "taken from: the files\n"), (True, "taken from: the store, since the files were")],
    ids=["files", "kept"],
)
def test_status_tells_where_the_set_is_from(
    run: Run, operations: FakeOperations, is_kept: bool, says: str
) -> None:
    """In words; JSON has the member as the broker calls it."""
    given = {**IN_FORCE, "in_force": {"since": "2026", "is_kept_set": is_kept, "sha256": "ab"}}
    operations.answers["policy_status"] = given
    out = run("policy", "status")[1]
    assert says in out
    assert "kept set" not in out
    assert json.loads(run("policy", "status", "--json")[1]) == given


def test_status_of_refused_files(run: Run, operations: FakeOperations) -> None:
    """Every fault, and what stays in force; exit status 1."""
    operations.answers["policy_status"] = REFUSED
    status, out, err = run("policy", "status")
    assert status == 1
    assert "ab12ab12" in out
    assert "default.yaml:3: cap: is zero\n" in err
    assert "refused for 2 faults; those of 2026-03-01T12:00:00Z stay in force" in err
    assert "mend them: they are read again by themselves" in err
    status, out, _ = run("policy", "status", "--json")
    assert status == 1
    assert json.loads(out) == REFUSED


def test_reload_says_who_and_why(run: Run, operations: FakeOperations) -> None:
    """The reason enters the history."""
    operations.answers["policy_reload"] = {"changed": True, **IN_FORCE}
    status, out, _ = run("policy", "reload", "--reason", "ticket 7")
    assert status == 0
    assert "changed:" in out
    assert operations.asked[0][0] == "policy_reload"


def test_reload_of_files_that_go_on_changing_fails(run: Run, operations: FakeOperations) -> None:
    """Nobody is told that they are in force."""
    operations.error = Unreachable("policy files are being changed")
    status, out, err = run("policy", "reload")
    assert (status, out) == (1, "")
    assert "penstock: error: policy files are being changed" in err
    assert "try again" in err


def test_history_is_a_table(run: Run, operations: FakeOperations) -> None:
    """The first fault of a refused set stands in it."""
    row = {
        "outcome": "refused",
        "sha256": "ab12" * 16,
        "at": "2026-03-01T12:00:00Z",
        "by": "system",
        "reason": None,
        "version": None,
        "signers": [],
        "faults": ["default.yaml:3: cap: is zero", "another"],
    }
    operations.answers["policy_history"] = [row]
    status, out, _ = run("policy", "history")
    assert status == 0
    assert "cap: is zero (and 1 more)" in out
    assert json.loads(run("policy", "history", "--json")[1]) == [row]


def test_earlier_set_is_written_out(run: Run, operations: FakeOperations, tmp_path: Path) -> None:
    """Octet for octet, into a directory of its own."""
    operations.answers["policy_set"] = {
        "sha256": "ab12" * 16,
        "texts": {"default.yaml": "a: 1\n", "communities/web.yaml": "b: ä\n"},
        "bundle": {"bundle.anna.sig": "/w=="},
    }
    target = tmp_path / "was"
    status, out, _ = run("policy", "history", "--export", "ab12ab12", str(target))
    assert status == 0
    assert "3 files" in out
    assert (target / "communities" / "web.yaml").read_text("utf-8") == "b: ä\n"
    assert (target / "bundle.anna.sig").read_bytes() == b"\xff"
    status, _, err = run("policy", "history", "--export", "ab12ab12", str(target))
    assert status == 1
    assert "is there already" in err


@pytest.mark.parametrize("name", ["../outside.yaml", "communities/../../outside.yaml", "/outside"])
def test_set_is_not_written_out_of_its_directory(
    run: Run, operations: FakeOperations, tmp_path: Path, name: str
) -> None:
    """Whatever a broker elsewhere calls its files."""
    operations.answers["policy_set"] = {"sha256": "ab12" * 16, "texts": {name: "x"}, "bundle": {}}
    status, _, err = run("policy", "history", "--export", "ab12ab12", str(tmp_path / "was"))
    assert status == 1
    assert "is not written" in err
    assert not list(tmp_path.rglob("outside*"))
