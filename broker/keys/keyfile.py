"""Keys in encrypted files, one a key: the embedded default of the ``Signer`` port.

A file is made whole or not at all, mode 0600, in a directory of mode 0700.  What others could
read is refused rather than repaired: the key in it must be taken for known.  A key is decrypted
once and kept in memory; a changed file is seen at the next start.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken
from broker.issuance.key_ports import ReadSecret, known_secret
from broker.keys.encryption import (
    PrivateKey,
    decrypt_private_key,
    encrypt_private_key,
    wrap_private_key,
)
from broker.keys.private_files import (
    check_directory,
    read_private_file,
    remove_file,
    taken,
    write_new_file,
)

__all__ = ["KINDS", "KeyFileSigner", "check_passphrase"]

MIN_PASSPHRASE_BYTES: Final = 12
"""Shortest passphrase that is taken, in bytes: 0.15 s a guess does not save a shorter one."""

KINDS: Final[dict[str, Callable[[], PrivateKey]]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
}
"""How each kind of key is made."""

_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}", re.ASCII)


class KeyFileSigner:
    """Implements ``issuance.ports.Signer`` over a directory of encrypted PKCS#8 files."""

    def __init__(self, directory: Path, passphrase: bytes | ReadSecret) -> None:
        """Keep where the keys are; nothing is read or made before the first call.

        A passphrase that lies in Vault is read when the first key is opened or made; until Vault
        answers every call raises Unreachable.

        Raises:
            Broken: The passphrase is too short to protect anything.
        """
        if isinstance(passphrase, bytes):
            check_passphrase(passphrase)
            passphrase = known_secret(passphrase)
        self._directory = directory
        self._read_passphrase = passphrase
        self._keys: dict[str, PrivateKey] = {}
        self._opening = asyncio.Lock()

    async def create_key(self, key_id: str, kind: str) -> bytes:
        """Make a key, keep it durably, and return its SPKI DER.

        Raises:
            Conflict: There is a key of that name already; it is left alone.
            Broken: The kind is unknown, or the file cannot be kept safely.
        """
        path = self._path(key_id)
        if kind not in KINDS:
            raise Broken(f"key kind '{kind}' is unknown, expected one of {', '.join(KINDS)}")
        passphrase = await self._passphrase()
        key = await asyncio.to_thread(self._create, path, KINDS[kind], passphrase)
        self._keys[key_id] = key
        return _spki(key)

    async def import_key(self, key_id: str, key: PrivateKey) -> bytes:
        """Keep a key that was made elsewhere, as `create_key` keeps its own.

        Raises:
            Conflict: There is a key of that name already; it is left alone.
            Broken: The file cannot be kept safely.
        """
        path, passphrase = self._path(key_id), await self._passphrase()
        self._keys[key_id] = await asyncio.to_thread(self._create, path, lambda: key, passphrase)
        return _spki(key)

    async def wrapped_key(self, key_id: str, wrapping_key: rsa.RSAPublicKey) -> bytes:
        """Return the key as Vault takes it in: nobody but the holder of *wrapping_key* opens it.

        Raises:
            Broken: There is no such key, or it cannot be opened.
        """
        return wrap_private_key(await self._key(key_id), wrapping_key)

    async def public_key(self, key_id: str) -> bytes:
        """Return the SPKI DER.

        Raises:
            Broken: There is no such key, or it cannot be opened.
        """
        return _spki(await self._key(key_id))

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the JWS signature octets over *data* (EC: r‖s; RSA: PKCS#1 v1.5).

        An EC signature takes 20 µs and is made at once; an RSA one takes up to 2 ms and goes to
        a thread.

        Raises:
            Broken: There is no such key, or it cannot be opened.
        """
        key = await self._key(key_id)
        if isinstance(key, rsa.RSAPrivateKey):
            return await asyncio.to_thread(key.sign, data, padding.PKCS1v15(), hashes.SHA256())
        return _sign_ec(key, data)

    async def has_key(self, key_id: str) -> bool:
        """Return whether there is a file of that name, readable or not."""
        return await asyncio.to_thread(os.path.lexists, self._path(key_id))

    async def key_ids(self) -> Sequence[str]:
        """Return the ids of all files, readable or not, in their order."""
        return await asyncio.to_thread(
            lambda: sorted(path.stem for path in self._directory.glob("[!.]*.pem"))
        )

    async def destroy_key(self, key_id: str) -> None:
        """Remove the key's file and forget the key; nothing is done when there is none.

        What a disk keeps of a removed file is still encrypted; copies in backups stay.

        Raises:
            Broken: The file cannot be removed.
        """
        path = self._path(key_id)
        async with self._opening:
            self._keys.pop(key_id, None)
            await asyncio.to_thread(remove_file, path)

    async def _key(self, key_id: str) -> PrivateKey:
        known = self._keys.get(key_id)
        if known is not None:
            return known
        async with self._opening:  # eight askers at once stretch the passphrase once
            if key_id not in self._keys:
                path, passphrase = self._path(key_id), await self._passphrase()
                self._keys[key_id] = await asyncio.to_thread(self._open, path, passphrase)
            return self._keys[key_id]

    async def _passphrase(self) -> bytes:
        return check_passphrase(await self._read_passphrase())

    def _path(self, key_id: str) -> Path:
        if _KEY_ID.fullmatch(key_id) is None:
            raise Broken(
                f"key id {key_id!r} is no file name of 1 to 128 letters, digits and ._+@-, "
                "starting with a letter or digit"
            )
        return self._directory / f"{key_id}.pem"

    def _open(self, path: Path, passphrase: bytes) -> PrivateKey:
        check_directory(self._directory)
        pem = read_private_file(path)
        try:
            key = decrypt_private_key(pem, passphrase)
        except ValueError as error:
            raise Broken(f"key file {path} {error}") from error
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _HASHES:
            raise Broken(f"key file {path} holds a {key.curve.name} key, expected P-256 or P-384")
        return key

    def _create(self, path: Path, make: Callable[[], PrivateKey], passphrase: bytes) -> PrivateKey:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_directory(self._directory)
            if path.exists():
                taken(path)
            key = make()
            write_new_file(path, encrypt_private_key(key, passphrase))
        except OSError as error:
            raise Broken(f"key file {path} cannot be written: {error.strerror}") from error
        return key


def check_passphrase(passphrase: bytes) -> bytes:
    """Return the passphrase; raises Broken where it is too short to protect anything."""
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise Broken(
            f"passphrase of the key files is {len(passphrase)} bytes long, "
            f"expected at least {MIN_PASSPHRASE_BYTES}"
        )
    return passphrase


_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}


def _sign_ec(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[key.curve.name])))
    half = (key.key_size + 7) // 8
    return r.to_bytes(half, "big") + s.to_bytes(half, "big")


def _spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
