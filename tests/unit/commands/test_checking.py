"""``penstock check``."""

import json
from pathlib import Path

import pytest

import broker.app
from broker.config import Config, load_config
from broker.config.policies import default_policies, load_policies
from broker.issuance.policy_ports import LoadedPolicies
from tests.unit.app.test_operator_tls import self_signed
from tests.unit.commands.conftest import FakeOperations, Run
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


VAULT = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": {"method": "certificate", "certificate": "/a.crt", "key": "/a.key"},
}


@pytest.mark.parametrize(
    ("kind", "options", "expected", "word"),
    [
        pytest.param("good", (), 0, "", id="good"),
        pytest.param("broken", (), 2, "penstock: error: it is not there", id="broken"),
        pytest.param("unreachable", (), 0, "penstock: warning: it is not there", id="away"),
        pytest.param("unreachable", ("--strict",), 3, "penstock: warning", id="away-strict"),
    ],
)
def test_secrets_in_vault_are_read_by_the_broker(
    run: Run,
    config: Path,
    operations: FakeOperations,
    kind: str,
    options: tuple[str, ...],
    expected: int,
    word: str,
) -> None:
    """What this process could log in with may be good for one login; one that is away is odd."""
    row = {"secret": "vault:kv/keys#pass", "kind": kind, "finding": "it is not there"}
    operations.answers["secret_check"] = [row]
    config.write_text(write({"vault": VAULT, "keys.passphrase": "vault:kv/keys#pass"}))
    status, _, err = run("check", "--secrets", *options)
    assert status == expected
    assert word in err
    assert ("it is not there" in err) == (kind != "good")
    assert [command for command, _ in operations.asked] == ["secret_check"]


def test_broker_is_not_asked_for_what_does_not_lie_in_vault(
    run: Run, config: Path, tmp_path: Path, operations: FakeOperations
) -> None:
    """The check works where no broker runs and none could start."""
    (tmp_path / "key.pass").write_text("correct horse")
    config.write_text(write({"keys.passphrase": f"file:{tmp_path / 'key.pass'}"}))
    assert run("check", "--secrets")[0] == 0
    assert operations.asked == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        pytest.param("barring", 2, id="barring"),
        pytest.param("exposed", 2, id="exposed"),
        pytest.param("origin", 0, id="origin"),
        pytest.param("unseen", 0, id="unseen"),
    ],
)
def test_key_that_must_not_be_so_is_a_fault_online(
    run: Run, operations: FakeOperations, kind: str, status: int
) -> None:
    """What is merely odd is a warning; without --online nobody is asked where no broker runs."""
    row = {"key": "vault:t/k#1", "use": "account at 'ca'", "kind": kind, "finding": "rotates"}
    operations.answers |= {"key_check": [row], "caa_check": []}
    found, _, err = run("check", "--online")
    assert found == status
    assert f"penstock: {'error' if status else 'warning'}: account at 'ca': rotates" in err
    assert run("check", "--online", "--strict")[0] == (status or 3)
    found, out, _ = run("check", "--online", "--json")
    assert json.loads(out)["keys"] == (["account at 'ca': rotates"] if status else [])
    assert run("check")[0] == 0


@pytest.mark.parametrize(
    ("usage", "status"), [(None, 2), (True, 0)], ids=["without-key-usage", "a-CA"]
)
def test_anchors_by_which_nobody_would_come_in_are_a_fault(
    run: Run, config: Path, tmp_path: Path, usage: bool | None, status: int
) -> None:
    """Found before a person is turned away; where they do not lie here, nothing is said."""
    anchors = tmp_path / "people.pem"
    config.write_text(write({"operators": {"anchors": str(anchors)}}))
    assert run("check")[0] == 0
    anchors.write_bytes(self_signed(usage=usage))
    found, _, err = run("check")
    assert found == status
    assert ("'CN=people' has no key usage keyCertSign" in err) == bool(status)


def test_start_goes_on_with_the_kept_policies(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that checks before it starts must not stop what would have started."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "default.yaml").write_text("kind: Policy\n")
    good = load_config(config)
    config.write_text(write({"policies": [str(tmp_path / "policies")]}))

    async def kept(_config: Config) -> LoadedPolicies:
        return load_policies(good)

    async def nothing(_config: Config) -> None:
        return None

    monkeypatch.setattr(broker.app, "kept_policies", kept)
    assert run("check")[0] == 2
    status, out, err = run("check", "--start")
    assert status == 0
    assert "warning: " in err
    assert "default.yaml:1" in err
    assert "goes on with the policies that were in force" in err
    assert "default" in out
    monkeypatch.setattr(broker.app, "kept_policies", nothing)
    assert run("check", "--start")[0] == 2
