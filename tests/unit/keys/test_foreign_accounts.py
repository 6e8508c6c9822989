"""Where other clients keep accounts, as they really do."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.issuance.errors import Broken
from broker.keys.foreign_accounts import read_foreign_account
from broker.keys.importing import pkcs8_of
from tests.unit.keys.test_importing import P256, RSA, as_json, pem, rsa_jwk

URL = "https://ca.example/acct/1"


@pytest.fixture
def certbot(tmp_path: Path) -> Path:
    """The directory of an account of certbot, as `certbot 5` leaves it."""
    account = tmp_path / "accounts" / "ca.example" / "directory" / "0123456789abcdef"
    account.mkdir(parents=True)
    (account / "private_key.json").write_bytes(as_json(rsa_jwk(RSA)))
    (account / "regr.json").write_text(json.dumps({"body": {}, "uri": URL}))
    (account / "meta.json").write_text("{}")
    renewal = tmp_path / "renewal"
    renewal.mkdir()
    for name, owner in (("a.example", account.name), ("b.example", "another")):
        (renewal / f"{name}.conf").write_text(
            f"version = 5.8.0\narchive_dir = /a/{name}\ncert = /live/{name}/cert.pem\n"
            f"[renewalparams]\naccount = {owner}\nserver = https://ca.example/directory\n"
        )
    return account


@pytest.fixture
def lego(tmp_path: Path) -> Path:
    """The directory of an account of lego."""
    account = tmp_path / "accounts" / "ca.example" / "a@b.example"
    (account / "keys").mkdir(parents=True)
    key = P256.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (account / "keys" / "a@b.example.key").write_bytes(key)
    registration = {"body": {"status": "valid"}, "uri": URL}
    (account / "account.json").write_text(json.dumps({"registration": registration}))
    return account


def test_certbot_tells_all(certbot: Path) -> None:
    """Key, URL, and which certificates it renews with this account and no other."""
    found = read_foreign_account(certbot)
    assert pkcs8_of(found.key) == pkcs8_of(RSA)
    assert (found.url, found.kept_by) == (URL, "certbot")
    assert found.key_file == certbot / "private_key.json"
    assert found.certificates == (Path("/live/a.example/cert.pem"),)


def test_certbot_directory_that_was_copied_elsewhere(certbot: Path, tmp_path: Path) -> None:
    """Without the rest of certbot there are no certificates to be found."""
    moved = certbot.rename(tmp_path / "copied")
    found = read_foreign_account(moved)
    assert (found.url, found.certificates) == (URL, ())


def test_account_without_its_registration_has_no_url(certbot: Path) -> None:
    """The CA is asked then."""
    (certbot / "regr.json").unlink()
    assert read_foreign_account(certbot).url is None


def test_lego_tells_key_and_url(lego: Path) -> None:
    """As lego 4 leaves it."""
    found = read_foreign_account(lego)
    assert pkcs8_of(found.key) == pkcs8_of(P256)
    assert (found.url, found.kept_by) == (URL, "lego")


def test_file_has_a_key_and_no_url(tmp_path: Path) -> None:
    """A key is all that it is."""
    path = tmp_path / "account.pem"
    path.write_bytes(pem(P256))
    found = read_foreign_account(path)
    assert (found.key_file, found.url, found.certificates) == (path, None, ())
    assert pkcs8_of(found.key) == pkcs8_of(P256)
    assert "PrivateKey" not in repr(found)


def test_configuration_directory_of_certbot_names_its_accounts(
    certbot: Path, tmp_path: Path
) -> None:
    """Nobody has to know how certbot names its directories."""
    with pytest.raises(
        Broken, match=f"is no directory of one account, expected one such as {certbot}"
    ):
        read_foreign_account(tmp_path)
    with pytest.raises(Broken, match=str(certbot)):
        read_foreign_account(tmp_path / "accounts")


def test_faults_name_the_file(certbot: Path, lego: Path, tmp_path: Path) -> None:
    """Each with what is wrong with it."""
    wrong = tmp_path / "p521.pem"
    wrong.write_bytes(pem(ec.generate_private_key(ec.SECP521R1())))
    with pytest.raises(Broken, match=r"p521\.pem holds a key on secp521r1"):
        read_foreign_account(wrong)
    with pytest.raises(Broken, match=r"missing\.pem cannot be read: no such file"):
        read_foreign_account(tmp_path / "missing.pem")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Broken, match=r"empty is no directory of one account, expected certbot's"):
        read_foreign_account(empty)
    (certbot / "regr.json").write_text("{")
    with pytest.raises(Broken, match=r"regr\.json is no JSON"):
        read_foreign_account(certbot)
    (lego / "keys" / "second.key").write_text("x")
    with pytest.raises(Broken, match="has 2 keys"):
        read_foreign_account(lego)


def test_pipe_in_place_of_a_key_holds_nobody(tmp_path: Path) -> None:
    """It is refused instead of waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Broken, match="not a regular file"):
        read_foreign_account(tmp_path / "pipe")
