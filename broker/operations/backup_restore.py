"""A backup put back into an empty state directory, and marked as such.

Everything is unpacked beside, checked against the manifest and read as a store before any of it
takes its place; the store comes last, so that a broker never starts over half of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from broker.issuance.accounts import new_id
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import RestorationRecord
from broker.operations.backup import BACKUPS, STORE_MEMBER
from broker.operations.backup_archive import CHUNK_BYTES, Manifest, Member, read_archive
from broker.storage.backup import check_store
from broker.storage.sqlite import SqliteStore

__all__ = ["CRL_NUMBERS_A_SECOND", "LEAST_CRL_NUMBERS", "Restored", "restore_backup"]

WORKSHOP: Final = ".restore"
"""Directory in the state directory where the backup is unpacked to."""

HARMLESS: Final = frozenset({"lost+found", WORKSHOP, BACKUPS})
"""What may lie in a state directory that counts as empty: a file system's own, what a restore that
was killed left behind, and the backups of before migrations."""

FOLDER_MODE: Final = 0o700
"""Mode of the state directory and of those in it."""

CRL_NUMBERS_A_SECOND: Final = 1_000
"""CRL numbers that are left out for each second since the backup.

RFC 5280 §5.2.3 wants numbers that only grow.  How many lists were signed since the backup nobody
knows; each takes a commit and a signature, so a thousand a second were not.
"""

LEAST_CRL_NUMBERS: Final = 1_000_000
"""CRL numbers that are left out at least: the clock may be wrong by a quarter of an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back."""

    manifest: Manifest
    restoration_id: str
    crl_numbers: int
    """How many CRL numbers each issuer leaves out."""


def restore_backup(
    path: Path, state: Path, *, passphrase: bytes, now: datetime, actor: Actor
) -> Restored:
    """Put the backup at *path* into *state*, which has to be empty, and mark it as restored.

    For commands: it runs an event loop of its own.

    Raises:
        Broken: The directory is not empty, or the backup cannot be used; nothing was changed.
        Unreachable: The disk is full or failing.
    """
    _check_empty(state)
    shop = state / WORKSHOP
    try:
        state.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(shop)
        shop.mkdir(mode=FOLDER_MODE)
        try:
            manifest = read_archive(
                path, passphrase, lambda one, content: _unpack(shop, one, content)
            )
            _check(shop / STORE_MEMBER, manifest)
            restored = asyncio.run(_mark(shop, manifest, now, actor))
            _move(shop, state, manifest)
        finally:
            shutil.rmtree(shop, ignore_errors=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unreachable(f"state directory {state} cannot be written: {reason}") from error
    return restored


def _check_empty(state: Path) -> None:
    try:
        found = sorted(set(os.listdir(state)) - HARMLESS)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"state directory {state} cannot be read: {reason}") from error
    if found:
        shown = ", ".join(found[:5])
        raise Broken(
            f"state directory {state} is not empty, it holds {shown}: a backup is restored into "
            f"an empty one. Stop the broker, and keep what is there: mv {state} {state}.before"
        )


def _unpack(shop: Path, member: Member, content: BinaryIO) -> None:
    target = shop / member.name
    target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            file.write(chunk)
        file.flush()
        # Whatever the manifest says, nothing becomes writable or executable for others.
        os.fchmod(file.fileno(), member.mode & 0o644)
        os.fsync(file.fileno())


def _check(database: Path, manifest: Manifest) -> None:
    """Read the whole store once more, as SQLite sees it."""
    if not database.is_file():
        raise Broken("backup holds no store")
    facts = check_store(database)
    if facts.counts != manifest.counts or facts.schema != manifest.schema:
        raise Broken("the store in the backup is not the one that its manifest tells of")


async def _mark(shop: Path, manifest: Manifest, now: datetime, actor: Actor) -> Restored:
    """Read the store, bring it up to date, and write into it that it was restored."""
    elapsed = max(0, int((now - manifest.made_at).total_seconds()))
    restored = Restored(
        manifest=manifest,
        restoration_id=new_id(),
        crl_numbers=max(LEAST_CRL_NUMBERS, CRL_NUMBERS_A_SECOND * elapsed),
    )
    store = await SqliteStore.open(shop / STORE_MEMBER)
    try:
        await store.begin_restoration(
            RestorationRecord(
                restoration_id=restored.restoration_id,
                backup_id=manifest.backup_id,
                backup_at=manifest.made_at,
                restored_at=now,
                reconciled_at=None,
                report={},
            ),
            crl_numbers=restored.crl_numbers,
            event=_event(manifest, restored, now, actor),
        )
    finally:
        await store.close()
    return restored


def _event(manifest: Manifest, restored: Restored, now: datetime, actor: Actor) -> Event:
    return Event(
        kind=EventKind.STORE_RESTORED,
        at=now,
        actor=actor,
        data={
            "restoration_id": restored.restoration_id,
            "backup_id": manifest.backup_id,
            "backup_at": manifest.made_at.isoformat(),
            "backup_version": manifest.version,
            "last_event": manifest.last_event,
            "crl_numbers_left_out": restored.crl_numbers,
        },
    )


def _move(shop: Path, state: Path, manifest: Manifest) -> None:
    """Give everything its place and its owner, the store last."""
    owner = state.stat()
    if os.geteuid() == 0:
        # Restored by root for a broker that is not: the directory tells whose it is.
        for folder, _, names in os.walk(shop):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    tops = sorted({one.name.partition("/")[0] for one in manifest.members} - {STORE_MEMBER})
    for name in tops:
        (shop / name).rename(state / name)
    _sync(state)
    if (state / STORE_MEMBER).exists():
        raise Broken(f"a store has appeared in {state} meanwhile: stop the broker first")
    (shop / STORE_MEMBER).rename(state / STORE_MEMBER)
    _sync(state)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
