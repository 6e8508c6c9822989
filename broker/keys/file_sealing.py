"""Seals secrets of the store without Vault: under a key of its own, which lies with the key files.

That key is random, and encrypted under the passphrase of the key files like every other.  So a
copy of the database alone says nothing; whoever has the state directory and the passphrase has
everything, which is why Vault is the better choice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.issuance.errors import Broken, Conflict
from broker.issuance.key_ports import ReadSecret, Sealed
from broker.keys.envelope import NONCE_BYTES, SealBroken, unwrap_secret, wrap_secret
from broker.keys.private_files import check_directory, read_private_file, write_new_file

__all__ = ["FILE_SCHEME", "FileSealer"]

FILE_SCHEME: Final = "file:"
"""What `Sealed.by` begins with for what was sealed here."""

SEALING_FILE: Final = "sealing.key"
"""Name of the key's file; those of private keys end in ``.pem``, so that none can be called so."""

SEALING_FORMAT: Final = "penstock-sealing-key/1"
"""Version of the file; another one is refused rather than guessed at."""

SEALING_KEY_BYTES: Final = 32
"""Length of the key, in bytes: AES-256's.  Random nonces are good for 2³² secrets under one key
(NIST SP 800-38D §8.3), and a broker has thousands."""

FINGERPRINT_BYTES: Final = 8
"""How much of the key's hash tells it from others, in bytes: two brokers' keys, or one from before
a restore."""


class FileSealer:
    """Implements ``key_ports.Sealer`` with AES-256-GCM; the context is authenticated with it."""

    def __init__(self, directory: Path, read_passphrase: ReadSecret) -> None:
        """Keep where the key is; nothing is read or made before the first call."""
        self._directory = directory
        self._path = directory / SEALING_FILE
        self._read_passphrase = read_passphrase
        self._key: bytes | None = None
        self._opening = asyncio.Lock()

    async def sealing_key(self) -> str:
        """Return the key that `seal` seals under; it is made where there is none."""
        return _name_of(await self._open(is_to_be_made=True))

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """Return the secret sealed for *context*; see the port."""
        key = await self._open(is_to_be_made=True)
        nonce = secrets.token_bytes(NONCE_BYTES)
        octets = nonce + AESGCM(key).encrypt(nonce, secret, context.encode())
        return Sealed(_name_of(key), octets)

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """Return the secret; see the port."""
        key = await self._open(is_to_be_made=False)
        name = _name_of(key)
        if sealed.by != name:
            raise Broken(
                f"secret of {context} is sealed under {sealed.by}, and {self._path} holds {name}: "
                "put back the file that it was sealed with, from a backup"
            )
        nonce, octets = sealed.octets[:NONCE_BYTES], sealed.octets[NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, octets, context.encode())
        except (InvalidTag, ValueError):
            raise Broken(
                f"secret of {context} does not open: it was sealed for something else, or changed"
            ) from None

    async def _open(self, *, is_to_be_made: bool) -> bytes:
        async with self._opening:  # eight askers at once stretch the passphrase once
            if self._key is None:
                passphrase = await self._read_passphrase()
                self._key = await asyncio.to_thread(self._read, passphrase, is_to_be_made)
            return self._key

    def _read(self, passphrase: bytes, is_to_be_made: bool) -> bytes:
        if is_to_be_made and not os.path.lexists(self._path):
            self._make(passphrase)
        check_directory(self._directory)
        content = read_private_file(self._path)
        try:
            document = json.loads(content)
            if document["format"] != SEALING_FORMAT:
                raise Broken(
                    f"sealing key {self._path} is no {SEALING_FORMAT}: a newer version may read it"
                )
            key = unwrap_secret(document, document["key"], passphrase)
        except SealBroken as error:
            raise Broken(f"sealing key {self._path} {error}") from error
        except (ValueError, KeyError, TypeError):
            raise Broken(f"sealing key {self._path} is not what was written there") from None
        if len(key) != SEALING_KEY_BYTES:
            raise Broken(f"sealing key {self._path} is not {SEALING_KEY_BYTES} bytes long")
        return key

    def _make(self, passphrase: bytes) -> None:
        wrapping, sealed = wrap_secret(secrets.token_bytes(SEALING_KEY_BYTES), passphrase)
        document = {"format": SEALING_FORMAT, **wrapping, "key": sealed}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_directory(self._directory)
            write_new_file(self._path, (json.dumps(document, indent=2) + "\n").encode())
        except Conflict:
            return  # another process was first, and its key is as good
        except OSError as error:
            raise Broken(f"sealing key {self._path} cannot be written: {error.strerror}") from error


def _name_of(key: bytes) -> str:
    digest = hashlib.sha256(b"penstock sealing key" + key).digest()
    return f"{FILE_SCHEME}{digest[:FINGERPRINT_BYTES].hex()}"
