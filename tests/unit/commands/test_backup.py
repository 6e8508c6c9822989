"""``penstock reconcile`` and the commands around backups, as far as they are words."""

import json
from pathlib import Path

import pytest

from tests.unit.commands.conftest import FakeOperations, Run
from tests.unit.config.conftest import write

REPORT = {
    "reconciled": True,
    "in_the_way": [],
    "upstreams": [
        {
            "upstream": "ca",
            "community": "default",
            "listed": 3,
            "known": 2,
            "going_on": [],
            "recovered": [],
            "unknown_count": 1,
            "unknown": [{"names": ["a.example"], "status": "valid", "order_url": "https://ca/1"}],
            "losses": [],
        }
    ],
    "cannot_be_known": ["what came after 2026-03-01"],
}


def test_report_is_printed(run: Run, operations: FakeOperations) -> None:
    """Orders that only the CA knows by name, and what nobody can know."""
    operations.answers["reconcile"] = REPORT
    status, out, _ = run("reconcile")
    assert status == 0
    assert "ca for default: 3 listed, 2 known" in out
    assert "unknown: a.example (valid) https://ca/1" in out
    assert "cannot be known: what came after" in out


def test_loss_is_a_status_of_its_own(run: Run, operations: FakeOperations) -> None:
    """The hint is the command that accepts it."""
    loss = {"upstream": "ca", "community": "default", "what": "offers no list"}
    operations.answers["reconcile"] = {**REPORT, "reconciled": False, "in_the_way": [loss]}
    status, _, err = run("reconcile")
    assert status == 3
    assert "penstock reconcile --accept-loss ca" in err


def test_losses_are_accepted_by_name(run: Run, operations: FakeOperations) -> None:
    """Each with the reason that is kept."""
    operations.answers["reconcile"] = REPORT
    status, out, _ = run("reconcile", "--accept-loss", "ca", "--reason", "gone", "--json")
    assert status == 0
    assert json.loads(out) == REPORT
    command, given = operations.asked[-1]
    assert (command, given["accept_loss"]) == ("reconcile", ["ca"])
    assert given["actor"].reason == "gone"


@pytest.mark.parametrize(
    "arguments", [("backup", "verify"), ("restore",)], ids=lambda value: " ".join(value)
)
def test_file_has_to_be_named(run: Run, arguments: tuple[str, ...]) -> None:
    """There is no default for it."""
    status, _, err = run(*arguments)
    assert status == 2
    assert "FILE" in err


APPROLE = {
    "method": "approle",
    "role_id": "file:/etc/penstock/role-id",
    "secret_id": "file:/run/secret-id",
}


def test_login_that_is_the_brokers_is_not_used_up(run: Run, config: Path, tmp_path: Path) -> None:
    """The passphrase is then given by whoever makes the backup, and not by typing it."""
    vault = {"addresses": ["https://vault.corp.example:8200"], "serve": APPROLE}
    config.write_text(write({"vault": vault, "keys.passphrase": "vault:kv/keys#pass"}))
    file = tmp_path / "one.backup"
    file.write_bytes(b"no backup")
    status, _, err = run("backup", "verify", str(file))
    assert status == 1
    assert "good for one login, which is the broker's" in err
    assert "--passphrase env:NAME" in err
    (tmp_path / "pass").write_text("correct horse battery")
    given = f"file:{tmp_path / 'pass'}"
    status, _, err = run("backup", "verify", str(file), "--passphrase", given)
    assert status == 1
    assert "is no backup of Penstock" in err


def test_passphrase_is_not_typed(run: Run, config: Path, tmp_path: Path) -> None:
    """On a command line everybody sees it; what was typed is not repeated."""
    config.write_text(write({}))
    file = tmp_path / "one.backup"
    file.write_bytes(b"no backup")
    status, out, err = run("backup", "verify", str(file), "--passphrase", "hunter2")
    assert status == 2
    assert "file:/PATH" in err
    assert "hunter2" not in out + err
