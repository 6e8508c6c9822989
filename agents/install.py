"""Puts a verified pair in its place, in one step, and can take it back exactly.

What will be switched is written down in the node's state first.  At whatever point the agent is
killed, key and chain on the disk belong together: either the old pair or the new one.  Then
``unfinished`` finds what was switched and is neither settled nor undone, and ``agents.recovery``
clears away what never came that far.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from agents.child import ChildFault, run_child
from agents.clock import Clock, SystemClock
from agents.keys import KeyFault, settle_keys
from agents.layouts import Files, LayoutFault, Material, Plan, make_plan, place_of
from agents.owners import OwnerFault, find_ownership
from agents.paths import PathFault, open_folder
from agents.references import ReferenceFault, read_reference
from agents.state import Folder, StateFault
from agents.switching import (
    Giving,
    Journal,
    Placed,
    place_file,
    place_folder,
    put_back,
    put_by,
)

__all__ = ["InstallFault", "Installation", "install", "unfinished"]

MAX_KEY_BYTES: Final = 64 * 1024
"""Largest key that is installed, in bytes; one of 4096 bits measures 3.3 kB."""


_FAULTS: Final = (PathFault, OwnerFault, LayoutFault, StateFault, ChildFault, ReferenceFault)


class InstallFault(Exception):
    """The pair is not in its place; what was there still is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FilesSection(Files, Protocol):
    """What is read of ``[certificate.files]``."""

    @property
    def owner(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def mode(self) -> int: ...
    @property
    def password(self) -> str | None: ...


class _Key(Protocol):
    @property
    def keep_previous(self) -> timedelta: ...


class Section(Protocol):
    """What is read of ``[[certificate]]``."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> _Key: ...
    @property
    def files(self) -> FilesSection | None: ...


class Pair(Protocol):
    """What is read of a verified certificate."""

    @property
    def chain_pem(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def spki_sha256(self) -> str: ...
    @property
    def anchors_pem(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Installation:
    """A pair that is in its place and can still be taken back."""

    files: FilesSection
    journal: Journal
    allowed: Sequence[str]
    state_dir: str
    clock: Clock = field(default_factory=SystemClock)

    def undo(self) -> None:
        """Put back exactly what was there before; doing it twice is doing it once.

        Raises:
            InstallFault: It cannot be put back now.
        """
        try:
            with open_folder(place_of(self.files)[0], self.allowed) as folder:
                put_back(folder, self.journal)
            journals(self.state_dir).remove(self.journal.certificate)
        except (OSError, PathFault, StateFault) as error:
            raise InstallFault(f"the old pair cannot be put back: {_said(error)}") from None

    def settle(self) -> None:
        """Give up what was there before, or put it by for as long as its key has to be kept.

        Raises:
            InstallFault: It cannot be put by; the new pair stays in its place.
        """
        until = int(self.clock.now().timestamp()) + self.journal.keep_seconds
        if not self.journal.keep_seconds:
            until = 0
        try:
            settle_keys(
                self.journal.certificate, self.journal.spki_sha256, self.state_dir, until=until
            )
            with open_folder(place_of(self.files)[0], self.allowed) as folder:
                put_by(folder, self.journal, until)
            journals(self.state_dir).remove(self.journal.certificate)
        except (OSError, PathFault, KeyFault, StateFault) as error:
            raise InstallFault(f"the previous pair cannot be put by: {_said(error)}") from None


def install(
    section: Section,
    pair: Pair,
    key_reference: str,
    *,
    allowed: Sequence[str],
    state_dir: str,
    keep_previous: timedelta = timedelta(0),
    clock: Clock | None = None,
) -> Installation:
    """Put a pair in its place.

    *key_reference* is the path of the key in the node's state, or its URI on a token;
    *keep_previous* is what the broker asks for, and the longer of it and the node's own stands.

    Raises:
        InstallFault: It was not put in its place; nothing has changed for whoever reads there.
    """
    files = section.files
    if files is None:
        raise InstallFault(f"certificate {section.name!r} has no files; it is a driver's")
    seconds = int(max(section.key.keep_previous, keep_previous).total_seconds())
    try:
        giving = Giving(find_ownership(files.owner, files.group), files.mode)
        plan = make_plan(files, _material(files, pair, key_reference, state_dir))
        began = Journal(
            certificate=section.name,
            fingerprint=pair.fingerprint,
            spki_sha256=pair.spki_sha256,
            keep_seconds=seconds,
            link=plan.link,
            names=tuple(piece.name for piece in plan.pieces),
        )
        journal = _switch(plan, giving, began, allowed=allowed, state_dir=state_dir)
    except _FAULTS as error:
        raise InstallFault(str(error)) from None
    except OSError as error:
        raise InstallFault(f"{files.directory}: {_said(error)}") from None
    return Installation(files, journal, allowed, state_dir, clock or SystemClock())


def unfinished(
    section: Section, *, allowed: Sequence[str], state_dir: str, clock: Clock | None = None
) -> Installation | None:
    """Return what was put in its place and is neither undone nor settled; None: nothing.

    Raises:
        InstallFault: The state or the folder cannot be read.
    """
    files = section.files
    if files is None:
        return None
    try:
        journal = read_journal(section.name, state_dir)
        if journal is None:
            return None
        with open_folder(place_of(files)[0], allowed) as folder:
            if not Placed(folder, journal).is_switched:
                return None
    except (OSError, PathFault, StateFault) as error:
        raise InstallFault(_said(error)) from None
    return Installation(files, journal, allowed, state_dir, clock or SystemClock())


def journals(state_dir: str) -> Folder:
    """Return where it is written down what is being switched."""
    return Folder(os.path.join(state_dir, "installs"))


def read_journal(name: str, state_dir: str) -> Journal | None:
    """Return what was being switched for a certificate; raises StateFault."""
    found = journals(state_dir).get(name)
    return None if found is None else Journal.parse(found)


def _switch(
    plan: Plan, giving: Giving, began: Journal, *, allowed: Sequence[str], state_dir: str
) -> Journal:
    name = began.certificate

    def write_down(journal: Journal) -> None:
        journals(state_dir).put(name, asdict(journal))

    before = read_journal(name, state_dir)
    place = place_file if plan.link is None else place_folder
    with open_folder(plan.folder, allowed, is_made=True) as folder:
        placed = Placed(folder, before) if before is not None else None
        return place(folder, plan, giving, journal=began, before=placed, write_down=write_down)


def _material(files: FilesSection, pair: Pair, key_reference: str, state_dir: str) -> Material:
    if not key_reference.startswith("/"):
        return Material(
            chain_pem=pair.chain_pem,
            key_pem=None,
            key_uri=key_reference,
            anchors_pem=pair.anchors_pem,
        )
    packed = None
    if str(files.layout) == "pkcs12":
        packed = _pack(files, pair, key_reference, state_dir)
    with open(key_reference, "rb") as file:
        key_pem = file.read(MAX_KEY_BYTES)
    return Material(
        chain_pem=pair.chain_pem,
        key_pem=key_pem,
        anchors_pem=pair.anchors_pem,
        pkcs12=packed,
    )


def _pack(files: FilesSection, pair: Pair, key_path: str, state_dir: str) -> bytes:
    password = read_reference(files.password or "")
    place = os.path.join(state_dir, f"{os.path.basename(key_path)}.{os.urandom(4).hex()}.p12")
    work: dict[str, Any] = {
        "do": "pkcs12",
        "key": key_path,
        "chain_pem": pair.chain_pem,
        "password": password,
        "name": files.file,
        "path": place,
    }
    try:
        run_child(work)
        with open(place, "rb") as file:
            return file.read()
    finally:
        if os.path.lexists(place):
            os.unlink(place)


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error)
