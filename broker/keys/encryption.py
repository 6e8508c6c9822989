"""Private keys at rest: PKCS#8 under a passphrase, stretched with scrypt.

The library's own encryption of PKCS#8 stretches the passphrase with 2,048 rounds of PBKDF2, which
a stolen file withstands for minutes when a person chose the passphrase.  So the container of
RFC 5958 §3 is put together here with scrypt (RFC 7914 §7); any tool that reads PKCS#8, OpenSSL
among them, opens it.  Reading is left to the library.
"""

from __future__ import annotations

import base64
import secrets
import textwrap
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import ObjectIdentifier

__all__ = ["PrivateKey", "decrypt_private_key", "encrypt_private_key", "wrap_private_key"]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SCRYPT_COST: Final = 2**14
"""scrypt's N.  With r = 8 it takes 16 MiB; OpenSSL refuses to read anything past 32 MiB."""

SCRYPT_BLOCK: Final = 8
"""scrypt's r, in blocks of 128 bytes: the value that everybody uses."""

SCRYPT_PARALLELISM: Final = 5
"""scrypt's p.  It costs time where N may not cost more memory: about 0.15 s a guess."""

SALT_BYTES: Final = 16
"""Length of the salt, in bytes: no two files share one."""

_KEY_BYTES: Final = 32
"""Length of the AES-256 key that scrypt yields, in bytes."""

_BLOCK_BITS: Final = 128
"""AES's block, in bits; CBC's initialisation vector is as long."""

_PBES2: Final = ObjectIdentifier("1.2.840.113549.1.5.13")
_SCRYPT: Final = ObjectIdentifier("1.3.6.1.4.1.11591.4.11")
_AES_256_CBC: Final = ObjectIdentifier("2.16.840.1.101.3.4.1.42")
_LABEL: Final = "ENCRYPTED PRIVATE KEY"


@asn1.sequence
class _ScryptParameters:
    salt: bytes
    cost: int
    block: int
    parallelism: int
    key_length: int


@asn1.sequence
class _KeyDerivation:
    algorithm: ObjectIdentifier
    parameters: _ScryptParameters


@asn1.sequence
class _EncryptionScheme:
    algorithm: ObjectIdentifier
    iv: bytes


@asn1.sequence
class _Pbes2Parameters:
    key_derivation: _KeyDerivation
    encryption_scheme: _EncryptionScheme


@asn1.sequence
class _EncryptionAlgorithm:
    algorithm: ObjectIdentifier
    parameters: _Pbes2Parameters


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    algorithm: _EncryptionAlgorithm
    data: bytes


def encrypt_private_key(key: PrivateKey, passphrase: bytes) -> bytes:
    """Return *key* as encrypted PKCS#8 in PEM; takes about 0.15 s of CPU."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, iv = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(_BLOCK_BITS // 8)
    stretched = Scrypt(
        salt=salt,
        length=_KEY_BYTES,
        n=SCRYPT_COST,
        r=SCRYPT_BLOCK,
        p=SCRYPT_PARALLELISM,
    ).derive(passphrase)
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(stretched), modes.CBC(iv)).encryptor()
    data = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    der = asn1.encode_der(
        _EncryptedPrivateKeyInfo(
            algorithm=_EncryptionAlgorithm(
                algorithm=_PBES2,
                parameters=_Pbes2Parameters(
                    key_derivation=_KeyDerivation(
                        algorithm=_SCRYPT,
                        parameters=_ScryptParameters(
                            salt=salt,
                            cost=SCRYPT_COST,
                            block=SCRYPT_BLOCK,
                            parallelism=SCRYPT_PARALLELISM,
                            key_length=_KEY_BYTES,
                        ),
                    ),
                    encryption_scheme=_EncryptionScheme(algorithm=_AES_256_CBC, iv=iv),
                ),
            ),
            data=data,
        )
    )
    lines = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    return f"-----BEGIN {_LABEL}-----\n{lines}\n-----END {_LABEL}-----\n".encode("ascii")


def wrap_private_key(key: PrivateKey, wrapping_key: rsa.RSAPublicKey) -> bytes:
    """Return *key* as the import of Vault's transit engine takes it.

    An AES-256 key of its own, encrypted by RSA-OAEP with SHA-256 (RFC 8017 §7.1), then the key as
    PKCS#8, wrapped under it by AES key wrap with padding (RFC 5649 §4.1).
    """
    once = secrets.token_bytes(_KEY_BYTES)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    oaep = OAEP(mgf=MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    return wrapping_key.encrypt(once, oaep) + aes_key_wrap_with_padding(once, plain)


def decrypt_private_key(pem: bytes, passphrase: bytes) -> PrivateKey:
    """Return the key in an encrypted PKCS#8 PEM, whatever derivation it was written with.

    Raises:
        ValueError: With a sentence: it is not encrypted, not PKCS#8, the passphrase does not
            open it, or it is of a kind that signs nothing here.
    """
    if f"-----BEGIN {_LABEL}-----".encode("ascii") not in pem:
        raise ValueError(f"has no '{_LABEL}' block, expected PKCS#8 under the passphrase")
    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("is not opened by the configured passphrase, or is damaged") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"holds a {type(key).__name__}, expected an EC or RSA key")
    return key
