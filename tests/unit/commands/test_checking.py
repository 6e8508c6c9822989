"""``penstock check``."""

import json
from pathlib import Path

import pytest

from broker.config.policies import default_policies
from tests.unit.commands.conftest import Run
from tests.unit.config.conftest import write


def test_good_files_are_listed_with_their_hash(run: Run) -> None:
    """What is in force can be compared with what was reviewed."""
    status, out, err = run("check")
    assert status == 0
    assert "default.yaml" in out
    assert err == ""
    assert run("check", "--strict")[0] == 0


def test_odd_is_wrong_under_strict(run: Run, config: Path, tmp_path: Path) -> None:
    """Exit status 3 tells it from faults."""
    shipped = default_policies()
    (tmp_path / "policies").mkdir()
    for path in (shipped / "default.yaml", shipped / "communities" / "web.yaml"):
        (tmp_path / "policies" / path.name).write_bytes(path.read_bytes())
    config.write_text(write({"policies": [str(tmp_path / "policies")]}))
    status, _, err = run("check")
    assert status == 0
    assert "web.yaml: its community is not configured" in err
    assert run("check", "--strict")[0] == 3


def test_every_fault_is_told_with_its_line(run: Run, config: Path) -> None:
    """All at once, and nothing on standard output."""
    config.write_text(write({"limits.body": 5, "log.level": "loud"}))
    status, out, err = run("check")
    assert (status, out) == (2, "")
    assert err.count(f"{config}:") == 2
    assert "penstock: error: 2 faults in the configuration" in err


def test_faults_come_as_json_too(run: Run, config: Path) -> None:
    """For editors and pipelines."""
    config.write_text(write({"limits.body": 5}))
    status, out, _ = run("check", "--json")
    assert status == 2
    (fault,) = json.loads(out)["faults"]
    assert fault["path"] == "limits.body"
    assert fault["line"] > 1


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "missing"])
def test_secrets_are_read_when_asked(
    run: Run, config: Path, tmp_path: Path, is_there: bool
) -> None:
    """A reference that leads nowhere is found before the start."""
    secret = tmp_path / "key.pass"
    if is_there:
        secret.write_text("correct horse")
    config.write_text(write({"keys.passphrase": f"file:{secret}"}))
    assert run("check")[0] == 0
    status, out, err = run("check", "--secrets")
    assert status == (0 if is_there else 2)
    assert "correct horse" not in out + err
