"""Who is connected: the newest connection of a node, as many as there may be, no revoked one."""

import asyncio

import pytest

from broker.channel import connections
from broker.channel.connections import Connection, End, LiveConnections


class FakeConnection(Connection):
    """A connection that remembers what it was told."""

    __slots__ = ("acks", "beats", "ends", "live", "wakes")

    def __init__(self, node_id: str, live: LiveConnections | None = None) -> None:
        self.node_id = node_id
        self.is_drained = False
        self.live = live
        self.ends: list[End] = []
        self.acks: list[int] = []
        self.wakes = self.beats = 0

    def wake(self) -> None:
        """Remember it."""
        self.wakes += 1

    def beat(self) -> None:
        """Remember it."""
        self.beats += 1

    def acknowledged(self, seq: int) -> None:
        """Remember it."""
        self.acks.append(seq)

    def finish(self, end: End) -> None:
        """Remember it, and leave as a socket does that is closed."""
        self.ends.append(end)
        if self.live is not None:
            self.live.leave(self)


def test_newest_connection_of_a_node_wins() -> None:
    """The older one ends, and its leaving does not put the newer one out."""
    live = LiveConnections(limit=10)
    first, second = FakeConnection("a"), FakeConnection("a")
    live.enter(first)
    live.enter(second)
    assert first.ends == [End.REPLACED]
    live.leave(first)
    assert live.is_connected("a")
    live.wake("a")
    assert (first.wakes, second.wakes) == (0, 1)
    live.leave(second)
    assert not live.is_connected("a")


def test_connections_are_bounded_and_a_node_may_always_come_anew() -> None:
    """Whoever is connected is not put out by being counted."""
    live = LiveConnections(limit=2)
    for node_id in ("a", "b"):
        live.enter(FakeConnection(node_id))
    assert not live.has_room("c")
    assert live.has_room("a")


def test_revoked_node_is_dropped_and_finds_no_room_again() -> None:
    """Not even one that had shown its identity just before."""
    live = LiveConnections(limit=10)
    connection, other = FakeConnection("a"), FakeConnection("b")
    live.enter(connection)
    live.enter(other)
    live.drop("a")
    live.drop("never here")
    assert connection.ends == [End.DROPPED]
    assert other.ends == []
    assert not live.has_room("a")
    assert live.has_room("b")


def test_only_the_node_in_question_is_told() -> None:
    """Of acknowledgements, drains and wakes."""
    live = LiveConnections(limit=10)
    one, other = FakeConnection("a"), FakeConnection("b")
    live.enter(one)
    live.enter(other)
    live.acknowledged("a", 7)
    live.set_drained("a", is_drained=True)
    live.wake("nobody")
    live.acknowledged("nobody", 1)
    live.set_drained("nobody", is_drained=True)
    assert (one.acks, one.is_drained, one.wakes) == ([7], True, 1)
    assert (other.acks, other.is_drained, other.wakes) == ([], False, 0)


async def test_broker_that_stops_asks_everybody_to_come_later() -> None:
    """And takes nobody any more."""
    live = LiveConnections(limit=10)
    live.start()
    everybody = [FakeConnection(node_id, live) for node_id in "abc"]
    for connection in everybody:
        live.enter(connection)
    await live.stop()
    assert [one.ends for one in everybody] == [[End.AWAY]] * 3
    assert not live.has_room("d")


async def test_whoever_does_not_leave_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that reads nothing does not hold the broker's end up."""
    monkeypatch.setattr(connections, "FAREWELL_SECONDS", 0)
    live = LiveConnections(limit=10)
    stuck = FakeConnection("a")
    live.enter(stuck)
    await live.stop()
    assert stuck.ends == [End.AWAY, End.DROPPED]


async def test_each_connection_is_stirred_once_in_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of them at each turn."""
    turns = asyncio.Semaphore(0)

    async def turn(_seconds: float) -> None:
        await turns.acquire()

    monkeypatch.setattr(asyncio, "sleep", turn)
    live = LiveConnections(limit=100)
    everybody = [FakeConnection(str(number)) for number in range(45)]
    for connection in everybody:
        live.enter(connection)
    pulse = asyncio.get_running_loop().create_task(live._beat())
    for _ in range(connections.BEAT_SECONDS):
        turns.release()
    while not turns.locked() or any(one.beats == 0 for one in everybody):
        await asyncio.wait({pulse}, timeout=0)
    assert [one.beats for one in everybody] == [1] * 45
    pulse.cancel()
    await asyncio.gather(pulse, return_exceptions=True)
