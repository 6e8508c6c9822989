"""A stream to one agent: in order, a window at a time, and dropped when it is not read."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from broker.channel.connections import End, LiveConnections
from broker.channel.feeds import BEAT, HEAD, WINDOW, Feed
from broker.issuance.errors import Unreachable
from broker.issuance.node_ports import NodeStatus, QueuedMessage
from tests.contract.storage.test_nodes import node


class FakeTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False
        self.is_aborted = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += bytes(data)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True

    def abort(self) -> None:
        """Remember it."""
        self.is_aborted = True

    def numbers(self) -> list[int]:
        """Return the sequence numbers of the events that were written."""
        return [int(found) for found in re.findall(rb"id: ([0-9]+)\n", self.written)]


class Stage:
    """A feed over an outbox in memory."""

    def __init__(self, **changes: Any) -> None:
        self.queued: list[QueuedMessage] = []
        self.reads = 0
        self.fault: Exception | None = None
        self.transport = FakeTransport()
        self.live = LiveConnections(limit=10)
        made = node(1, **changes)
        self.feed = Feed(made, 0, self.transport, self.live, self.outbox)
        self.live.enter(self.feed)

    async def outbox(self, node_id: str, after: int, limit: int) -> Sequence[QueuedMessage]:
        """Return what waits."""
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return [one for one in self.queued if one.seq > after][:limit]

    def put(self, *numbers: int) -> None:
        """Have messages wait."""
        for seq in numbers:
            self.queued.append(
                QueuedMessage(
                    node_id="id-1", seq=seq, message_id=f"m{seq}", kind="refused",
                    subject=str(seq), body={"certificate": "www", "reason": "no"},
                )
            )  # fmt: skip
        self.feed.wake()

    async def settle(self) -> None:
        """Let the task that sends come to rest."""
        while self.feed._task is not None and not self.feed._is_paused:
            await asyncio.wait({self.feed._task}, timeout=0)


async def test_stream_begins_with_its_head_and_a_beat() -> None:
    """So that an agent knows at once that it is through."""
    stage = Stage()
    stage.feed.begin()
    await stage.settle()
    assert stage.transport.written == HEAD + BEAT


async def test_what_waits_is_sent_in_order_as_events() -> None:
    """Each once, as one chunk that reads as JSON."""
    stage = Stage()
    stage.put(1, 2)
    await stage.settle()
    stage.put(5)
    await stage.settle()
    assert stage.transport.numbers() == [1, 2, 5]
    size, _, rest = stage.transport.written.partition(b"\r\n")
    event = rest[: int(size, 16)].decode()
    told = json.loads(event.split("data: ")[1])
    assert told == {
        "id": "m1", "kind": "refused", "body": {"certificate": "www", "reason": "no"}, "seq": 1,
    }  # fmt: skip


async def test_no_more_than_a_window_is_under_way() -> None:
    """What is acknowledged makes room for as much."""
    stage = Stage()
    stage.put(*range(1, WINDOW + 11))
    await stage.settle()
    assert stage.transport.numbers() == list(range(1, WINDOW + 1))
    stage.live.acknowledged("id-1", 4)
    await stage.settle()
    assert stage.transport.numbers()[-1] == WINDOW + 4
    stage.live.acknowledged("id-1", WINDOW + 4)
    await stage.settle()
    assert stage.transport.numbers() == list(range(1, WINDOW + 11))


async def test_idle_stream_has_no_task() -> None:
    """Ten thousand of them cost what their sockets do."""
    stage = Stage()
    stage.put(1)
    await stage.settle()
    assert stage.feed._task is None


async def test_drained_node_is_told_nothing_until_it_is_resumed() -> None:
    """It keeps its connection and hears beats."""
    stage = Stage(status=NodeStatus.DRAINED)
    stage.put(1)
    await stage.settle()
    stage.feed.beat()
    assert stage.transport.written == BEAT
    assert stage.reads == 0
    stage.live.set_drained("id-1", is_drained=False)
    await stage.settle()
    assert stage.transport.numbers() == [1]


async def test_node_that_reads_slowly_is_waited_for() -> None:
    """Nothing more is written until its socket takes it."""
    stage = Stage()
    stage.feed.pause_writing()
    stage.put(1, 2, 3)
    while not stage.transport.numbers():
        await asyncio.wait({stage.feed._task} if stage.feed._task else set(), timeout=0)
    assert stage.transport.numbers() == [1]
    stage.feed.resume_writing()
    await stage.settle()
    assert stage.transport.numbers() == [1, 2, 3]


async def test_node_that_reads_nothing_is_dropped() -> None:
    """After a whole period in which its socket took nothing; until then no beat is written."""
    stage = Stage()
    stage.feed.pause_writing()
    stage.feed.beat()
    assert (stage.transport.written, stage.transport.is_aborted) == (b"", False)
    stage.feed.beat()
    assert stage.transport.is_aborted


async def test_node_that_goes_on_reading_is_kept() -> None:
    """One silent period is forgiven."""
    stage = Stage()
    stage.feed.pause_writing()
    stage.feed.beat()
    stage.feed.resume_writing()
    stage.feed.beat()
    stage.feed.pause_writing()
    stage.feed.beat()
    assert not stage.transport.is_aborted


async def test_agent_that_speaks_on_its_stream_is_dropped() -> None:
    """Nothing is read there, so nothing can be stowed away."""
    stage = Stage()
    stage.feed.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert stage.transport.is_aborted


@pytest.mark.parametrize("end", list(End))
async def test_stream_comes_to_its_end(end: End) -> None:
    """With a word of when to come back, or without one; a revoked node at once."""
    stage = Stage()
    stage.feed.finish(end)
    assert stage.transport.is_aborted is (end is End.DROPPED)
    assert stage.transport.is_closed is (end is not End.DROPPED)
    assert (b"event: goaway" in stage.transport.written) is (end is End.AWAY)
    if end is End.AWAY:
        waits = [int(found) for found in re.findall(rb"retry: ([0-9]+)", stage.transport.written)]
        assert 10_000 <= waits[0] <= 40_000


async def test_agent_that_does_not_read_hears_no_farewell() -> None:
    """Its socket would not take it."""
    stage = Stage()
    stage.feed.pause_writing()
    stage.feed.finish(End.AWAY)
    assert stage.transport.is_aborted


async def test_lost_connection_frees_its_place() -> None:
    """Once, whatever the task was doing."""
    stage, lost = Stage(), []
    stage.feed.when_lost = lambda: lost.append(1)
    stage.feed.pause_writing()
    stage.put(1)
    task = stage.feed._task
    stage.feed.connection_lost(None)
    stage.feed.connection_lost(None)
    assert task is not None
    await asyncio.gather(task, return_exceptions=True)
    assert lost == [1]
    assert not stage.live.is_connected("id-1")


async def test_store_that_is_away_ends_the_stream() -> None:
    """The agent comes again, and finds what waited."""
    stage = Stage()
    stage.fault = Unreachable("the disk is failing")
    stage.put(1)
    await stage.settle()
    assert stage.transport.is_aborted
