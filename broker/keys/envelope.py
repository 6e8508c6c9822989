"""The seal of a backup: an age stream whose key lies beside it, under the key passphrase.

The stream is age's (github.com/C2SP/C2SP, age.md): authenticated in chunks of 64 KiB, cut off
nowhere unnoticed, read and written by a library and opened by stock tools.  age's own passphrase
recipient is not used, since the library takes a gigabyte of memory for it: a fresh key pair is
made for each backup, and its private half is sealed with scrypt, as dear as in the key files, and
AES-GCM.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from broker.keys.encryption import (
    SALT_BYTES,
    SCRYPT_BLOCK,
    SCRYPT_COST,
    SCRYPT_PARALLELISM,
)

__all__ = [
    "SealBroken",
    "StreamKey",
    "new_stream_key",
    "open_stream_key",
    "unwrap_secret",
    "wrap_secret",
]

SEAL_FORMAT: Final = "penstock-seal/1"
"""Version of the sealed key; another one is refused rather than guessed at."""

NONCE_BYTES: Final = 12
"""Length of AES-GCM's nonce, in bytes (NIST SP 800-38D §8.2); its key is used once."""

KEY_BYTES: Final = 32
"""Length of the AES-256 key that scrypt yields, in bytes."""


class SealBroken(ValueError):
    """A seal does not open: another passphrase, a damaged file, or one that is cut off."""


class StreamKey:
    """Encrypts or decrypts one stream; made by `new_stream_key` or `open_stream_key`."""

    def __init__(self, identity: pyrage.x25519.Identity) -> None:
        self._identity = identity

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Read *source* to its end and write it sealed.

        Raises:
            OSError: Reading or writing failed.
        """
        pyrage.encrypt_io(source, target, [self._identity.to_public()])

    def decrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Write what was sealed; nothing that was not authenticated is ever written.

        Raises:
            SealBroken: The stream was changed or cut off.  What was written before is a
                beginning and must be thrown away.
            OSError: Reading or writing failed.
        """
        try:
            pyrage.decrypt_io(source, target, [self._identity])
        except pyrage.DecryptError as error:
            raise SealBroken("is damaged, or was sealed with another key") from error
        except OSError as error:
            if error.errno is not None:
                raise
            # The library tells a chunk that does not authenticate as a failure to read.
            raise SealBroken("is damaged or cut off") from error


def new_stream_key(passphrase: bytes) -> tuple[StreamKey, bytes]:
    """Return a fresh key, and the sealed form of it that is kept beside its stream."""
    identity = pyrage.x25519.Identity.generate()
    wrapping, sealed = wrap_secret(str(identity).encode(), passphrase)
    document = {"format": SEAL_FORMAT, **wrapping, "age_identity": sealed}
    return StreamKey(identity), (json.dumps(document, indent=2) + "\n").encode()


def open_stream_key(sealed: bytes, passphrase: bytes) -> StreamKey:
    """Return the key that `new_stream_key` sealed.

    Raises:
        SealBroken: It is no sealed key, or the passphrase does not open it.
    """
    try:
        document = json.loads(sealed)
        if document["format"] != SEAL_FORMAT:
            raise SealBroken(f"is not sealed as {SEAL_FORMAT}: a newer version may open it")
        text = unwrap_secret(document, document["age_identity"], passphrase)
        return StreamKey(pyrage.x25519.Identity.from_str(text.decode("ascii")))
    except SealBroken:
        raise
    except (ValueError, KeyError, TypeError, pyrage.IdentityError) as error:
        raise SealBroken("has no readable key beside it") from error


def wrap_secret(secret: bytes, passphrase: bytes) -> tuple[Mapping[str, object], str]:
    """Return how *secret* was encrypted under the passphrase, and what came of it, as JSON has it.

    It takes about 0.15 s of CPU.
    """
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = AESGCM(_stretched(passphrase, salt)).encrypt(nonce, secret, salt)
    wrapping = {
        "kdf": {
            "name": "scrypt",
            "salt": _text(salt),
            "n": SCRYPT_COST,
            "r": SCRYPT_BLOCK,
            "p": SCRYPT_PARALLELISM,
        },
        "cipher": {"name": "aes-256-gcm", "nonce": _text(nonce), "aad": "salt"},
    }
    return wrapping, _text(sealed)


def unwrap_secret(wrapping: Mapping[str, Any], sealed: str, passphrase: bytes) -> bytes:
    """Return the secret that `wrap_secret` encrypted.

    Raises:
        SealBroken: The passphrase does not open it, or it is damaged.
        ValueError, KeyError, TypeError: It is nothing that `wrap_secret` returned.
    """
    # The parameters are ours alone: a file must not choose how much memory it takes.
    salt = base64.b64decode(wrapping["kdf"]["salt"], validate=True)
    nonce = base64.b64decode(wrapping["cipher"]["nonce"], validate=True)
    octets = base64.b64decode(sealed, validate=True)
    try:
        return AESGCM(_stretched(passphrase, salt)).decrypt(nonce, octets, salt)
    except InvalidTag as error:
        raise SealBroken("is not opened by the configured passphrase, or is damaged") from error


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(
        salt=salt, length=KEY_BYTES, n=SCRYPT_COST, r=SCRYPT_BLOCK, p=SCRYPT_PARALLELISM
    ).derive(passphrase)


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
