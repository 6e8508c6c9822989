"""Mass replacements over a real store."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.incident_ports import (
    IncidentItem,
    IncidentRecord,
    IncidentStatus,
    ItemKind,
    ItemStatus,
)
from broker.issuance.records import Job, JobKind
from tests.fakes.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with one certificate."""
    async with World(tmp_path) as made:
        await (await made.client()).issue("www.example.com")
        yield made


async def start(world: World) -> tuple[IncidentRecord, IncidentItem]:
    """Keep an incident with the one certificate."""
    now = world.clock.now()
    (kept,) = await world.store.list_certificates(community=None, after=None, limit=9)
    incident = IncidentRecord(
        incident_id="i1", status=IncidentStatus.OPEN, selection={"profile": "server"},
        started_at=now, deadline_at=None, started_by="operator:ann", reason=None,
        revocation_reason=4, at_once=5,
    )  # fmt: skip
    item = IncidentItem(
        incident_id="i1", certificate_id=kept.certificate_id, kind=ItemKind.STOCK,
        managed_id=None, node=None, status=ItemStatus.PULLED, note=None, attempts=0,
        retry_at=None, place=0,
    )  # fmt: skip
    event = Event(kind=EventKind.INCIDENT_STARTED, at=now)
    job = Job(kind=JobKind.INCIDENT, subject="i1", due_at=now)
    await world.store.start_incident(incident, [item], event, job)
    return incident, item


async def test_incident_and_items_come_back_as_they_were_kept(world: World) -> None:
    """With the job that carries it out."""
    incident, item = await start(world)
    assert await world.store.find_incident("i1") == incident
    assert await world.store.find_incident("i2") is None
    assert await world.store.list_incidents(10) == [incident]
    assert await world.store.incident_items("i1", [ItemStatus.PULLED], 10) == [item]
    assert await world.store.incident_items("i1", [ItemStatus.WAITING], 10) == []
    assert await world.store.find_job(JobKind.INCIDENT, "i1") is not None
    changed = replace(item, status=ItemStatus.GONE, note="it ended")
    await world.store.keep_item(changed)
    assert await world.store.incident_items("i1", [ItemStatus.GONE], 10) == [changed]
    counts = await world.store.count_items("i1")
    assert counts == {ItemKind.MANAGED: {}, ItemKind.STOCK: {ItemStatus.GONE: 1}}


async def test_status_changes_only_from_what_is_expected(world: World) -> None:
    """Two people at once do not undo each other."""
    incident, _ = await start(world)
    paused = replace(incident, status=IncidentStatus.PAUSED)
    await world.store.change_incident(paused, expected=[IncidentStatus.OPEN], events=[])
    with pytest.raises(Conflict, match="is paused, expected open"):
        await world.store.change_incident(paused, expected=[IncidentStatus.OPEN], events=[])
