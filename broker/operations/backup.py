"""Backups: made beside a working broker, verified, and put back.

A backup holds the store and every other file of the state directory.  The store is copied first:
keys and CA files are made before the store names them, so a backup never names what it lacks.
Everything in it is sealed under the key passphrase, since the store holds MAC keys of external
account bindings in the clear and who asked for what.  The passphrase itself is never in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from broker.issuance.accounts import new_id
from broker.issuance.errors import Broken, Unreachable
from broker.operations.backup_archive import (
    CHUNK_BYTES,
    MEMBER_NAME,
    Manifest,
    Member,
    Source,
    hash_of,
    read_archive,
    write_archive,
)
from broker.storage.backup import StoreFacts, copy_store

__all__ = ["BACKUPS", "STORE_MEMBER", "MadeBackup", "make_backup", "manifest_view", "verify_backup"]

STORE_MEMBER: Final = "penstock.db"
"""The store's name in the state directory and in a backup."""

WORKSHOP: Final = ".backup"
"""Directory in the state directory where the store is copied to: what is in the clear never lies
anywhere else."""

BACKUPS: Final = "backups"
"""Directory in the state directory that holds backups of before migrations, and is in none."""

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Largest file beside the store, in bytes; a key takes 3 KiB, a chain 10."""

FILE_MODE: Final = 0o600
"""Mode of a backup: its owner's alone, sealed or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBackup:
    """A backup that was made and read back."""

    path: Path
    size: int
    manifest: Manifest
    skipped: tuple[str, ...]
    """Files of the state directory that have no place in a backup, such as sockets."""


def make_backup(
    state: Path, output: Path, *, passphrase: bytes, version: str, now: datetime
) -> MadeBackup:
    """Back the state directory up to *output*: a file, or a directory that gets one.

    Written beside and renamed, so that there is never half a backup under that name; then read
    back whole.

    Raises:
        Broken: There is no store, it is damaged, or *output* is taken.
        Unreachable: The disk is full or failing.
    """
    target = _target(output, now)
    try:
        with _workshop(state) as shop:
            copy = shop / STORE_MEMBER
            facts = copy_store(state / STORE_MEMBER, copy)
            beside, skipped = _files(state)
            sources = [_source(STORE_MEMBER, copy, FILE_MODE), *beside]
            manifest = _manifest(facts, sources, version, now)
            _write(target, manifest, sources, passphrase)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unreachable(f"backup {target} cannot be written: {reason}") from error
    try:
        verify_backup(target, passphrase)
    except Broken:
        # What cannot be read back is worth less than nothing: somebody would rely on it.
        target.unlink(missing_ok=True)
        raise
    return MadeBackup(
        path=target, size=target.stat().st_size, manifest=manifest, skipped=tuple(skipped)
    )


def verify_backup(path: Path, passphrase: bytes) -> Manifest:
    """Read the whole of a backup, and return its manifest.

    Raises:
        Broken: It is no backup, is damaged or cut off, or another passphrase sealed it.
    """

    def pass_over(_member: Member, content: BinaryIO) -> None:
        while content.read(CHUNK_BYTES):
            pass

    return read_archive(path, passphrase, pass_over)


def _target(output: Path, now: datetime) -> Path:
    name = f"penstock-{now:%Y%m%dT%H%M%SZ}.backup"
    target = output / name if output.is_dir() else output
    if target.exists():
        raise Broken(f"{target} is there already; name another file")
    if not target.parent.is_dir():
        raise Broken(f"there is no directory {target.parent}")
    return target


def _write(target: Path, manifest: Manifest, sources: list[Source], passphrase: bytes) -> None:
    draft = target.with_name(f".{target.name}.{new_id()[:8]}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, FILE_MODE), "w+b") as file:
            write_archive(file, manifest, sources, passphrase)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _manifest(facts: StoreFacts, sources: list[Source], version: str, now: datetime) -> Manifest:
    return Manifest(
        backup_id=new_id(),
        made_at=now,
        version=version,
        schema=facts.schema,
        counts=facts.counts,
        last_event=facts.last_event,
        members=tuple(one.member for one in sources),
    )


def _files(state: Path) -> tuple[list[Source], list[str]]:
    """Return every file beside the store, read, and the names of what was passed over."""
    found, skipped = [], []
    for folder, folders, names in os.walk(state):
        folders[:] = sorted(
            one
            for one in folders
            if not one.startswith(".") and (Path(folder) != state or one != BACKUPS)
        )
        for name in sorted(names):
            path = Path(folder, name)
            place = path.relative_to(state).as_posix()
            if place.startswith(STORE_MEMBER) or name.startswith("."):
                continue
            if MEMBER_NAME.fullmatch(place) is None or not stat.S_ISREG(path.lstat().st_mode):
                skipped.append(place)
                continue
            found.append(_source(place, _content(path), stat.S_IMODE(path.lstat().st_mode)))
    return found, skipped


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise Broken(f"{path} is larger than {MAX_FILE_BYTES} bytes, and no file of a broker")
    return content


def _source(name: str, content: bytes | Path, mode: int) -> Source:
    size, sha256 = hash_of(content)
    return Source(
        member=Member(name=name, size=size, sha256=sha256, mode=mode & 0o755), content=content
    )


@contextmanager
def _workshop(state: Path) -> Iterator[Path]:
    """Yield an empty directory within *state*, for one backup at a time; it is gone afterwards."""
    shop = state / WORKSHOP
    try:
        shop.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"{shop} cannot be made: {reason}") from error
    descriptor = os.open(shop, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken("another backup of this broker is being made") from None
        for leftover in shop.iterdir():  # of a backup whose process was killed
            leftover.unlink()
        yield shop
        with suppress(OSError):
            shutil.rmtree(shop)
    finally:
        os.close(descriptor)


def manifest_view(manifest: Manifest) -> Mapping[str, object]:
    """Return a manifest as a person sees it."""
    document = manifest.to_json()
    members = len(manifest.members)
    size = sum(one.size for one in manifest.members)
    return {**document, "members": members, "bytes": size}
