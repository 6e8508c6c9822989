"""Files inside the folders that the node allows, whoever else can write there.

A folder is opened component by component below an allowed one, and no component may be a symlink;
from then on everything is done relative to that open folder.  Nothing that is there is ever written
into: files are made anew under names of their own and then renamed, so a symlink, a hard link or a
device in the way costs its owner that name and nobody anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from agents.owners import KEEP, Ownership

__all__ = [
    "TEMPORARY",
    "Found",
    "PathFault",
    "child_folder",
    "entry_kind",
    "link_text",
    "make_folder",
    "new_name",
    "open_folder",
    "put_link",
    "read_regular",
    "remove",
    "write_new",
]

TEMPORARY: Final = "penstock-"
"""What the names of files begin with (behind one or two dots) that are not in their place yet."""

MAX_READ_BYTES: Final = 1024 * 1024
"""Largest file that is taken over, in bytes: a chain with its key measures under 100 kB."""

SELINUX: Final = "security.selinux"
"""The extended attribute with the label of a file."""

_NO_LABEL: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PathFault(Exception):
    """A path is not allowed, is not what it should be, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was there, with what a file in its place takes over."""

    octets: bytes
    mode: int
    uid: int
    gid: int
    label: bytes | None


@contextmanager
def open_folder(path: str, allowed: Sequence[str], *, is_made: bool = False) -> Iterator[int]:
    """Lend a descriptor of the folder at *path*.

    With *is_made*, what is missing of it below the allowed folder is made: everybody may enter it,
    and only we may write there.

    Raises:
        PathFault: It lies below none of *allowed*, is missing, or something on the way to it is a
            symlink or no folder.
    """
    descriptor = _descend(path, allowed, is_made=is_made)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _descend(path: str, allowed: Sequence[str], *, is_made: bool) -> int:
    root = next((one for one in allowed if path == one or path.startswith(f"{one}/")), None)
    if root is None:
        raise PathFault(f"{path} lies in none of the folders that the node allows")
    parts = [part for part in path[len(root) :].split("/") if part]
    if any(part in {".", ".."} or "\0" in part for part in parts):
        raise PathFault(f"{path} has dots in it")
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PathFault(f"{root} cannot be opened: {error.strerror}") from None
    for part in parts:
        try:
            below = _step(descriptor, part, is_made=is_made)
        except OSError as error:
            is_link = error.errno in {errno.ELOOP, errno.ENOTDIR}
            said = "is a symlink or no folder" if is_link else f"cannot be opened: {error.strerror}"
            raise PathFault(f"{path}: {part!r} {said}") from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _step(parent: int, part: str, *, is_made: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not is_made:
            raise
    with contextlib.suppress(FileExistsError):
        return make_folder(parent, part)
    return os.open(part, _FOLDER, dir_fd=parent)


def make_folder(parent: int, name: str) -> int:
    """Make a folder that everybody may enter, and return its descriptor."""
    os.mkdir(name, 0o700, dir_fd=parent)
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PathFault(f"{name!r} was put into another's folder's place while it was made")
        os.fchmod(descriptor, 0o755)
        os.fsync(parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def child_folder(parent: int, name: str) -> int:
    """Return the descriptor of a folder that is no symlink; raises OSError."""
    return os.open(name, _FOLDER, dir_fd=parent)


def _give(descriptor: int, owner: Ownership) -> None:
    """Give an open file to its owner; raises PathFault when we may not."""
    if owner.is_own:
        return
    try:
        os.fchown(descriptor, owner.uid, owner.gid)
    except PermissionError:
        said = f"user {owner.uid}" if owner.uid != KEEP else f"group {owner.gid}"
        raise PathFault(
            f"the agent may not give files to {said}; it does not run as root"
        ) from None


def new_name(dots: str = ".") -> str:
    """Return a name that nobody can foresee, for what is not in its place yet."""
    return f"{dots}{TEMPORARY}{os.urandom(8).hex()}"


def write_new(
    folder: int,
    name: str,
    octets: bytes,
    *,
    owner: Ownership,
    mode: int,
    label: bytes | None = None,
) -> None:
    """Write a file that was not there, synced; nobody else can read it before it is whole.

    Raises:
        OSError: It could not be written; nothing of it is left.
        PathFault: It cannot be given to its owner; nothing of it is left.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        left = memoryview(octets)
        while left:
            left = left[os.write(descriptor, left) :]
        _give(descriptor, owner)
        os.fchmod(descriptor, mode)
        if label is not None:
            _set_label(descriptor, label)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)


def read_regular(folder: int, name: str, *, is_sole: bool = False) -> Found | None:
    """Return what is in a file, and how it is kept; None: there is nothing.

    With *is_sole* a file that has another name elsewhere is refused: what it holds may be somebody
    else's, who never meant it to be taken over.

    Raises:
        PathFault: It is a symlink, a device or anything else but a file, or too large.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        said = "is a symlink" if error.errno == errno.ELOOP else error.strerror
        raise PathFault(f"{name!r} {said}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PathFault(f"{name!r} is no ordinary file")
        if is_sole and status.st_nlink != 1:
            raise PathFault(f"{name!r} has {status.st_nlink} names; only one is taken over")
        octets = _read_all(descriptor)
        if len(octets) > MAX_READ_BYTES:
            raise PathFault(f"{name!r} is larger than {MAX_READ_BYTES} bytes")
        mode = stat.S_IMODE(status.st_mode)
        return Found(octets, mode, status.st_uid, status.st_gid, _label(descriptor))
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts = []
    left = MAX_READ_BYTES + 1
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def entry_kind(folder: int, name: str) -> int | None:
    """Return the type bits of what has that name, symlinks themselves; None: nothing has."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def link_text(folder: int, name: str) -> str | None:
    """Return what a symlink says; None: it is none, or not there."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def put_link(folder: int, name: str, text: str) -> None:
    """Put a symlink that says *text* in the place of *name*, in one step; raises OSError."""
    beside = new_name()
    os.symlink(text, beside, dir_fd=folder)
    try:
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(beside, dir_fd=folder)
        raise


def remove(folder: int, name: str) -> None:
    """Take away a file, a symlink, or a folder of files; what is not there is no error."""
    try:
        os.unlink(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    inside = child_folder(folder, name)
    try:
        for one in os.listdir(inside):
            os.unlink(one, dir_fd=inside)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=folder)


def _label(descriptor: int) -> bytes | None:
    try:
        return os.getxattr(descriptor, SELINUX)
    except OSError:
        return None


def _set_label(descriptor: int, label: bytes) -> None:
    try:
        os.setxattr(descriptor, SELINUX, label)
    except OSError as error:
        if error.errno not in _NO_LABEL:
            raise
