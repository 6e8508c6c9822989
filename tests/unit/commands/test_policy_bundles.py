"""``penstock policy bundle``: made, signed and checked without a broker."""

from pathlib import Path
from typing import Any

import click
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.fakes.policy_folder import policy
from tests.unit.commands.conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with one policy."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "default.yaml").write_bytes(policy())
    return made


def key_file(folder: Path, name: str, key: Any, secret: bytes | None = None) -> Path:
    """Write a private key in PEM."""
    path = folder.parent / f"{name}.pem"
    how = NoEncryption() if secret is None else BestAvailableEncryption(secret)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    return path


def signed(run: Run, folder: Path, name: str, key: Any) -> str:
    """Sign, and return the signer as ``verify`` takes it."""
    path = key_file(folder, name, key)
    status, out, err = run(
        "policy", "bundle", "sign", str(folder), "--key", str(path), "--as", name
    )
    assert status == 0, err
    return f"{name}={out.rpartition('public key: ')[2].strip()}"


def verify(run: Run, folder: Path, *signers: str, needed: int = 1) -> tuple[int, str, str]:
    """Check as a broker would that needs so many of them."""
    named = [word for signer in signers for word in ("--signer", signer)]
    return run("policy", "bundle", "verify", str(folder), *named, "--needed", str(needed))


def test_bundle_is_made_signed_and_verified(run: Run, folder: Path) -> None:
    """By two people with keys of both kinds."""
    status, out, _ = run("policy", "bundle", "make", str(folder), "--version", "7")
    assert status == 0
    assert "version 7, 1 files" in out
    anna = signed(run, folder, "anna", ed25519.Ed25519PrivateKey.generate())
    status, _, err = verify(run, folder, anna, needed=2)
    assert status == 2
    assert "is signed by anna, which is 1 of 2" in err
    ben = signed(run, folder, "ben", ec.generate_private_key(ec.SECP256R1()))
    status, out, _ = verify(run, folder, anna, ben, needed=2)
    assert status == 0
    assert "anna, ben" in out


def test_changed_file_is_neither_signed_nor_taken(run: Run, folder: Path) -> None:
    """Nobody signs what is not there."""
    run("policy", "bundle", "make", str(folder), "--version", "7")
    anna = signed(run, folder, "anna", ed25519.Ed25519PrivateKey.generate())
    (folder / "default.yaml").write_bytes(policy("30d"))
    status, _, err = verify(run, folder, anna)
    assert status == 2
    assert "default.yaml:1: is not as it was signed" in err
    path = str(folder.parent / "anna.pem")
    status, _, err = run("policy", "bundle", "sign", str(folder), "--key", path, "--as", "ben")
    assert status == 2
    assert not (folder / "bundle.ben.sig").exists()


def test_new_manifest_takes_old_signatures_away(run: Run, folder: Path) -> None:
    """They are over another one."""
    run("policy", "bundle", "make", str(folder), "--version", "7")
    signed(run, folder, "anna", ed25519.Ed25519PrivateKey.generate())
    run("policy", "bundle", "make", str(folder), "--version", "8")
    assert not (folder / "bundle.anna.sig").exists()


def test_encrypted_key_is_asked_its_passphrase(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the terminal, never as an argument."""
    run("policy", "bundle", "make", str(folder), "--version", "7")
    path = key_file(folder, "anna", ed25519.Ed25519PrivateKey.generate(), b"a secret")
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "a secret")
    sign = ("policy", "bundle", "sign", str(folder), "--key", str(path), "--as", "anna")
    assert run(*sign)[0] == 0
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "another")
    status, _, err = run(*sign)
    assert status == 1
    assert "or the passphrase is wrong" in err


def test_what_cannot_sign_is_told(run: Run, folder: Path) -> None:
    """A key of another kind, no key, no manifest, a name that is a path."""
    path = key_file(folder, "anna", ec.generate_private_key(ec.SECP384R1()))
    sign = ("policy", "bundle", "sign", str(folder), "--key", str(path), "--as")
    assert "has no bundle.manifest" in run(*sign, "anna")[2]
    run("policy", "bundle", "make", str(folder), "--version", "7")
    assert "of another kind" in run(*sign, "anna")[2]
    path.write_text("no key")
    assert "is no private key in PEM" in run(*sign, "anna")[2]
    key_file(folder, "anna", ed25519.Ed25519PrivateKey.generate())
    assert "is no name of a file" in run(*sign, "../anna")[2]


def test_verify_needs_to_know_whose_signatures_count(run: Run, folder: Path) -> None:
    """By the configuration, which demands none here."""
    run("policy", "bundle", "make", str(folder), "--version", "7")
    status, _, err = run("policy", "bundle", "verify", str(folder))
    assert status == 1
    assert "demands no signed policies" in err
