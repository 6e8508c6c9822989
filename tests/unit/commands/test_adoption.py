"""The commands that take over accounts, and move keys."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from broker.commands.adoption import BATCH
from broker.keys.importing import parse_pkcs8, pkcs8_of
from tests.unit.commands.conftest import FakeOperations, Run
from tests.unit.keys.test_importing import P256, pem
from tests.unit.protocol.builders import Authority

ADOPTED: dict[str, Any] = {
    "upstream": "ca",
    "community": "default",
    "url": "https://ca.example/acct/1",
    "key": "vault:transit/penstock.default.ca#1",
    "same_key": False,
    "gave_way": None,
}
MOVED: dict[str, Any] = {
    "upstream": "ca",
    "community": "default",
    "key": "vault:transit/penstock.default.ca#1",
    "old_key": "account-ca@default",
    "old_key_destroyed": False,
    "same_key": False,
}


@pytest.fixture(autouse=True)
def _answers(operations: FakeOperations) -> None:
    """What the broker says."""
    operations.answers |= {
        "upstream_adopt": ADOPTED,
        "upstream_adopt_certificates": [{"cert_id": "aa.bb", "names": ["www.example"]}],
        "upstream_revoke": {"upstream": "ca", "revoked": True},
        "upstream_move_key": [MOVED],
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with an account's key."""
    path = tmp_path / "account.pem"
    path.write_bytes(pem(P256))
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a certificate and what leads to it."""
    path = tmp_path / "fullchain.pem"
    made = Authority.root().pem
    path.write_bytes(b"a comment\n" + made + made)
    return path


def asked(operations: FakeOperations) -> list[tuple[str, dict[str, Any]]]:
    """Return what was asked, without the actor."""
    return [
        (name, {key: value for key, value in given.items() if key != "actor"})
        for name, given in operations.asked
    ]


def test_key_is_read_here_and_handed_over(
    run: Run, operations: FakeOperations, source: Path
) -> None:
    """The broker's user need not be able to read it; the note says where it still lies."""
    status, out, err = run("upstream", "adopt", "ca", str(source), "--json")
    assert status == 0
    ((command, given),) = asked(operations)
    handed = parse_pkcs8(base64.b64decode(given.pop("private_key")))
    assert pkcs8_of(handed) == pkcs8_of(P256)
    assert (command, given) == (
        "upstream_adopt",
        {
            "upstream": "ca",
            "came_from": f"a file: {source}",
            "keep_key": False,
            "import_existing": False,
            "replace": False,
        },
    )
    assert json.loads(out)["certificates"] == 0
    assert f"the key in {source} lies there still and speaks for the account no more" in err


def test_options_are_passed_on(run: Run, operations: FakeOperations, source: Path) -> None:
    """A key that is kept is warned of."""
    operations.answers["upstream_adopt"] = {**ADOPTED, "same_key": True}
    url = "https://ca.example/acct/1"
    options = ["--keep-key", "--replace", "--account-url", url, "--community", "lab"]
    status, _, err = run("upstream", "adopt", "ca", str(source), *options)
    assert status == 0
    ((_, given),) = asked(operations)
    assert (given["keep_key"], given["replace"], given["community"]) == (True, True, "lab")
    assert given["account_url"] == url
    assert "has lived outside" in err


def test_certificates_are_handed_over_in_batches(
    run: Run, operations: FakeOperations, source: Path, certificate: Path
) -> None:
    """A command holds no more, and of each file only the leaf goes."""
    options = [part for _ in range(BATCH + 1) for part in ("--certificate", str(certificate))]
    status, _, _ = run("upstream", "adopt", "ca", str(source), *options)
    assert status == 0
    (_, (name, first), (_, second)) = asked(operations)
    assert name == "upstream_adopt_certificates"
    assert (len(first["certificates"]), len(second["certificates"])) == (BATCH, 1)
    assert first["certificates"][0].count("BEGIN CERTIFICATE") == 1
    assert first["certificates"][0].startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    "content", [b"x", b"-----BEGIN CERTIFICATE-----\nMAA"], ids=["text", "cut"]
)
def test_file_without_a_certificate_stops_everything(
    run: Run, operations: FakeOperations, source: Path, tmp_path: Path, content: bytes
) -> None:
    """Before the account is asked for."""
    path = tmp_path / "none.pem"
    path.write_bytes(content)
    status, _, err = run("upstream", "adopt", "ca", str(source), "--certificate", str(path))
    assert status == 1
    assert "has no certificate in PEM" in err
    assert operations.asked == []


def test_path_without_an_account_is_refused(
    run: Run, operations: FakeOperations, tmp_path: Path
) -> None:
    """Nothing is asked of the broker."""
    status, _, err = run("upstream", "adopt", "ca", str(tmp_path))
    assert status == 1
    assert "is no directory of one account" in err
    assert operations.asked == []


def test_certificates_can_follow_later(
    run: Run, operations: FakeOperations, certificate: Path
) -> None:
    """As those of cert-manager do, which lie in Secrets of their own."""
    status, out, _ = run("upstream", "adopt-certificates", "ca", str(certificate))
    assert status == 0
    assert "aa.bb" in out
    ((name, given),) = asked(operations)
    assert (name, given["upstream"]) == ("upstream_adopt_certificates", "ca")


def test_revocation_hands_the_certificate_over(
    run: Run, operations: FakeOperations, certificate: Path
) -> None:
    """With its reason."""
    status, _, _ = run("upstream", "revoke", "ca", str(certificate), "--code", "4")
    assert status == 0
    ((name, given),) = asked(operations)
    assert (name, given["code"]) == ("upstream_revoke", 4)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ({}, "key 'account-ca@default' speaks for the account no more"),
        ({"same_key": True, "old_key_destroyed": True}, "has lived outside"),
        ({"old_key_destroyed": True}, None),
    ],
    ids=["kept", "same", "destroyed"],
)
def test_move_says_what_is_left(
    run: Run, operations: FakeOperations, answer: dict[str, Any], note: str | None
) -> None:
    """Of the old key."""
    operations.answers["upstream_move_key"] = [{**MOVED, **answer}]
    status, out, err = run("upstream", "move-key", "ca", "--to", "vault:transit")
    assert status == 0
    assert "vault:transit/penstock.default.ca#1" in out
    assert (note in err) if note else (err == "")
    ((name, given),) = asked(operations)
    assert (name, given["to"], given["destroy_old"]) == (
        "upstream_move_key",
        "vault:transit",
        False,
    )


def test_move_without_a_place_is_misused(run: Run, operations: FakeOperations) -> None:
    """Where to is the point of it."""
    status, _, _ = run("upstream", "move-key", "ca")
    assert status == 2
    assert operations.asked == []
