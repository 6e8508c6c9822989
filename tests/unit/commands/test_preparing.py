"""``penstock prepare``: what it prints, and how it fails."""

import json
from pathlib import Path

import pytest

from broker.app.kept_config import KeptConfig, begin_with
from broker.storage.lock import StoreLock
from tests.unit.commands.conftest import Run
from tests.unit.commands.test_serving import restored_log
from tests.unit.config.conftest import write

__all__ = ["restored_log"]


@pytest.fixture
def ready(config: Path, tmp_path: Path) -> None:
    """A configuration whose passphrase can be read."""
    passphrase = tmp_path / "key.pass"
    passphrase.write_text("a passphrase that is long enough")
    state = tmp_path / "state"
    config.write_text(write({"state": str(state), "keys.passphrase": f"file:{passphrase}"}))


def test_made_cas_are_told(ready: None, run: Run) -> None:
    """The first time; the second there is nothing to tell."""
    status, out, _ = run("prepare", "--make-ca", "local=corp.example", "--reason", "first start")
    assert (status, out) == (0, "built-in CA 'local' made\n")
    status, out, _ = run("prepare", "--make-ca", "local=corp.example", "--json")
    assert (status, json.loads(out)) == (0, {"made": []})


@pytest.mark.parametrize("wish", ["", "=a.example", "local=", "local=a.example,"])
def test_half_a_wish_is_refused(ready: None, run: Run, wish: str) -> None:
    """With status 2: an empty list would let the CA certify what nobody meant."""
    status, _, err = run("prepare", "--make-ca", wish)
    assert status == 2
    assert "is not of the form NAME or NAME=SUFFIX,SUFFIX" in err


def test_ca_that_is_not_configured_is_told(ready: None, run: Run) -> None:
    """Also where everything else is there."""
    assert run("prepare", "--make-ca", "local=corp.example")[0] == 0
    status, _, err = run("prepare", "--make-ca", "local", "--make-ca", "locla")
    assert status == 2
    assert "no upstream of kind built-in is called 'locla'" in err


def test_nothing_to_do_is_seen_without_a_broker(
    ready: None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every start but the first of a version: nobody is served until it is known."""
    assert run("prepare", "--make-ca", "local=corp.example")[0] == 0

    def refuse(*_: object) -> None:
        pytest.fail("a whole broker was put together")

    monkeypatch.setattr("broker.commands.preparing._prepare", refuse)
    assert run("prepare", "--make-ca", "local=corp.example") == (0, "", "")
    assert run("prepare") == (0, "", "")


def test_store_in_use_is_told(ready: None, run: Run, tmp_path: Path) -> None:
    """With who has it, and status 1."""
    assert run("prepare")[0] == 0
    lock = StoreLock.take(tmp_path / "state" / "penstock.db")
    status, _, err = run("prepare")
    lock.release()
    assert status == 1
    assert "is in use by process" in err
    assert "stop the broker first" in err


def test_what_served_last_is_prepared_beside_a_broken_file(
    ready: None, run: Run, config: Path, tmp_path: Path
) -> None:
    """Else no pod would start for a mistake that the broker lives with; without it, status 2."""
    kept = begin_with(config).reading
    path = tmp_path / "last-good.json"
    config.write_text("a: [")
    assert run("prepare", "--last-good", str(path))[0] == 2
    KeptConfig(path).write(kept, kept)
    status, out, err = run("prepare", "--last-good", str(path), "--make-ca", "local=corp.example")
    assert (status, out) == (0, "built-in CA 'local' made\n")
    assert "is no use, what served last is: " in err
    assert "is not YAML" in err
    assert run("prepare")[0] == 2
