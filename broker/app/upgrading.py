"""The store as this version needs it: a sealed backup first, then the migrations.

The backup is the one of ``penstock backup``, made with the store's lock held and before the first
statement.  What cannot be backed up is not migrated (docs/adr/0034).
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from broker.app.inspecting import DATABASE
from broker.app.secrets import is_for_one_login, read_passphrase
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Clock
from broker.operations.backup import BACKUPS, MadeBackup, make_backup
from broker.storage.glance import glance
from broker.storage.sqlite import SqliteStore

__all__ = ["open_store"]

log = structlog.get_logger("penstock")

FOLDER_MODE: Final = 0o700
"""Mode of the directory of backups: its owner's alone, though what is in it is sealed."""


async def open_store(config: Config, clock: Clock) -> SqliteStore:
    """Open the store of *config*; a backup precedes whatever changes its form.

    Raises:
        StoreLocked: Another process works on it.
        Unreachable: The disk is full or failing, or Vault, where the passphrase lies, is away.
        Broken: The store is of no use, or cannot be backed up; nothing was changed.
    """
    path = config.state / DATABASE
    seen = await asyncio.to_thread(glance, path)
    if seen is None or not seen.pending or config.upgrade.backup == "never":
        return await SqliteStore.open(path)
    passphrase = await _passphrase(config)
    now, made = clock.now(), list[MadeBackup]()

    def back_up(present: int, wanted: int) -> None:
        log.info("backup before migrations", schema=present, wanted=wanted)
        made.append(_back_up(config, present, passphrase, now))

    store = await SqliteStore.open(path, before_migrating=back_up)
    try:
        for one in made:
            log.info("store migrated", schema=seen.present, backup=str(one.path), bytes=one.size)
            await store.append(_event(one, now), durable=True)
    except BaseException:
        await store.close()
        raise
    return store


async def _passphrase(config: Config) -> bytes:
    """Return what the backup is sealed under."""
    reference = config.keys.passphrase
    if is_for_one_login(config, reference):
        raise Broken(
            f"store has to be migrated, and the passphrase {reference} of the backup before that is"
            " behind a login that works once: make the backup with the version before, then set"
            " upgrade.backup to never for one start"
        )
    try:
        return await read_passphrase(config)
    except Unreachable as error:
        raise Unreachable(
            f"store has to be migrated and is not yet, for it cannot be backed up: {error.reason}"
        ) from error


def _back_up(config: Config, present: int, passphrase: bytes, now: datetime) -> MadeBackup:
    folder = config.upgrade.backups or config.state / BACKUPS
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"backup before the migration: {folder} cannot be made: {reason}") from error
    target = _free(folder, f"penstock-schema-{present}-{now:%Y%m%dT%H%M%SZ}")
    return make_backup(
        config.state, target, passphrase=passphrase, version=version("penstock"), now=now
    )


def _free(folder: Path, name: str) -> Path:
    """Return a path that nothing has: a start that failed may have been in this very second."""
    target, number = folder / f"{name}.backup", 1
    while target.exists():
        number += 1
        target = folder / f"{name}-{number}.backup"
    return target


def _event(made: MadeBackup, now: datetime) -> Event:
    manifest = made.manifest
    data = {
        "backup_id": manifest.backup_id,
        "made_at": manifest.made_at.isoformat(),
        "bytes": made.size,
        "for": f"the migration from schema {manifest.schema}",
    }
    return Event(kind=EventKind.BACKUP_MADE, at=now, data=data)
