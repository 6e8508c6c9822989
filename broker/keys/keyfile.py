"""Keys in encrypted files, one a key: the embedded default of the ``Signer`` port.

A file is made whole or not at all, mode 0600, in a directory of mode 0700.  What others could
read is refused rather than repaired: the key in it must be taken for known.  A key is decrypted
once and kept in memory; a changed file is seen at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken, Conflict
from broker.keys.encryption import PrivateKey, decrypt_private_key, encrypt_private_key

__all__ = ["KINDS", "KeyFileSigner"]

MAX_KEY_FILE_BYTES: Final = 16 * 1024
"""Largest key file that is read, in bytes; an encrypted RSA-4096 key takes 3.4 KiB."""

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
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFileSigner:
    """Implements ``issuance.ports.Signer`` over a directory of encrypted PKCS#8 files."""

    def __init__(self, directory: Path, passphrase: bytes) -> None:
        """Keep where the keys are; nothing is read or made before the first call.

        Raises:
            Broken: The passphrase is too short to protect anything.
        """
        if len(passphrase) < MIN_PASSPHRASE_BYTES:
            raise Broken(
                f"passphrase of the key files is {len(passphrase)} bytes long, "
                f"expected at least {MIN_PASSPHRASE_BYTES}"
            )
        self._directory = directory
        self._passphrase = passphrase
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
        key = await asyncio.to_thread(self._create, path, kind)
        self._keys[key_id] = key
        return _spki(key)

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

    async def destroy_key(self, key_id: str) -> None:
        """Remove the key's file and forget the key; nothing is done when there is none.

        What a disk keeps of a removed file is still encrypted; copies in backups stay.

        Raises:
            Broken: The file cannot be removed.
        """
        path = self._path(key_id)
        async with self._opening:
            self._keys.pop(key_id, None)
            await asyncio.to_thread(_remove, path)

    async def _key(self, key_id: str) -> PrivateKey:
        known = self._keys.get(key_id)
        if known is not None:
            return known
        async with self._opening:  # eight askers at once stretch the passphrase once
            if key_id not in self._keys:
                self._keys[key_id] = await asyncio.to_thread(self._open, self._path(key_id))
            return self._keys[key_id]

    def _path(self, key_id: str) -> Path:
        if _KEY_ID.fullmatch(key_id) is None:
            raise Broken(
                f"key id {key_id!r} is no file name of 1 to 128 letters, digits and ._+@-, "
                "starting with a letter or digit"
            )
        return self._directory / f"{key_id}.pem"

    def _open(self, path: Path) -> PrivateKey:
        _check_directory(self._directory)
        pem = _read_private_file(path)
        try:
            key = decrypt_private_key(pem, self._passphrase)
        except ValueError as error:
            raise Broken(f"key file {path} {error}") from error
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _HASHES:
            raise Broken(f"key file {path} holds a {key.curve.name} key, expected P-256 or P-384")
        return key

    def _create(self, path: Path, kind: str) -> PrivateKey:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_directory(self._directory)
            if path.exists():
                _taken(path)
            key = KINDS[kind]()
            _write_new_file(path, encrypt_private_key(key, self._passphrase))
        except OSError as error:
            raise Broken(f"key file {path} cannot be written: {error.strerror}") from error
        return key


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


def _taken(path: Path) -> NoReturn:
    raise Conflict(f"key file {path} is there already; it is left alone")


def _check_directory(directory: Path) -> None:
    try:
        found = directory.stat()
    except OSError as error:
        raise Broken(f"key directory {directory} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Broken(f"key directory {directory} is not a directory")
    if found.st_mode & _OTHERS:
        raise Broken(
            f"key directory {directory} is open to others (mode {stat.S_IMODE(found.st_mode):04o}),"
            f" make it theirs no more: chmod 700 {directory}"
        )


def _read_private_file(path: Path) -> bytes:
    """Return the file's bytes, having looked at the very file that is read."""
    try:
        # O_NONBLOCK: a pipe in place of a key must not hold the thread for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Broken(f"there is no key file {path}; was the key created here?") from None
    except OSError as error:
        raise Broken(f"key file {path} cannot be read: {error.strerror}") from error
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Broken(f"key file {path} is not a regular file")
        if found.st_mode & _OTHERS:
            raise Broken(
                f"key file {path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); "
                f"take its key for known and replace it, or if nobody had access: chmod 600 {path}"
            )
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise Broken(f"key file {path} is larger than {MAX_KEY_FILE_BYTES} bytes")
    return content


def _write_new_file(path: Path, content: bytes) -> None:
    """Write *content* under a name that nothing has, whole and on disk, or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, it never takes another's place
        except FileExistsError:
            _taken(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    _sync_directory(path.parent)


def _remove(path: Path) -> None:
    """Remove the file, and have that on disk before anyone is told."""
    try:
        path.unlink()
        _sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Broken(f"key file {path} cannot be removed: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
