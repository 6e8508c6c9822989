"""What transit says of a key, and what about it must not be so."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyFaultKind
from broker.keys.transit_key import (
    check_key,
    check_origin,
    check_version,
    parse_signature,
    parse_transit_key,
    pin,
)
from broker.keys.vault_ids import VaultKeyId

KEY = ec.generate_private_key(ec.SECP256R1())
ID = VaultKeyId("transit", "penstock.default.le", 2)


def pem(key: Any) -> str:
    """Return the public half as Vault tells it."""
    octets: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return octets.decode()


def told(**changes: Any) -> dict[str, Any]:
    """Return what Vault 1.21 says of a P-256 key with two versions."""
    return {
        "allow_plaintext_backup": False,
        "auto_rotate_period": 0,
        "deletion_allowed": False,
        "derived": False,
        "exportable": False,
        "imported_key": False,
        "keys": {
            str(version): {"creation_time": "2026-11-22T19:32:12Z", "public_key": pem(KEY)}
            for version in (1, 2)
        },
        "latest_version": 2,
        "min_available_version": 0,
        "min_decryption_version": 1,
        "min_encryption_version": 0,
        "name": "penstock.default.le",
        "type": "ecdsa-p256",
        **changes,
    }


def test_good_key_has_no_fault() -> None:
    """And its public half is pinned."""
    key = parse_transit_key("it", told())
    assert not [*check_version(key, ID), *check_key(key, ID), *check_origin(key, ID)]
    assert pin(key, ID).public_key.public_numbers() == KEY.public_key().public_numbers()
    assert pin(key, ID).hash_name == "sha2-256"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="empty"),
        pytest.param(told(keys=None), id="no-versions"),
        pytest.param(told(keys={"one": {"public_key": "x"}}), id="version-in-words"),
        pytest.param(told(keys={"1": {"public_key": 7}}), id="public-key-a-number"),
        pytest.param(told(latest_version="2"), id="version-a-text"),
        pytest.param(told(latest_version=True), id="version-a-truth"),
        pytest.param(told(min_encryption_version=-1), id="negative"),
        pytest.param(told(type=None), id="no-type"),
    ],
)
def test_answer_of_another_shape_is_a_fault(document: dict[str, Any]) -> None:
    """Nothing is concluded from half of it."""
    with pytest.raises(Broken, match="what Vault says of it is not what transit says of a key"):
        parse_transit_key("it", document)


@pytest.mark.parametrize("name", ["exportable", "allow_plaintext_backup", "deletion_allowed"])
@pytest.mark.parametrize("value", [True, None, "false", 1], ids=repr)
def test_unsure_means_that_it_may_leave(name: str, value: object) -> None:
    """Only a plain no is one."""
    assert check_key(parse_transit_key("it", told(**{name: value})), ID)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"latest_version": 1}, "is not in Vault, whose latest version is 1", id="new"),
        pytest.param({"min_available_version": 3}, "was trimmed away", id="trimmed"),
        pytest.param({"min_decryption_version": 3}, "is archived", id="archived"),
        pytest.param({"min_encryption_version": 3}, "signs no more", id="minimum"),
        pytest.param({"type": "ecdsa-p521"}, "is of type ecdsa-p521, expected", id="type"),
        pytest.param({"derived": True}, "derived, expected", id="derived"),
    ],
)
def test_version_that_cannot_sign_is_told(changes: dict[str, Any], words: str) -> None:
    """With why, and what mends it where anything does."""
    (fault,) = check_version(parse_transit_key("it", told(**changes)), ID)
    assert words in fault.reason
    assert fault.kind is KeyFaultKind.BARRING


@pytest.mark.parametrize("period", [2592000, "720h", "30d", None], ids=repr)
def test_rotation_by_itself_is_a_fault_however_it_is_written(period: object) -> None:
    """Seconds since Vault 1.10, other texts elsewhere."""
    (fault,) = check_key(parse_transit_key("it", told(auto_rotate_period=period)), ID)
    assert "vault write transit/keys/penstock.default.le/config auto_rotate_period=0" in (
        fault.reason
    )


@pytest.mark.parametrize("period", [0, "0", "0s"], ids=repr)
def test_no_rotation_by_itself_is_none(period: object) -> None:
    """However it is written."""
    assert not check_key(parse_transit_key("it", told(auto_rotate_period=period)), ID)


def test_imported_key_is_warned_of() -> None:
    """It bars nothing."""
    (fault,) = check_origin(parse_transit_key("it", told(imported_key=True)), ID)
    assert fault.kind is KeyFaultKind.ORIGIN


@pytest.mark.parametrize(
    ("public_key", "words"),
    [
        pytest.param("no key", "is not PEM", id="nonsense"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.generate()), "neither an EC nor", id="edwards"),
        pytest.param(
            pem(ec.generate_private_key(ec.SECP384R1())),
            "is ecdsa-p384, and Vault says ecdsa-p256",
            id="another-curve",
        ),
    ],
)
def test_public_key_that_does_not_fit_is_not_pinned(public_key: str, words: str) -> None:
    """Something is between us and Vault, or Vault is something else."""
    key = parse_transit_key("it", told(keys={"2": {"public_key": public_key}}))
    with pytest.raises(Broken, match=words):
        pin(key, ID)


def test_missing_public_key_is_not_pinned() -> None:
    """Though the version should be there."""
    with pytest.raises(Broken, match="Vault tells no public key"):
        pin(parse_transit_key("it", told(keys={})), ID)


# ------------------------------------------------------------------------------------- signatures


def signed(data: bytes) -> bytes:
    """Return a signature by the key, in the octets of JWS."""
    r, s = decode_dss_signature(KEY.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def answer(text: object) -> dict[str, object]:
    """Return what Vault answers to a request for a signature."""
    return {"key_version": 2, "signature": text}


def b64(octets: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def test_signature_is_read_and_verified() -> None:
    """Of any length that the alphabet allows."""
    pinned = pin(parse_transit_key("it", told()), ID)
    octets = signed(b"data")
    assert parse_signature(ID, answer(f"vault:v2:{b64(octets)}")) == octets
    assert pinned.verify_signature(octets, b"data") == octets
    for length in (62, 63, 64, 65):
        assert len(parse_signature(ID, answer(f"vault:v2:{b64(bytes(length))}"))) == length


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(f"vault:v1:{b64(bytes(64))}", "signed with version 1, asked was", id="v1"),
        pytest.param(f"vault:v3:{b64(bytes(64))}", "signed with version 3", id="v3"),
        pytest.param(f"vault:v02:{b64(bytes(64))}", "is no signature", id="leading-zero"),
        pytest.param(f"v2:{b64(bytes(64))}", "is no signature", id="no-scheme"),
        pytest.param(b64(bytes(64)), "is no signature", id="bare"),
        pytest.param("vault:v2:", "is no signature", id="empty"),
        pytest.param("vault:v2:AA+/", "is no signature", id="standard-alphabet"),
        pytest.param("vault:v2:AAAA=", "is no signature", id="padded"),
        pytest.param("vault:v2:AAAAA", "is no signature", id="impossible-length"),
        pytest.param("vault:v2:AAAA\n", "is no signature", id="line-end"),
        pytest.param(None, "is no signature", id="none"),
    ],
)
def test_anything_else_is_no_signature(text: object, words: str) -> None:
    """Another version's is the one that a CA would refuse."""
    with pytest.raises(Broken, match=words):
        parse_signature(ID, answer(text))


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        pytest.param(signed(b"date"), "does not verify under the key that was pinned", id="data"),
        pytest.param(signed(b"data") + b"\0", "has 65 bytes, expected 64", id="long"),
        pytest.param(signed(b"data")[:-1], "has 63 bytes, expected 64", id="short"),
        pytest.param(bytes(64), "does not verify", id="zeros"),
    ],
)
def test_wrong_signature_is_found_before_a_ca_sees_it(signature: bytes, words: str) -> None:
    """A CA would refuse it, and that would be the end of the order."""
    with pytest.raises(Broken, match=words):
        pin(parse_transit_key("it", told()), ID).verify_signature(signature, b"data")


def test_rsa_signature_is_pkcs1_and_not_pss() -> None:
    """PSS is what Vault makes unless told otherwise."""
    key = rsa.generate_private_key(65537, 2048)
    document = told(type="rsa-2048", keys={"2": {"public_key": pem(key)}})
    pinned = pin(parse_transit_key("it", document), ID)
    assert pinned.is_rsa
    good = key.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert pinned.verify_signature(good, b"data") == good
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    with pytest.raises(Broken, match="does not verify"):
        pinned.verify_signature(key.sign(b"data", pss, hashes.SHA256()), b"data")
