"""The switch itself: from the old pair to the new one, and back, within one open folder.

Every step before the one rename leaves what is read there as it is, and so does every step behind
it; ``Journal`` is written down between the two.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agents.layouts import Piece, Plan
from agents.owners import Ownership
from agents.paths import (
    TEMPORARY,
    Found,
    PathFault,
    child_folder,
    entry_kind,
    link_text,
    make_folder,
    new_name,
    put_link,
    read_regular,
    remove,
    write_new,
)

__all__ = [
    "PREVIOUS",
    "Giving",
    "Journal",
    "Placed",
    "before_name",
    "place_file",
    "place_folder",
    "put_back",
    "put_by",
    "read_stable",
]

PREVIOUS: Final = "previous-"
"""What the names of previous pairs begin with, behind their dots; then come the second since 1970
until which each is kept, and its own name."""

_CERTBOT: Final = "../../archive/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What was there and what takes its place."""

    certificate: str
    fingerprint: str
    spki_sha256: str
    keep_seconds: int
    link: str | None
    names: tuple[str, ...]
    new: str = ""
    """Name of the new folder, or the SHA-256 of the new file."""
    old: str = ""
    """Name of the old folder, or ``file`` where there was one; empty: nothing was there."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Journal | None:
        """Return the journal as it was written down; None: it cannot be read."""
        try:
            made = cls(**{**document, "names": tuple(document["names"])})
        except (KeyError, TypeError):
            return None
        names = (*made.names, made.new, made.old, made.link or "")
        return None if any("/" in str(one) for one in names) else made

    @property
    def dots(self) -> str:
        """What our own names begin with in this layout."""
        return ".." if self.link == "..data" else "."


@dataclass(frozen=True, slots=True)
class Giving:
    """To whom files are given, and with which mode those that hold a key."""

    owner: Ownership
    mode: int


@dataclass(frozen=True, slots=True)
class Placed:
    """What a journal tells, against what lies there."""

    folder: int
    journal: Journal

    @property
    def is_switched(self) -> bool:
        """Whether the new pair is the one that is read."""
        journal = self.journal
        if not journal.new:
            return False
        if journal.link is not None:
            return link_text(self.folder, journal.link) == journal.new
        return _file_digest(self.folder, journal.names[0]) == journal.new


WriteDown = Callable[[Journal], None]


def place_folder(
    folder: int,
    plan: Plan,
    giving: Giving,
    *,
    journal: Journal,
    before: Placed | None,
    write_down: WriteDown,
) -> Journal:
    """Switch a layout of several files by its one link.

    *before* is what was being switched the last time and has not been settled.
    """
    link = plan.link or ""
    _check_link(folder, link)
    kept = _convert(folder, plan)
    old = link_text(folder, link) or ""
    made = new_name(plan.dots)
    try:
        _fill(
            folder,
            made,
            plan.pieces,
            _inherit(giving, kept) if is_ours_alone(folder) else giving,
            kept,
        )
        if before is not None and before.journal.link == link and before.is_switched:
            old = before.journal.old  # what was never settled is not what to go back to
        switched = replace(journal, new=made, old=old)
        write_down(switched)
        for piece in plan.pieces:
            text = f"{link}/{piece.name}"
            if link_text(folder, piece.name) != text:
                put_link(folder, piece.name, text)
        os.fsync(folder)
        put_link(folder, link, made)
    except BaseException:
        if link_text(folder, link) != made:
            with contextlib.suppress(OSError):
                remove(folder, made)
        raise
    with contextlib.suppress(OSError):  # it is switched, and a disk that fails now is told later
        os.fsync(folder)
    return switched


def _check_link(folder: int, link: str) -> None:
    """Refuse a link that is not ours: it would lead who knows where."""
    text = link_text(folder, link)
    if text is None:
        if entry_kind(folder, link) is not None:
            raise PathFault(f"{link!r} is there and is no link of the agent's")
    elif not text.startswith((f".{TEMPORARY}", f"..{TEMPORARY}")) or "/" in text:
        raise PathFault(f"{link!r} is a symlink that the agent did not make")


def _convert(folder: int, plan: Plan) -> dict[str, Found]:
    """Turn names that are files of their own into links, without a change for whoever reads them.

    What is there is copied into a folder, the one link is led to it, and only then is each name
    replaced by its link: at every moment each name holds what it held before.  Returns what each
    name holds.
    """
    link = plan.link or ""
    found: dict[str, Found] = {}
    foreign = []
    for piece in plan.pieces:
        is_ours = link_text(folder, piece.name) == f"{link}/{piece.name}"
        read = (
            _read_through(folder, link, piece.name) if is_ours else read_stable(folder, piece.name)
        )
        if read is not None:
            found[piece.name] = read
            if not is_ours:
                foreign.append(piece.name)
    if not foreign:
        return found
    made = new_name(plan.dots)
    try:
        _copy(folder, made, found)
        put_link(folder, link, made)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(folder, made)
        raise
    os.fsync(folder)
    for name in foreign:
        put_link(folder, name, f"{link}/{name}")
    os.fsync(folder)
    return found


def _copy(folder: int, name: str, found: Mapping[str, Found]) -> None:
    inside = make_folder(folder, name)
    try:
        for one, read in found.items():
            owner = Ownership(read.uid, read.gid)
            write_new(inside, one, read.octets, owner=owner, mode=read.mode, label=read.label)
        os.fsync(inside)
    finally:
        os.close(inside)


def read_stable(folder: int, name: str) -> Found | None:
    """Read what has a stable name and is not our link; certbot's own links are followed."""
    text = link_text(folder, name)
    if text is None:
        return read_regular(folder, name, is_sole=True)
    parts = text.removeprefix(_CERTBOT).split("/")
    if not text.startswith(_CERTBOT) or len(parts) != 2 or not {*parts}.isdisjoint({".", "..", ""}):
        raise PathFault(f"{name!r} is a symlink that the agent did not make")
    with contextlib.ExitStack() as stack:
        inside = folder
        for step in ("..", "..", "archive", parts[0]):
            inside = child_folder(inside, step)
            stack.callback(os.close, inside)
        return read_regular(inside, parts[1], is_sole=True)


