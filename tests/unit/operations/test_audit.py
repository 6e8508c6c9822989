"""The desk about the audit trail."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.audit.feeding import SinkState
from broker.issuance.audit_ports import CheckpointRecord, SinkPosition
from broker.issuance.events import EventKind
from broker.operations import OperatorDesk
from broker.operations.audit import serial_of
from broker.operations.parties import AuditParty
from broker.web.operator import OperationError
from tests.contract.storage import given
from tests.fakes.clock import START
from tests.unit.operations.conftest import ANNA, Office


@dataclass
class FakeKeeper:
    """Signs nothing, and says so."""

    store: Any
    checkpoint_fault: str | None = None
    sinks: list[SinkState] = field(default_factory=list)

    def states(self) -> Sequence[SinkState]:
        return self.sinks

    async def take_checkpoint(self) -> CheckpointRecord | None:
        newest = await self.store.last_audit_record()
        if newest is None:
            return None
        made = CheckpointRecord(number=1, seq=newest[0], at=START, key_id="k", jws="a.b.c")
        await self.store.add_checkpoint(made)
        return made

    async def public_key(self) -> tuple[str, str]:
        return "k", "PEM\n"


@pytest.fixture
def keeper(office: Office) -> FakeKeeper:
    """Who signs and sends."""
    return FakeKeeper(office.world.store)


@pytest.fixture
def desk(office: Office, keeper: FakeKeeper) -> OperatorDesk:
    """The office's desk with a trail."""
    assert isinstance(office.desk, OperatorDesk)
    store: Any = office.world.store
    rooms = replace(office.desk._rooms, audit=AuditParty(keeper, store, store))
    return OperatorDesk(rooms)


async def filled(office: Office, count: int) -> None:
    """Keep so many events about a node."""
    for n in range(count):
        await office.world.store.append(
            given.event(EventKind.NODE_ENROLLED, data={"node": f"n{n}"}), durable=False
        )


async def test_status_tells_what_is_not_covered(
    office: Office, desk: OperatorDesk, keeper: FakeKeeper
) -> None:
    """And how far each sink is behind."""
    await filled(office, 3)
    keeper.sinks = [
        SinkState(position=SinkPosition(name="a", seq=1), fault="collector is away", since=START)
    ]
    before = await desk.audit_status()
    last = before["last_record"]
    assert (before["checkpoint"], before["not_covered"]) == (None, last)
    (sink,) = before["sinks"]
    assert (sink["is_up"], sink["waiting"], sink["fault"]) == (False, last - 1, "collector is away")
    made = await desk.audit_checkpoint(actor=ANNA)
    assert (made["record"], made["made_now"], made["jws"]) == (last, True, "a.b.c")
    after = await desk.audit_status()
    assert (after["checkpoint"]["record"], after["not_covered"]) == (last, 0)


async def test_log_tells_who_asked_for_a_checkpoint(office: Office, desk: OperatorDesk) -> None:
    """And why, where they said it."""
    await filled(office, 1)
    with capture_logs() as lines:
        await desk.audit_checkpoint(actor=ANNA)
    (line,) = [one for one in lines if one["event"] == "checkpoint asked for"]
    assert (line["actor"], line["reason"]) == (ANNA.name, ANNA.reason)


async def test_public_key_is_told(desk: OperatorDesk) -> None:
    """As PEM."""
    assert await desk.audit_public_key() == {"key": "k", "pem": "PEM\n"}


async def test_export_goes_page_by_page(office: Office, desk: OperatorDesk) -> None:
    """Each page says where the next begins; a checkpoint follows its record."""
    await filled(office, 3)
    await desk.audit_checkpoint(actor=ANNA)
    lines: list[str] = []
    after = checkpoint = 0
    for _ in range(10):
        page = await desk.audit_export(after=after, checkpoint=checkpoint, limit=2)
        lines += page["lines"]
        after, checkpoint = page["after"], page["checkpoint"]
        if page["is_all"]:
            break
    last = await office.world.store.last_audit_record()
    assert last is not None
    assert [json.loads(one).get("seq") for one in lines if "checkpoint" in json.loads(one)] == [
        last[0]
    ]
    assert len(lines) == last[0] + 1
    with pytest.raises(OperationError, match="limit"):
        await desk.audit_export(limit=0)


async def test_trace_finds_what_names_a_thing(office: Office, desk: OperatorDesk) -> None:
    """By its whole name; what nobody knows is told."""
    await filled(office, 2)
    (found,) = await desk.audit_trace(reference="n1")
    assert (found["kind"], found["data"]) == ("node-enrolled", {"node": "n1"})
    assert len(found["digest"]) == 64
    with pytest.raises(OperationError, match="no record is about 'n'"):
        await desk.audit_trace(reference="n")


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        pytest.param("4f:00:A1", "4f00a1", id="as openssl prints it"),
        pytest.param("0x4F00A1", "4f00a1", id="with its prefix"),
        pytest.param("f00a1", "0f00a1", id="an odd number of digits"),
        pytest.param("00f1", "f1", id="with zeros before it"),
    ],
)
def test_serial_number_is_read_in_every_spelling(text: str, serial: str) -> None:
    """The store has two digits an octet."""
    assert serial_of(text) == serial


async def test_desk_without_a_trail_says_so(office: Office) -> None:
    """Rather than that there is nothing."""
    with pytest.raises(OperationError, match="no audit trail"):
        await office.desk.audit_status()
