"""Sinks are fed in order, from where they stopped, and nothing counts before it is certain."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from broker.audit.feeding import Entry, Feeder, entries_of
from broker.issuance.audit_ports import CheckpointRecord, SinkPosition
from broker.issuance.errors import Unreachable
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.clock import FakeClock


@dataclass
class FakeSink:
    """Takes entries, and is away or uncertain when told to be."""

    sent: list[Entry] = field(default_factory=list)
    certain: int = 0
    faults: list[str] = field(default_factory=list)
    aborted: int = 0
    on_certain: Callable[[], None] = lambda: None

    def send(self, entries: Sequence[Entry]) -> None:
        if self.faults and self.faults[0] == "send":
            self.faults.pop(0)
            raise Unreachable("collector is away")
        self.sent += entries

    def confirm(self) -> None:
        if self.faults and self.faults[0] == "confirm":
            self.faults.pop(0)
            raise Unreachable("collector did not say")
        self.certain = self.sent[-1].seq
        self.on_certain()

    def abort(self) -> None:
        self.aborted += 1


async def rest(_: float) -> None:
    """Wait for nothing."""
    await asyncio.sleep(0)


@pytest.fixture
async def store(tmp_path):  # type: ignore[no-untyped-def]
    """An open, empty store."""
    opened = await SqliteStore.open(tmp_path / "s.db")
    yield opened
    await opened.close()


async def keep(store: SqliteStore, count: int) -> None:
    """Keep so many events."""
    for _ in range(count):
        await store.append(given.event(), durable=False)


def feeder(store: SqliteStore, sink: FakeSink) -> Feeder:
    """Return a feeder that makes certain at once."""
    return Feeder("a", sink, store, FakeClock(), pause=rest, confirm_seconds=0.0)


async def certain(sink: FakeSink, seq: int, begin: Callable[[], object]) -> None:
    """Return once the sink is certain of record *seq*."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look() -> None:
        if sink.certain >= seq:
            loop.call_soon_threadsafe(reached.set)

    sink.on_certain = look
    made = begin()
    if asyncio.iscoroutine(made):
        await made
    await reached.wait()


async def test_everything_is_sent_in_order(store: SqliteStore) -> None:
    """From the beginning of the chain, and what comes later when it comes."""
    await keep(store, 3)
    sink = FakeSink()
    fed = feeder(store, sink)
    await certain(sink, 3, fed.begin)
    await keep(store, 2)
    await certain(sink, 5, fed.wake)
    await fed.stop()
    assert [one.seq for one in sink.sent] == [1, 2, 3, 4, 5]
    assert [(one.name, one.seq) for one in await store.sink_positions()] == [("a", 5)]


async def test_next_start_goes_on_where_it_was_certain(store: SqliteStore) -> None:
    """Nothing of before is sent again."""
    await keep(store, 3)
    await store.save_sink_position(SinkPosition(name="a", seq=2, at=given.NOW))
    sink = FakeSink()
    fed = feeder(store, sink)
    await certain(sink, 3, fed.begin)
    await fed.stop()
    assert [one.seq for one in sink.sent] == [3]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param("send", [1, 2], id="away"),
        pytest.param("confirm", [1, 2, 1, 2], id="uncertain"),
    ],
)
async def test_what_is_not_certain_is_sent_again(
    store: SqliteStore, fault: str, expected: list[int]
) -> None:
    """From the last certain record on, in the same order; the broker says how the sink is."""
    await keep(store, 2)
    sink = FakeSink(faults=[fault])
    fed = feeder(store, sink)
    await certain(sink, 2, fed.begin)
    await fed.stop()
    assert [one.seq for one in sink.sent] == expected
    assert sink.aborted >= 1


async def test_sink_that_is_away_says_why(store: SqliteStore) -> None:
    """Until it takes records again."""
    await keep(store, 1)
    sink = FakeSink(faults=["send"])
    fed = feeder(store, sink)
    with pytest.raises(Unreachable):
        await fed.turn()
    assert fed.state().fault is None  # a turn alone tells its caller
    await certain(sink, 1, fed.begin)
    await fed.stop()
    assert fed.state().fault is None
    assert fed.state().position.seq == 1


def test_checkpoint_follows_the_record_that_it_covers() -> None:
    """Whoever reads the lines meets nothing that is not there yet."""
    from broker.issuance.audit_chain import ChainedRecord

    columns = ("k", 0, "system", None, None, None, None, None, "{}")
    records = [ChainedRecord(n, columns, bytes(32), bytes(32)) for n in (1, 2, 3)]
    covering = CheckpointRecord(number=1, seq=2, at=given.NOW, key_id="k", jws="a.b.c")
    kinds = [(one.seq, one.kind) for one in entries_of(records, [covering])]
    assert kinds == [(1, "k"), (2, "k"), (2, "checkpoint"), (3, "k")]


async def test_checkpoint_alone_is_sent(store: SqliteStore) -> None:
    """One that comes after its record was sent needs no further record."""
    await keep(store, 1)
    sink = FakeSink()
    fed = feeder(store, sink)
    await certain(sink, 1, fed.begin)
    await store.add_checkpoint(
        CheckpointRecord(number=1, seq=1, at=given.NOW, key_id="k", jws="a.b.c")
    )
    await certain(sink, 1, fed.wake)
    await fed.stop()
    assert sink.sent[-1].kind == "checkpoint"
    assert (await store.sink_positions())[0].checkpoint == 1
