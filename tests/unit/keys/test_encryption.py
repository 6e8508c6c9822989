"""Private keys at rest."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.keys.encryption import (
    PrivateKey,
    decrypt_private_key,
    encrypt_private_key,
    wrap_private_key,
)

PASSPHRASE = b"correct horse battery"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="ec-p256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="ec-p384"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa-2048"),
    ],
)
def test_what_is_encrypted_is_decrypted(key: PrivateKey) -> None:
    """The library reads the container that is written here."""
    pem = encrypt_private_key(key, PASSPHRASE)
    again = decrypt_private_key(pem, PASSPHRASE)
    assert again.private_numbers() == key.private_numbers()


@pytest.mark.usefixtures("dear_scrypt")
def test_the_passphrase_is_stretched_with_scrypt() -> None:
    """The file says so itself: scrypt's object identifier stands in it, and N, r, p."""
    pem = encrypt_private_key(ec.generate_private_key(ec.SECP256R1()), PASSPHRASE)
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    assert bytes.fromhex("06092b06010401da47040b") in der
    assert bytes.fromhex("02024000020108020105") in der


def test_the_same_key_is_never_written_twice_alike() -> None:
    """Salt and IV are fresh each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    assert encrypt_private_key(key, PASSPHRASE) != encrypt_private_key(key, PASSPHRASE)


def test_another_tools_pkcs8_is_read() -> None:
    """An operator may bring a key that OpenSSL encrypted, whatever its derivation."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE))
    assert decrypt_private_key(pem, PASSPHRASE).private_numbers() == key.private_numbers()


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, passphrase: bytes) -> bytes:
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        pytest.param(_pem(EC_KEY, b"another passphrase"), "not opened", id="wrong-passphrase"),
        pytest.param(_pem(EC_KEY, b""), "no 'ENCRYPTED PRIVATE KEY'", id="not-encrypted"),
        pytest.param(b"", "no 'ENCRYPTED PRIVATE KEY'", id="empty"),
        pytest.param(
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "damaged",
            id="damaged",
        ),
        pytest.param(
            _pem(ed25519.Ed25519PrivateKey.generate(), PASSPHRASE), "Ed25519", id="other-kind"
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(pem: bytes, words: str) -> None:
    """No library's words and no key material come out."""
    with pytest.raises(ValueError, match=words):
        decrypt_private_key(pem, PASSPHRASE)


def test_wrapped_key_is_opened_by_nobody_but_the_holder_of_the_wrapping_key() -> None:
    """In the two layers that Vault's import asks for; no two are alike."""
    wrapping = rsa.generate_private_key(65537, 2048)
    key = ec.generate_private_key(ec.SECP256R1())
    wrapped = wrap_private_key(key, wrapping.public_key())
    assert wrapped != wrap_private_key(key, wrapping.public_key())
    oaep = OAEP(mgf=MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    once = wrapping.decrypt(wrapped[:256], oaep)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert aes_key_unwrap_with_padding(once, wrapped[256:]) == plain
    assert plain not in wrapped
