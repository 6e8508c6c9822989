"""The circuit breaker of one CA: what opens it, who looks, what closes it."""

from datetime import timedelta

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.quota_ports import BreakerState
from broker.upstreams.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, LOOK_TIME, Breaker
from tests.fakes.clock import FakeClock
from tests.fakes.standing_store import FakeStandingStore

SECOND = timedelta(seconds=1)


class Hall:
    """A store, and processes that ask one CA."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = FakeStandingStore()
        self.breaker = self.process()

    def process(self) -> Breaker:
        """Return the breaker as another process has it."""
        return Breaker("ca", self.store, self.clock)

    async def fail(self, times: int = FAILURES, breaker: Breaker | None = None) -> None:
        """Have so many requests fail, a second apart."""
        for _ in range(times):
            self.clock.advance(SECOND)
            await (breaker or self.breaker).note_failure("no connection")

    def state(self) -> BreakerState:
        """Return what is kept."""
        kept = self.store.open.get("ca")
        return BreakerState.CLOSED if kept is None else kept.state


async def is_let_through(breaker: Breaker) -> bool:
    """Return whether a request may be sent."""
    try:
        await breaker.verify_closed()
    except Unreachable as error:
        return not (error.left_nothing and "left alone" in error.reason)
    return True


async def test_it_opens_after_failures_in_a_row() -> None:
    """One less is nothing; then nothing is sent, and the trail says since when and why."""
    hall = Hall()
    await hall.fail(FAILURES - 1)
    assert await is_let_through(hall.breaker)
    await hall.fail(1)
    assert hall.state() is BreakerState.OPEN
    assert not await is_let_through(hall.breaker)
    (event,) = hall.store.events
    assert (event.kind, event.upstream) == (EventKind.UPSTREAM_LEFT_ALONE, "ca")
    assert event.data["reason"] == "no connection"


async def test_many_at_one_moment_are_one_failure() -> None:
    """Sixteen requests that meet a restart of the CA do not stop the seventeenth."""
    hall = Hall()
    for _ in range(16):
        await hall.breaker.note_failure("connection reset")
    assert hall.state() is BreakerState.CLOSED


async def test_answer_in_between_begins_the_count_anew() -> None:
    """In a row means in a row."""
    hall = Hall()
    for _ in range(4):
        await hall.fail(FAILURES - 1)
        await hall.breaker.note_answer(200, is_signed=True)
    assert hall.state() is BreakerState.CLOSED


async def test_directory_that_is_served_excuses_no_failing_orders() -> None:
    """A front that answers and a back that does not."""
    hall = Hall()
    for _ in range(FAILURES):
        await hall.breaker.note_answer(200, is_signed=False)
        await hall.fail(1)
    assert hall.state() is BreakerState.OPEN


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429])
async def test_refusals_and_limits_never_open_it(status: int) -> None:
    """Those of ours by nature; a CA that refuses is there."""
    hall = Hall()
    for _ in range(50):
        hall.clock.advance(SECOND)
        await hall.breaker.note_answer(status, is_signed=True)
    assert hall.state() is BreakerState.CLOSED


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_servers_own_faults_open_it(status: int) -> None:
    """Each of them."""
    hall = Hall()
    for _ in range(FAILURES):
        hall.clock.advance(SECOND)
        await hall.breaker.note_answer(status, is_signed=True)
    assert hall.state() is BreakerState.OPEN


async def test_storm_of_refused_nonces_opens_it() -> None:
    """Ten in a row; nine and an answer do not."""
    hall = Hall()
    for _ in range(9):
        await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
    await hall.breaker.note_answer(200, is_signed=True)
    for _ in range(9):
        await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
        await hall.breaker.note_answer(200, is_signed=False)
    assert hall.state() is BreakerState.CLOSED
    await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
    assert hall.state() is BreakerState.OPEN


async def test_storm_that_goes_on_is_met_by_one_request() -> None:
    """Nonces can be fetched all the while; the next one that is refused is enough."""
    hall = Hall()
    for _ in range(10):
        await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
    hall.clock.advance(FIRST_PAUSE)
    assert await is_let_through(hall.breaker)
    await hall.breaker.note_answer(200, is_signed=False)
    assert await is_let_through(hall.breaker)
    await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
    assert hall.state() is BreakerState.OPEN


async def test_look_with_a_nonce_from_before_is_an_answer() -> None:
    """The CA is there again: its nonces of an hour ago are not, and the request is repeated."""
    hall = Hall()
    await hall.fail()
    hall.clock.advance(FIRST_PAUSE)
    assert await is_let_through(hall.breaker)
    await hall.breaker.note_answer(400, is_signed=True, is_nonce_refused=True)
    assert hall.state() is BreakerState.CLOSED
    assert await is_let_through(hall.breaker)


async def test_one_request_looks_and_the_others_wait_for_it() -> None:
    """Once the pause is over; an answer lets all through again."""
    hall = Hall()
    await hall.fail()
    hall.clock.advance(FIRST_PAUSE)
    assert await is_let_through(hall.breaker)
    assert hall.state() is BreakerState.HALF_OPEN
    assert not await is_let_through(hall.breaker)
    await hall.breaker.note_answer(200, is_signed=False)
    assert hall.state() is BreakerState.CLOSED
    assert await is_let_through(hall.breaker)
    kinds = [event.kind for event in hall.store.events]
    assert kinds == [EventKind.UPSTREAM_LEFT_ALONE, EventKind.UPSTREAM_ANSWERS_AGAIN]


async def test_look_in_vain_opens_it_for_longer() -> None:
    """Twice as long each time, up to what a returning CA may be met late by."""
    hall = Hall()
    await hall.fail()
    pauses = []
    for _ in range(4):
        record = hall.store.open["ca"]
        pauses.append(record.until - hall.clock.now())
        hall.clock.advance(record.until - hall.clock.now())
        assert await is_let_through(hall.breaker)
        await hall.breaker.note_failure("still nothing")
        assert hall.state() is BreakerState.OPEN
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert len(hall.store.events) == 1, "it has been away all the time"


async def test_look_that_nobody_heard_of_again_is_taken_over() -> None:
    """Its process may have died."""
    hall = Hall()
    await hall.fail()
    hall.clock.advance(FIRST_PAUSE)
    assert await is_let_through(hall.breaker)
    other = hall.process()
    assert not await is_let_through(other)
    hall.clock.advance(LOOK_TIME)
    assert await is_let_through(other)


async def test_processes_over_one_store_open_and_close_it_together() -> None:
    """Within a second; and one of them looks."""
    hall = Hall()
    first, other = hall.breaker, hall.process()
    assert await is_let_through(other)
    await hall.fail(breaker=first)
    hall.clock.advance(SECOND)
    assert not await is_let_through(other)
    hall.clock.advance(FIRST_PAUSE)
    assert [await is_let_through(one) for one in (other, first)] == [True, False]
    await other.note_answer(200, is_signed=False)
    hall.clock.advance(SECOND)
    assert await is_let_through(first)


async def test_restarted_process_leaves_the_ca_alone_at_once() -> None:
    """It reads what was kept before it asks anything."""
    hall = Hall()
    await hall.fail()
    assert not await is_let_through(hall.process())


async def test_closed_breaker_costs_one_read_a_second() -> None:
    """However many requests there are."""
    hall = Hall()
    for _ in range(100):
        assert await is_let_through(hall.breaker)
    assert hall.store.reads == 1


async def test_failures_of_yesterday_are_forgotten() -> None:
    """Nobody asked meanwhile: one more opens nothing."""
    hall = Hall()
    await hall.fail(FAILURES - 1)
    hall.clock.advance(timedelta(days=1))
    await hall.fail(FAILURES - 1)
    assert hall.state() is BreakerState.CLOSED


async def test_whoever_waits_is_told() -> None:
    """When it opens, so that orders go elsewhere, and when it closes, so that they go on."""
    hall = Hall()
    told: list[BreakerState] = []
    hall.breaker.on_moved = told.append
    await hall.fail()
    hall.clock.advance(FIRST_PAUSE)
    await hall.breaker.verify_closed()
    await hall.breaker.note_answer(200, is_signed=False)
    assert told == [BreakerState.OPEN, BreakerState.CLOSED]


async def test_clock_that_was_far_ahead_leaves_no_ca_alone_for_good() -> None:
    """Nobody stays open for longer than a look takes, so somebody looks."""
    hall = Hall()
    now = hall.clock.now()
    hall.clock.advance(timedelta(days=3650))
    await hall.fail()
    hall.clock.advance(now - hall.clock.now())
    assert await is_let_through(hall.process())
