"""Files that hold secrets: made whole or not at all, and for their owner alone.

What others could read is refused rather than repaired: what is in it must be taken for known.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, NoReturn

from broker.issuance.errors import Broken, Conflict

__all__ = [
    "check_directory",
    "read_private_file",
    "remove_file",
    "taken",
    "write_new_file",
]

MAX_KEY_FILE_BYTES: Final = 16 * 1024
"""Largest key file that is read, in bytes; an encrypted RSA-4096 key takes 3.4 KiB."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def taken(path: Path) -> NoReturn:
    """Raise Conflict for a file that is there already."""
    raise Conflict(f"key file {path} is there already; it is left alone")


def check_directory(directory: Path) -> None:
    """Raise Broken unless the directory is there and closed to others."""
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


def read_private_file(path: Path) -> bytes:
    """Return the file's bytes, having looked at the very file that is read.

    Raises:
        Broken: It is not there, others can read it, or it is no regular file of a key's size.
    """
    try:
        # O_NONBLOCK: a pipe in place of a key must not hold the thread for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Broken(f"there is no key file {path}; was the key created here?") from None
    except OSError as error:
        raise Broken(f"key file {path} cannot be read: {error.strerror}") from error
    try:
        _check_file(path, os.fstat(handle))
        content = os.read(handle, MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(handle)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise Broken(f"key file {path} is larger than {MAX_KEY_FILE_BYTES} bytes")
    return content


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Broken(f"key file {path} is not a regular file")
    if found.st_mode & _OTHERS:
        raise Broken(
            f"key file {path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"take its key for known and replace it, or if nobody had access: chmod 600 {path}"
        )


def write_new_file(path: Path, content: bytes) -> None:
    """Write *content* under a name that nothing has, whole and on disk, or not at all.

    Raises:
        Conflict: There is a file of that name; it is left alone.
        OSError: It cannot be written.
    """
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
            taken(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    _sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove the file, and have that on disk before anyone is told.

    Raises:
        Broken: It cannot be removed; one that is not there is no fault.
    """
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
