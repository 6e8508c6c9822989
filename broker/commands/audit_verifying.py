"""What ``penstock audit verify`` and ``reconcile`` find, as documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from broker.audit.reconciling import (
    AROUND,
    KeptSignature,
    Reconciled,
    VaultSignature,
    key_of,
    signatures_of,
)
from broker.audit.verification import ChainReading
from broker.clock import SystemClock
from broker.commands.audit_reading import (
    KeptCheckpoint,
    Trail,
    lines_of,
    read_checkpoints,
    read_file,
    read_store,
)
from broker.commands.failures import CommandFailed
from broker.config import Config
from broker.issuance.audit_chain import ChainedRecord
from broker.issuance.checkpoints import Checkpoint, parse_public_keys, verify_checkpoint
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.protocol.encoding import format_timestamp

__all__ = ["COMMIT_LAG", "LOOK_SECONDS", "reconciled", "verified"]

COMMIT_LAG: Final = timedelta(seconds=6)
"""How long a signature that Vault has answered may be missing in the store: a second until a commit
takes it along (``broker/app/audit.py``), and five that the commit may wait for a lock
(``broker/storage/database.py``).  The answer itself may take as long as ``vault.timeout`` says."""

LOOK_SECONDS: Final = 0.5
"""Pause before the trail is read again, in seconds: most records come within a second."""

_CLOCK: Final = SystemClock()


def verified(
    config: Config | None,
    file: Path | None,
    *,
    checkpoints: Path | None,
    keys: Path | None,
    accepted: Collection[str],
) -> dict[str, Any]:
    """Return what was found in the store of *config*, or in *file*.

    Raises:
        CommandFailed: Something cannot be read.
    """
    reading = ChainReading(may_repeat=file is not None)
    trail = _read(config, file, reading)
    for sentence in trail.unreadable:
        reading.tell(None, sentence)
    notes = _notes(reading, trail)
    kept = trail.checkpoints if checkpoints is None else read_checkpoints(checkpoints)
    if checkpoints is None:
        notes.append(
            "only the checkpoints that lie beside the chain were held against it; give those that "
            "left the host as --checkpoints"
        )
    if keys is None and kept:
        notes.append("signatures of checkpoints were not verified: give --public-key")
    reading.compare(_verified(kept, keys, reading), accepted)
    if checkpoints is not None:
        _check_left_behind(reading, trail, kept)
    return _report(reading, notes)


def reconciled(
    config: Config,
    file: Path | None,
    logs: Sequence[Path],
    *,
    also: Collection[str],
    clock: Clock = _CLOCK,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Return what is only in Vault's log, and what is only in the trail.

    The trail is read after the log, so that it has the record of whatever stands there.  A record
    is made after its signature: where the newest may still come, the store is looked at again.  A
    file gets no more records, and is not waited for.

    Raises:
        CommandFailed: Something cannot be read.
    """
    found = Reconciled()
    for log in logs:
        for line in lines_of(log):
            found.read(line)
    if found.first is None or found.last is None:
        raise CommandFailed(
            f"there is no entry of Vault in {', '.join(str(one) for one in logs)}",
            "give what a file audit device wrote: vault audit enable file file_path=…",
        )
    own = {*also, *_own_keys(config)}
    lag = _lag(config) if file is None else timedelta()
    now = clock.now()
    until = now + lag
    found.compare(_kept(config, file), own)
    while now < until and found.has_made_since(now - lag - AROUND):
        pause(LOOK_SECONDS)
        now = clock.now()  # before the look: what is too old by then was to be seen in it
        found.compare(_kept(config, file), own)
    return _told(found.first, found.last, found)


def _told(first: datetime, last: datetime, found: Reconciled) -> dict[str, Any]:
    return {
        "from": format_timestamp(first),
        "to": format_timestamp(last),
        "signed": len(found.signed),
        "matched": found.matched,
        "unanswered": found.unanswered,
        "outside": found.outside,
        "others": dict(sorted(found.others.items())),
        "only_there": [_there(one) for one in found.only_there],
        "only_here": [_here(one) for one in found.only_here],
    }


def _lag(config: Config) -> timedelta:
    """Return how long after a signature its record may still come."""
    return COMMIT_LAG + (timedelta() if config.vault is None else config.vault.timeout)


