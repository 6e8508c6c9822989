"""Long polls: what waits is answered at once, and what comes meanwhile without delay."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from broker.channel.connections import LiveConnections
from broker.channel.ports import ChannelRooms
from broker.channel.streams import Streams
from broker.issuance.node_ports import NodeStatus, QueuedMessage
from broker.issuance.node_refusals import NodeRefusals
from broker.protocol.problems import Problem
from tests.contract.storage.test_nodes import node
from tests.fakes.clock import FakeClock
from tests.unit.channel.test_feeds import FakeTransport


class FakeRequest:
    """What a poll looks at of its request."""

    def __init__(self) -> None:
        self.transport = FakeTransport()


class Office:
    """An outbox in memory, and who is connected."""

    def __init__(self, *, limit: int = 10) -> None:
        self.queued: list[QueuedMessage] = []
        self.acks: list[int] = []
        self.sightings = 0
        self.asked = asyncio.Event()
        self.is_held = False
        self.clock = FakeClock()
        self.live = LiveConnections(limit=limit)
        me: Any = self
        self.request: Any = FakeRequest()
        self.streams = Streams(
            ChannelRooms(
                store=me, clock=self.clock, connections=self.live, joining=me, reports=me,
                challenges=me, bundles=me, observer=me, refusals=NodeRefusals(me, self.clock),
                is_held=lambda: self.is_held,
            )
        )  # fmt: skip

    async def acknowledge(self, node_id: str, seq: int) -> None:
        self.acks.append(seq)

    async def note_seen(self, node_id: str, at: object, **_: object) -> None:
        self.sightings += 1

    async def queued_messages(
        self, node_id: str, after: int, limit: int
    ) -> Sequence[QueuedMessage]:
        self.asked.set()
        return [one for one in self.queued if one.seq > after][:limit]

    def sent(self, kind: str) -> None: ...

    def put(self, seq: int) -> None:
        """Have a message wait."""
        self.queued.append(
            QueuedMessage(
                node_id="id-1", seq=seq, message_id=f"m{seq}", kind="renew-identity",
                subject=str(seq), body={},
            )
        )  # fmt: skip
        self.live.wake("id-1")

    async def poll(self, *, after: int = 0, wait: float = 0, **changes: Any) -> list[int]:
        """Poll, and return the numbers of what was answered."""
        reply = await self.streams.poll(self.request, node(1, **changes), after=after, wait=wait)
        return [one.seq for one in reply.messages]


@pytest.mark.parametrize("wait", [0, 25])
async def test_what_waits_is_answered_at_once(wait: float) -> None:
    """Also by a poll that does not want to wait."""
    office = Office()
    office.put(1)
    office.put(2)
    assert await office.poll(wait=wait) == [1, 2]
    assert await office.poll(after=1, wait=wait) == [2]
    assert len(office.live) == 0


async def test_what_comes_meanwhile_ends_the_wait() -> None:
    """As soon as the outbox has it."""
    office = Office()
    polling = asyncio.ensure_future(office.poll(wait=25))
    await office.asked.wait()
    assert office.live.is_connected("id-1")
    office.put(7)
    assert await polling == [7]


async def test_poll_that_nothing_comes_to_is_answered_empty() -> None:
    """When its time is over."""
    assert await Office().poll(wait=0) == []


async def test_newer_poll_ends_an_older_one() -> None:
    """Which is answered with nothing."""
    office = Office()
    older = asyncio.ensure_future(office.poll(wait=25))
    await office.asked.wait()
    newer = asyncio.ensure_future(office.poll(wait=25))
    assert await older == []
    office.put(1)
    assert await newer == [1]


async def test_revoked_node_is_cut_off_while_it_polls() -> None:
    """And does not come again."""
    office = Office()
    polling = asyncio.ensure_future(office.poll(wait=25))
    await office.asked.wait()
    office.live.drop("id-1")
    assert await polling == []
    assert office.request.transport.is_aborted
    with pytest.raises(Problem):
        await office.poll()


async def test_drained_node_is_told_nothing() -> None:
    """It may ask."""
    office = Office()
    office.put(1)
    assert await office.poll(status=NodeStatus.DRAINED) == []


async def test_number_that_the_agent_names_acknowledges_what_came_before() -> None:
    """Once; and that it was seen is not written at each poll."""
    office = Office()
    await office.poll(after=5)
    await office.poll(after=5, acknowledged=5, seen_at=office.clock.now())
    assert (office.acks, office.sightings) == ([5], 1)


async def test_restored_broker_drops_nothing() -> None:
    """What waits may be read, and nothing is changed."""
    office = Office()
    office.is_held = True
    office.put(1)
    assert await office.poll(after=0) == [1]
    await office.poll(after=5)
    assert (office.acks, office.sightings) == ([], 0)


async def test_poll_beyond_the_bound_is_asked_to_come_later() -> None:
    """As a stream is."""
    office = Office(limit=0)
    with pytest.raises(Problem) as full:
        await office.poll()
    assert full.value.status == 503
