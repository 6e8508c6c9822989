"""Keys on a token that serve no more: kept for as long as policy says, then destroyed there.

A key in a file goes with the file.  One on a token stays until somebody destroys it, so what has
left service is written down beside the other keys, under the second until which it is kept.  No
key is destroyed that anything still names: the pair in place, a previous one that lies beside it, a
request that waits, another certificate.  Where that cannot be read, nothing is destroyed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from agents.child import ChildFault, run_child
from agents.keys import LEFT
from agents.layouts import Files, place_of
from agents.paths import PathFault, child_folder, link_text, open_folder, read_regular

__all__ = ["destroy_left"]

_URI_NAMES: Final = ("privkey.uri", "tls.uri")
"""What files are called that name the key of a pair, in each layout that can."""

_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
"""How opening a folder fails on a file or a link; any other way, nobody knows what lies there."""


class Section(Protocol):
    """What is read of ``[[certificate]]``."""

    @property
    def files(self) -> Files | None: ...


@dataclass(frozen=True, slots=True)
class _Left:
    """A key that has left service."""

    certificate: str
    path: str
    until: int
    uri: str


def destroy_left(
    sections: Iterable[Section], *, allowed: Sequence[str], state_dir: str, now: datetime
) -> list[str]:
    """Destroy every key that has left service and whose time is over.

    Returns what could not be done, for people; the same call later tries it again.
    """
    keys = os.path.join(state_dir, "keys")
    try:
        over = [one for one in _all_left(keys) if one.until <= now.timestamp()]
    except OSError as error:
        return [f"{keys}: {error.strerror}"]
    if not over:
        return []
    try:
        named = _named_in_state(keys) | _named_in_place(sections, allowed)
    except (OSError, PathFault) as error:
        said = getattr(error, "strerror", None) or str(error)
        return [f"no key on a token is destroyed while it is not known which are in use: {said}"]
    faults = []
    for one in over:
        if _which(one.uri) in named:
            continue
        try:
            run_child({"do": "forget-key", "key": one.uri})
            with contextlib.suppress(FileNotFoundError):  # another thread was faster
                os.unlink(one.path)
        except ChildFault as fault:
            faults.append(f"a key of certificate {one.certificate!r} on its token: {fault.reason}")
        except OSError as error:
            faults.append(f"{one.path}: {error.strerror}")
    return faults


def _all_left(keys: str) -> list[_Left]:
    found = []
    for certificate in _listed(keys):
        folder = os.path.join(keys, certificate)
        for name in _listed(folder):
            until, _, _ = name.removeprefix(LEFT).partition("-")
            if name.startswith(LEFT) and name.endswith(".uri") and until.isdigit():
                path = os.path.join(folder, name)
                found.append(_Left(certificate, path, int(until), _read(path)))
    return found


def _named_in_state(keys: str) -> set[str]:
    """Return the keys that serve or wait, of every certificate."""
    found = set()
    for certificate in _listed(keys):
        folder = os.path.join(keys, certificate)
        for name in _listed(folder):
            if name.endswith(".uri") and not name.startswith(LEFT):
                with contextlib.suppress(FileNotFoundError):  # it was settled just now
                    found.add(_which(_read(os.path.join(folder, name))))
    return found


def _named_in_place(sections: Iterable[Section], allowed: Sequence[str]) -> set[str]:
    """Return the keys that any pair names which lies where servers read: the present ones, those
    before them, and what is being made."""
    found = set()
    for section in sections:
        if section.files is None:
            continue
        path, _, _ = place_of(section.files)
        if not _is_there(path):
            continue
        with open_folder(path, allowed) as folder:
            for name in os.listdir(folder):
                found |= _named_by(folder, name)
    return found


def _is_there(path: str) -> bool:
    """Return whether anything lies there.

    Raises:
        OSError: It cannot be looked at.
        PathFault: The folder above is missing too, so that a volume may not be mounted.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            raise PathFault(f"folder {above} is not there") from None
        return False
    return True


def _named_by(folder: int, name: str) -> set[str]:
    try:
        inside = child_folder(folder, name)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise PathFault(f"{name!r} cannot be opened: {error.strerror}") from None
        # A file, or a link to one of the folders.
        return _read_named(folder, (name,)) if name in _URI_NAMES else set()
    try:
        return _read_named(inside, _URI_NAMES)
    finally:
        os.close(inside)


def _read_named(folder: int, names: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        if link_text(folder, name) is not None:
            continue  # ours, into a folder that is looked at itself
        read = read_regular(folder, name)
        if read is not None:
            found.add(_which(read.octets.decode("utf-8", "replace").strip()))
    return found


def _which(uri: str) -> str:
    """Return the part of a URI that names the key; how it is reached may have changed."""
    return uri.partition("?")[0]


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(4096).strip()
