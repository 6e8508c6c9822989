"""Refusals are kept, and nobody fills the store by being refused."""

from datetime import timedelta

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.node_refusals import KEPT_PER_PARTY, MAX_PARTIES, PERIOD, NodeRefusals
from tests.fakes.clock import FakeClock

SOMEBODY = Actor("anonymous")


class FakeLog:
    """An event log in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_away = False

    async def append(self, event: Event, *, durable: bool) -> None:
        """Keep it."""
        if self.is_away:
            raise Unreachable("the disk is full")
        assert not durable
        self.events.append(event)


def refusals() -> tuple[NodeRefusals, FakeLog, FakeClock]:
    """Return refusals over an empty log."""
    log, clock = FakeLog(), FakeClock()
    return NodeRefusals(log, clock), log, clock  # type: ignore[arg-type]


async def refuse(made: NodeRefusals, party: str, times: int = 1) -> None:
    """Have a party refused so often."""
    for _ in range(times):
        await made.record(EventKind.NODE_REQUEST_REFUSED, party, {"peer": party}, actor=SOMEBODY)


async def test_refusals_past_the_bound_are_counted_in_the_next_that_is_kept() -> None:
    """Nothing is forgotten silently."""
    made, log, clock = refusals()
    await refuse(made, "192.0.2.7", KEPT_PER_PARTY + 5)
    assert len(log.events) == KEPT_PER_PARTY
    clock.advance(PERIOD + timedelta(seconds=1))
    await refuse(made, "192.0.2.7")
    assert log.events[-1].data == {"peer": "192.0.2.7", "passed_over": 5}


async def test_flood_that_ends_is_told_by_itself() -> None:
    """For all parties together, also those that are counted no more; later if the disk is full."""
    made, log, _ = refusals()
    await refuse(made, "192.0.2.7", KEPT_PER_PARTY + 5)
    await refuse(made, "192.0.2.8", KEPT_PER_PARTY + 2)
    for number in range(MAX_PARTIES - 1):
        await refuse(made, f"another {number}")
    log.is_away = True
    with pytest.raises(Unreachable):
        await made.tell_left_out()
    log.is_away = False
    for _ in range(2):
        await made.tell_left_out()
    (told,) = [one for one in log.events if one.kind is EventKind.REFUSALS_LEFT_OUT]
    assert told.data["left_out"] == 7


async def test_parties_do_not_use_up_each_others_places() -> None:
    """A noisy neighbour hides nobody."""
    made, log, _ = refusals()
    await refuse(made, "192.0.2.7", KEPT_PER_PARTY + 5)
    await refuse(made, "192.0.2.8")
    assert log.events[-1].data["peer"] == "192.0.2.8"


async def test_counts_are_bounded() -> None:
    """However many addresses somebody has."""
    made, _, _ = refusals()
    for number in range(MAX_PARTIES + 10):
        await refuse(made, str(number))
    assert len(made._counts) == MAX_PARTIES


async def test_store_that_is_away_changes_nothing_about_the_refusal() -> None:
    """The caller goes on to refuse."""
    made, log, _ = refusals()
    log.is_away = True
    await refuse(made, "192.0.2.7")
    assert log.events == []