def _read_through(folder: int, link: str, name: str) -> Found | None:
    text = link_text(folder, link)
    if text is None:
        return None
    try:
        inside = child_folder(folder, text)
    except FileNotFoundError:
        return None
    try:
        return read_regular(inside, name, is_sole=True)
    finally:
        os.close(inside)


def is_ours_alone(folder: int) -> bool:
    """Tell whether root runs this and nobody else may write there: whoever can could choose by a
    file of their own to whom the next key is given."""
    status = os.fstat(folder)
    return os.geteuid() == status.st_uid == 0 and not status.st_mode & 0o022


def _inherit(giving: Giving, kept: Mapping[str, Found]) -> Giving:
    """Where the configuration names no owner, that of the key that is there stays."""
    for name, read in kept.items():
        if "key" in name:
            return replace(giving, owner=giving.owner.or_as(read.uid, read.gid))
    return giving


def _fill(
    folder: int, name: str, pieces: tuple[Piece, ...], giving: Giving, kept: Mapping[str, Found]
) -> None:
    inside = make_folder(folder, name)
    try:
        for piece in pieces:
            was = kept.get(piece.name)
            write_new(
                inside,
                piece.name,
                piece.octets,
                owner=giving.owner,
                mode=giving.mode if piece.is_secret else giving.mode | 0o444,
                label=was.label if was is not None else None,
            )
        os.fsync(inside)
    finally:
        os.close(inside)
    os.fsync(folder)


def place_file(
    folder: int,
    plan: Plan,
    giving: Giving,
    *,
    journal: Journal,
    before: Placed | None,
    write_down: WriteDown,
) -> Journal:
    """Switch a layout of one file by renaming it; the old one keeps another name meanwhile."""
    (piece,) = plan.pieces
    kind = entry_kind(folder, piece.name)
    if kind is not None and kind != stat.S_IFREG:
        said = "a symlink" if kind == stat.S_IFLNK else "no ordinary file"
        raise PathFault(f"{piece.name!r} is {said}")
    was = read_regular(folder, piece.name)
    owner, label = giving.owner, None
    if was is not None:
        label = was.label
        if is_ours_alone(folder):
            owner = owner.or_as(was.uid, was.gid)
    made = new_name(plan.dots)
    write_new(folder, made, piece.octets, owner=owner, mode=giving.mode, label=label)
    try:
        if before is not None and before.journal.link is None and before.is_switched:
            old = before.journal.old  # what was never settled is not what to go back to
        else:
            old = "file" if was is not None else ""
            _keep_beside(folder, piece.name, has_one=was is not None)
        switched = replace(journal, new=hashlib.sha256(piece.octets).hexdigest(), old=old)
        write_down(switched)
        os.rename(made, piece.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made, dir_fd=folder)
        raise
    with contextlib.suppress(OSError):  # as above
        os.fsync(folder)
    return switched


def before_name(name: str) -> str:
    """Return under which name the old file waits until the new one is settled."""
    return f".{TEMPORARY}before-{name}"


def _keep_beside(folder: int, name: str, *, has_one: bool) -> None:
    beside = before_name(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=folder)
    if has_one:
        os.link(name, beside, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.fsync(folder)


def _file_digest(folder: int, name: str) -> str | None:
    try:
        found = read_regular(folder, name)
    except PathFault:
        return None
    return None if found is None else hashlib.sha256(found.octets).hexdigest()


def put_back(folder: int, journal: Journal) -> None:
    """Undo the switch; what was undone already, or never done, stays as it is."""
    if not Placed(folder, journal).is_switched:
        return
    if journal.link is None:
        name = journal.names[0]
        if journal.old:
            if entry_kind(folder, before_name(name)) != stat.S_IFREG:
                raise PathFault("it was given up already, and the new one stays")
            os.rename(before_name(name), name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
        os.fsync(folder)
        return
    if journal.old:
        if entry_kind(folder, journal.old) != stat.S_IFDIR:
            raise PathFault("it was given up already, and the new one stays")
        put_link(folder, journal.link, journal.old)
    else:
        os.unlink(journal.link, dir_fd=folder)
        for name in journal.names:
            if link_text(folder, name) == f"{journal.link}/{name}":
                os.unlink(name, dir_fd=folder)
    os.fsync(folder)
    remove(folder, journal.new)


def put_by(folder: int, journal: Journal, until: int) -> None:
    """Keep what was there before until that second, or take it away where that is 0."""
    if not journal.old or not Placed(folder, journal).is_switched:
        return
    name = before_name(journal.names[0]) if journal.link is None else journal.old
    if not until:
        remove(folder, name)
    else:
        kept = f"{journal.dots}{PREVIOUS}{until}-{_own_part(journal)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, kept, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def _own_part(journal: Journal) -> str:
    """Return what tells one previous pair from another: a folder's own name, or the file's with
    what replaced it."""
    if journal.link is not None:
        return journal.old.lstrip(".").removeprefix(TEMPORARY)
    stem, dot, ending = journal.names[0].rpartition(".")
    return f"{stem}-before-{journal.fingerprint[:16]}{dot}{ending}"