def _kept(config: Config, file: Path | None) -> Sequence[KeptSignature]:
    """Return every signature that the trail tells of."""
    kept: list[KeptSignature] = []

    def take(record: ChainedRecord) -> None:
        kept.extend(signatures_of(record))

    trail = read_store(config, take) if file is None else read_file(file, take)
    return kept + [
        _of_checkpoint(one) for one in trail.checkpoints if one.vault_request is not None
    ]


def _read(config: Config | None, file: Path | None, reading: ChainReading) -> Trail:
    if file is not None:
        return read_file(file, reading.read)
    assert config is not None
    return read_store(config, reading.read)


def _verified(
    kept: Sequence[KeptCheckpoint], keys: Path | None, reading: ChainReading
) -> Sequence[Checkpoint]:
    """Return what the checkpoints state; a finding for each that none of the keys signed."""
    if keys is None:
        return [one.parsed.stated for one in kept]
    try:
        known = parse_public_keys(keys.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{keys} cannot be read: {reason}") from error
    except Broken as error:
        raise CommandFailed(f"{keys}: {error.reason}") from error
    stated = []
    for one in kept:
        try:
            stated.append(verify_checkpoint(one.parsed, known))
        except Broken as error:
            reading.tell(one.parsed.stated.seq, error.reason)
    return stated


def _check_left_behind(reading: ChainReading, trail: Trail, kept: Sequence[KeptCheckpoint]) -> None:
    """Find checkpoints beside the chain that are missing off the host: a sink lost them, or they
    were made by somebody who did not send them."""
    known = {one.parsed.stated.digest for one in kept}
    newest = max(one.parsed.stated.seq for one in kept)
    for one in trail.checkpoints:
        stated = one.parsed.stated
        if stated.seq < newest and stated.digest not in known:
            reading.tell(
                stated.seq,
                f"the checkpoint at record {stated.seq}, {format_timestamp(stated.at)}, is not "
                "among those that left the host, and later ones are",
            )


def _notes(reading: ChainReading, trail: Trail) -> list[str]:
    notes = []
    if reading.begins_after is not None:
        notes.append(
            f"it begins at record {reading.first}; what came before was not looked at, and ends "
            f"with digest {reading.begins_after.hex()}"
        )
    if trail.left_out:
        notes.append(
            f"{trail.left_out} records were too long for the collector and are only named there"
        )
    return notes


def _report(reading: ChainReading, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "first": reading.first,
        "last": reading.last,
        "records": reading.records,
        "earlier": reading.earlier,
        "repeated": reading.repeated,
        "restorations": [
            {
                "record": one.seq,
                "at": format_timestamp(one.at),
                "restoration": one.restoration_id,
                "backup": one.backup_id,
            }
            for one in reading.restorations
        ],
        "checkpoints": {
            "matched": len(reading.matched),
            "of_records_before": reading.before,
            "of_what_was_left_behind": len(reading.accepted),
            "covered": reading.covered,
            "not_covered": reading.last - reading.covered,
        },
        "notes": list(notes),
        "findings": [{"record": one.seq, "sentence": one.sentence} for one in reading.findings],
        "left_out": reading.left_out,
    }


def _own_keys(config: Config) -> Sequence[str]:
    from broker.app.checkpoint_keys import checkpoint_key_name

    store = config.audit.checkpoints.key_store
    if config.vault is None or store == "file":
        return ()
    return [f"{store.removeprefix('vault:')}/{checkpoint_key_name(config.vault)}"]


def _of_checkpoint(one: KeptCheckpoint) -> KeptSignature:
    stated = one.parsed.stated
    return KeptSignature(
        request=one.vault_request,
        key=key_of(stated.key_id),
        at=stated.at,
        purpose=f"checkpoint at record {stated.seq}",
        seq=None,
    )


def _there(made: VaultSignature) -> dict[str, Any]:
    return {
        "at": format_timestamp(made.at),
        "key": made.key,
        "request": made.request,
        "who": made.who,
    }


def _here(made: KeptSignature) -> dict[str, Any]:
    return {
        "at": format_timestamp(made.at),
        "key": made.key,
        "request": made.request,
        "purpose": made.purpose,
        "record": made.seq,
    }
