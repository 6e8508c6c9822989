"""The trail's rooms: when checkpoints are taken, and what a commit takes along."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.app.audit import AuditRooms
from broker.config import Config
from broker.issuance.audit_ports import CheckpointRecord
from broker.issuance.checkpoints import Checkpointing
from broker.issuance.errors import Unreachable
from broker.issuance.signatures import SignatureNotes
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.clock import FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.fakes.signer import FakeSigner
from tests.unit.config.conftest import parsed
from tests.unit.issuance.test_checkpoints import KEY, OneKey


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open, empty store."""
    opened = await open_fresh(tmp_path / "s.db")
    yield opened
    await opened.close()


async def rooms(
    store: SqliteStore, changes: dict[str, Any] | None = None
) -> tuple[AuditRooms, FakeSigner]:
    """Return the rooms over *store*, and who signs."""
    signer, clock = FakeSigner(), FakeClock()
    await signer.create_key(KEY, "ec-p256")
    notes = SignatureNotes(clock)
    store.take_along(notes.take)
    checkpointing = Checkpointing(
        store, OneKey(), signer, broker="https://acme.example", clock=clock
    )
    config: Config = parsed(changes or {})
    made = AuditRooms(config, store, notes=notes, checkpointing=checkpointing, clock=clock)
    store.on_committed = made.on_events
    return made, signer


async def test_so_many_records_are_signed_at_once(store: SqliteStore, tmp_path: Path) -> None:
    """Long before the minute is over; what was signed is sent, and the end signs the rest."""
    path = tmp_path / "audit.jsonl"
    sinks = {"a": {"kind": "file", "path": str(path)}}
    made, _ = await rooms(store, {"audit": {"checkpoints": {"records": 3}, "sinks": sinks}})
    signed, add = asyncio.Event(), store.add_checkpoint

    async def told(checkpoint: CheckpointRecord) -> None:
        await add(checkpoint)
        signed.set()

    store.add_checkpoint = told  # type: ignore[method-assign]
    async with AsyncExitStack() as stack:
        await made.begin(stack)
        for _ in range(3):
            await store.append(given.event(), durable=False)
        await signed.wait()
        first = await store.last_checkpoint()
        await store.append(given.event(), durable=False)
    assert first is not None
    assert first.seq == 3
    last = await store.last_checkpoint()
    assert last is not None
    assert last.seq == 4
    lines = path.read_text().splitlines()
    assert len(lines) == 6
    assert last.jws in lines[-1]
    assert [one.position.seq for one in made.states()] == [4]


async def test_broker_that_signed_nothing_signs_nothing_at_its_end(store: SqliteStore) -> None:
    """A stop is not held up by a key that has to be opened first."""
    made, signer = await rooms(store)
    async with AsyncExitStack() as stack:
        await made.begin(stack)
        await store.append(given.event(), durable=False)
    assert signer.signatures == 0


async def test_fault_of_a_checkpoint_is_told_until_one_is_made(store: SqliteStore) -> None:
    """What was not covered is covered by the next."""
    made, signer = await rooms(store)
    await store.append(given.event(), durable=False)
    signer.is_away = True
    with pytest.raises(Unreachable):
        await made.take_checkpoint()
    told = made.checkpoint_fault
    assert told is not None
    signer.is_away = False
    assert await made.take_checkpoint() is not None
    assert made.checkpoint_fault is None
    assert (await made.public_key())[0] == KEY


async def test_what_waits_is_written_before_the_store_closes(store: SqliteStore) -> None:
    """A command that asked Vault for a signature and changed nothing leaves it in the trail."""
    made, _ = await rooms(store)
    made.notes.note("vault:transit/k#1", "r1")
    await made.flush()
    await made.flush()
    (record,) = await store.audit_records(after=0, limit=10)
    assert record.data["signatures"][0]["vault_request"] == "r1"
