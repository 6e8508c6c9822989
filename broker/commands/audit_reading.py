"""Where a command reads the trail from: the store beside the broker, or files that left the host.

The store is opened for reading only, in the command's own process, so that a broker at work
notices nothing but a reader.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.audit.feeding import entries_of
from broker.commands.failures import CommandFailed
from broker.config import Config
from broker.issuance.audit_chain import ChainedRecord, parse_line
from broker.issuance.audit_ports import CheckpointRecord
from broker.issuance.checkpoints import ParsedCheckpoint, parse_checkpoint
from broker.issuance.errors import Broken, Unreachable
from broker.storage.sqlite import SqliteStore

__all__ = [
    "KeptCheckpoint",
    "Trail",
    "export_store",
    "find_json",
    "lines_of",
    "read_checkpoints",
    "read_file",
    "read_store",
]

PAGE: Final = 2000
"""Records that are read at once: about 1 MiB."""

DATABASE: Final = "penstock.db"
"""The store's name in the state directory."""

MAX_LINE_CHARS: Final = 16 * 1024 * 1024
"""Longest line of a file that is read, in characters; a record takes about 600."""


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint as it was found."""

    parsed: ParsedCheckpoint
    vault_request: str | None


@dataclass(slots=True)
class Trail:
    """What was found beside the records themselves."""

    checkpoints: list[KeptCheckpoint] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Lines that are no record and no checkpoint."""
    left_out: int = 0
    """Records that a collector was only told the digest of."""


Take = Callable[[ChainedRecord], None]


def read_store(config: Config, take: Take) -> Trail:
    """Hand every record of the store to *take*, and return what else there is.

    Raises:
        CommandFailed: The store cannot be read.
    """
    try:
        return asyncio.run(_read_store(_store_of(config), take))
    except (Broken, Unreachable) as error:
        raise CommandFailed(error.reason) from error


def _store_of(config: Config) -> Path:
    path = config.state / DATABASE
    if not path.is_file():
        raise CommandFailed(f"there is no store {path}: was this broker ever started?")
    return path


async def _read_store(path: Path, take: Take) -> Trail:
    trail = Trail()
    store = await SqliteStore.open(path, exclusive=False)
    try:
        after = 0
        while records := await store.audit_records(after=after, limit=PAGE):
            for record in records:
                take(record)
            after = records[-1].seq
        for one in await _all_checkpoints(store):
            parsed = parse_checkpoint(one.jws)
            trail.checkpoints.append(KeptCheckpoint(parsed, one.vault_request))
    finally:
        await store.close()
    return trail


def read_file(path: Path, take: Take) -> Trail:
    """Hand every record in a file to *take*: what a sink wrote, or an export.

    Lines may have more around them, as a collector's own time and host: what counts is the JSON.

    Raises:
        CommandFailed: The file cannot be read.
    """
    trail = Trail()
    for number, line in enumerate(lines_of(path), 1):
        text = find_json(line)
        if text is None:
            if line.strip():
                trail.unreadable.append(f"line {number} of {path}: no record and no checkpoint")
            continue
        try:
            _take_line(text, take, trail)
        except Broken as error:
            trail.unreadable.append(f"line {number} of {path}: {error.reason}")
    return trail


def _take_line(text: str, take: Take, trail: Trail) -> None:
    if text.startswith('{"checkpoint"'):
        try:
            document = json.loads(text)
            jws, request = str(document["checkpoint"]), document.get("vault_request")
        except (ValueError, KeyError, RecursionError) as error:
            raise Broken("a checkpoint that cannot be read") from error
        trail.checkpoints.append(KeptCheckpoint(parse_checkpoint(jws), request))
    elif text.startswith('{"left_out"'):
        trail.left_out += 1
    else:
        take(parse_line(text))


def find_json(line: str) -> str | None:
    """Return the record or the checkpoint in a line, without what stands around it."""
    for start in ('{"digest"', '{"checkpoint"', '{"left_out"'):
        place = line.find(start)
        if place >= 0:
            return line[place:].rstrip("\r\n ")
    return None


def read_checkpoints(path: Path) -> Sequence[KeptCheckpoint]:
    """Return the checkpoints in a file: bare, a line each, or among records.

    Raises:
        CommandFailed: It cannot be read, or holds none.
    """
    found: list[KeptCheckpoint] = []
    for line in lines_of(path):
        text = find_json(line)
        with suppress(Broken, ValueError, KeyError, RecursionError):
            if text is None:
                found.append(KeptCheckpoint(parse_checkpoint(line.strip()), None))
            elif text.startswith('{"checkpoint"'):
                document = json.loads(text)
                parsed = parse_checkpoint(str(document["checkpoint"]))
                found.append(KeptCheckpoint(parsed, document.get("vault_request")))
    if not found:
        raise CommandFailed(f"there is no checkpoint in {path}")
    return found


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        CommandFailed: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE_CHARS):
                yield line
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{path} cannot be read: {reason}") from error


def export_store(config: Config, after: int, write: Callable[[str], None]) -> int:
    """Hand every line of an export to *write*, records past number *after*; return how many.

    Raises:
        CommandFailed: The store cannot be read.
    """
    try:
        return asyncio.run(_export(_store_of(config), after, write))
    except (Broken, Unreachable) as error:
        raise CommandFailed(error.reason) from error


async def _export(path: Path, after: int, write: Callable[[str], None]) -> int:
    store = await SqliteStore.open(path, exclusive=False)
    count = 0
    try:
        waiting = [one for one in await _all_checkpoints(store) if one.seq > after]
        while records := await store.audit_records(after=after, limit=PAGE):
            after = records[-1].seq
            covering = [one for one in waiting if one.seq <= after]
            waiting = waiting[len(covering) :]
            for entry in entries_of(records, covering):
                write(entry.line)
                count += 1
    finally:
        await store.close()
    return count


async def _all_checkpoints(store: SqliteStore) -> Sequence[CheckpointRecord]:
    found: list[CheckpointRecord] = []
    while kept := await store.checkpoints(after=found[-1].number if found else 0, limit=PAGE):
        found += kept
    return found
