"""Puts one small file in place: whole or not at all, and nowhere but below a folder that is named.

For files without secrets: bundles, answers to challenges, notes of the agent's own.  They are
written with the same care as keys are (``agents.paths``): beside their place, brought to the disk,
and renamed, and never through a link, so whoever may write in a folder on the way cannot lead the
agent elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agents.owners import Ownership
from agents.paths import SELINUX, PathFault, new_name, open_folder, write_new

__all__ = ["DiskFault", "PlacingFault", "place", "read_placed", "remove_placed"]


class PlacingFault(Exception):
    """The file could not be put in place, and what was there is as it was."""


class DiskFault(PlacingFault):
    """The system refused: there is no room, or it may not be written now; later it may."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What a file in the place of another takes over from it."""

    owner: Ownership
    label: bytes | None


def place(path: str, content: bytes, *, below: Sequence[str], mode: int = 0o644) -> None:
    """Make *path*, which lies below one of the folders *below*, hold *content*.

    Folders that are missing between the two are made.  Owner and SELinux label of a file that is
    there are kept.

    Raises:
        PlacingFault: It lies elsewhere, something on the way is a link, or the disk refused.
    """
    with _folder_of(path, below, is_made=True) as (folder, name):
        before = _look_at(folder, name, path)
        beside = new_name()
        write_new(folder, beside, content, owner=before.owner, mode=mode, label=before.label)
        try:
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(beside, dir_fd=folder)
            raise
        os.fsync(folder)


def read_placed(path: str, *, below: Sequence[str], most_bytes: int) -> bytes | None:
    """Return what *path* holds, or None if there is no such file; raises PlacingFault."""
    if not os.path.lexists(path):
        return None
    with _folder_of(path, below) as (folder, name):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=folder), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PlacingFault(f"{path} is no plain file")
            content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise PlacingFault(f"{path} is past the limit of {most_bytes} bytes")
    return content


def remove_placed(path: str, *, below: Sequence[str]) -> None:
    """Remove the file *path*, if it is there; raises PlacingFault."""
    if not os.path.lexists(path):
        return
    with _folder_of(path, below) as (folder, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.fsync(folder)


@contextlib.contextmanager
def _folder_of(
    path: str, below: Sequence[str], *, is_made: bool = False
) -> Iterator[tuple[int, str]]:
    """Open the folder that *path* lies in; every fault on the way is a PlacingFault."""
    parent, name = os.path.split(path)
    if name in {"", ".", ".."} or "\0" in path:
        raise PlacingFault(f"{path[:200]!r} is no path of a file")
    roots = [one.rstrip("/") or "/" for one in below]
    try:
        with open_folder(parent, roots, is_made=is_made) as folder:
            yield folder, name
    except PathFault as error:
        raise PlacingFault(str(error)) from None
    except OSError as error:
        raise DiskFault(f"{path}: {(error.strerror or 'it failed').lower()}") from None


def _look_at(folder: int, name: str, path: str) -> _Before:
    """Return what the file that is there passes on; anything else there is in the way."""
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return _Before(Ownership(), None)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise PlacingFault(f"{path} is a link or no plain file")
        return _Before(Ownership(facts.st_uid, facts.st_gid), _label(descriptor))
    finally:
        os.close(descriptor)


def _label(descriptor: int) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", SELINUX)
    except OSError:
        return None
