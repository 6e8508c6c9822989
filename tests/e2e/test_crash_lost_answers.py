"""The CA's answers get lost, or say "not now": the order stays processing and completes later.

No crash here.  The CA does what it was asked and the connection breaks, or it refuses for a while
and names a time.  What it did is counted in its own record.
"""

import asyncio
import contextlib
import email.utils
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.clock import SystemClock
from tests.e2e.scene import Scene
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import AfterFinalize, Behaviour, Fault, Resource, Script
from tests.peers import process

pytestmark = pytest.mark.e2e

UNSIGNED = (Resource.DIRECTORY, Resource.NEW_NONCE)
SIGNED = (
    Resource.NEW_ORDER,
    Resource.AUTHORIZATION,
    Resource.CHALLENGE,
    Resource.ORDER,
    Resource.FINALIZE,
    Resource.CERTIFICATE,
)

RETRY_SECONDS = 2
"""What the CA names in Retry-After: longer than the pause that the broker would choose itself."""

LATEST_SECONDS = 10.0
"""How much later than named the CA may be asked: dates are whole seconds, jobs have jitter, and
the machine may be busy.  Half a minute is what the broker would choose itself after some tries."""

OUTAGE_SECONDS = 3.0

SEEN_SECONDS = 60.0
"""Longest wait for what clients see of an outage; on an idle core they have by its end."""

CLOCK_SECONDS = 0.05
"""How far apart the CA's clock and the broker's may be read, one being monotonic."""

FINALIZE_WAIT = "300ms"
"""How long finalize is held back: short, so that the client sees the order processing."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker that soon says `processing`, in front of a CA that is told what to do wrong."""
    limits = {"finalize_wait": FINALIZE_WAIT}
    with Scene(tmp_path_factory.mktemp("lost"), Script(), limits=limits) as scene:
        yield scene


async def obtain_with(scene: Scene, *faults: Fault, standing: Behaviour | None = None) -> Survivor:
    """Carry an order through while the CA misbehaves."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=standing or Behaviour(), faults=list(faults)))
    if any(each.resource in UNSIGNED for each in faults):
        # A broker that has been running for a while has them already; one that has just been
        # started asks for them at once, to look at its account.
        await asyncio.to_thread(scene.broker.restart)
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names())
        await scene.obtain(survivor)
    assert scene.ca.script().faults == [], "the CA was told to fail and was not asked"
    assert scene.faults() == []
    return survivor


def jobs_due(scene: Scene) -> list[datetime]:
    """Return when the jobs are due that the broker has kept."""
    uri = f"{scene.broker.database.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        rows = db.execute("SELECT due_at FROM jobs").fetchall()
    return [datetime.fromtimestamp(due_at / 1_000_000, UTC) for (due_at,) in rows]


@pytest.mark.parametrize("processed", [True, False], ids=["processed", "not processed"])
@pytest.mark.parametrize("resource", [*UNSIGNED, *SIGNED], ids=str)
async def test_lost_answer_doubles_nothing(
    resource: Resource, processed: bool, scene: Scene
) -> None:
    """The connection breaks in place of an answer: asked again or sought, never done twice."""
    assert scene.ca is not None
    orders = len(scene.ca.ledger().orders)
    await obtain_with(scene, Fault.lost(resource, processed=processed))
    assert len(scene.ca.ledger().orders) == orders + 1


@dataclass(frozen=True, slots=True)
class NotNow:
    """An answer that asks the broker to come again later."""

    resource: Resource
    status: int
    is_date: bool = False
    processed: bool = False

    def fault(self) -> tuple[Fault, float]:
        """Return the fault, and the monotonic time before which nothing may be asked.

        A date has whole seconds, and is rounded up here; seconds count from the answer on.
        """
        named, earliest = str(RETRY_SECONDS), 0.0
        if self.is_date:
            # In this order: whatever comes between the two lets the earliest time be earlier.
            read, now = time.monotonic(), SystemClock().now()
            moment = now.replace(microsecond=0) + timedelta(seconds=RETRY_SECONDS + 1)
            named = email.utils.format_datetime(moment, usegmt=True)
            earliest = read + (moment - now).total_seconds()
        fault = Fault.refusal(
            self.resource, self.status, "rateLimited", retry_after=named, detail="not now"
        )
        return replace(fault, processed=self.processed), earliest


OVERLOADED = {
    "newOrder, 429": NotNow(Resource.NEW_ORDER, 429),
    "newOrder, 503 by date": NotNow(Resource.NEW_ORDER, 503, is_date=True),
    "authorization, 503": NotNow(Resource.AUTHORIZATION, 503),
    "challenge, 429": NotNow(Resource.CHALLENGE, 429),
    "finalize, 429 by date": NotNow(Resource.FINALIZE, 429, is_date=True),
    "finalize, 503 after it was done": NotNow(Resource.FINALIZE, 503, processed=True),
    "certificate, 503": NotNow(Resource.CERTIFICATE, 503),
}


@pytest.mark.parametrize("answer", OVERLOADED.values(), ids=OVERLOADED.keys())
async def test_no_call_is_made_before_retry_after(answer: NotNow, scene: Scene) -> None:
    """The CA says when to come again: nothing is sent before, the order waits as processing."""
    assert scene.ca is not None
    fault, earliest = answer.fault()
    first = len(scene.ca.ledger().requests)
    survivor = await obtain_with(scene, fault)
    assert survivor.statuses[-2:] == ["processing", "valid"]
    assert "invalid" not in survivor.statuses
    requests = scene.ca.ledger().requests[first:]
    refused = next(n for n, each in enumerate(requests) if each.resource is answer.resource)
    earliest = earliest or requests[refused].at_seconds + RETRY_SECONDS
    late = requests[refused + 1].at_seconds - earliest
    assert -CLOCK_SECONDS <= late <= LATEST_SECONDS


@pytest.mark.parametrize(
    ("status", "processed"),
    [
        pytest.param(500, False, id="500, not processed"),
        pytest.param(504, True, id="504, processed"),
    ],
)
@pytest.mark.parametrize("resource", SIGNED, ids=str)
async def test_failing_ca_doubles_nothing(
    resource: Resource, status: int, processed: bool, scene: Scene
) -> None:
    """An error of the CA or of what stands before it says nothing about what was done."""
    assert scene.ca is not None
    orders = len(scene.ca.ledger().orders)
    answer = Fault.refusal(resource, status, "serverInternal")
    survivor = await obtain_with(scene, replace(answer, processed=processed))
    assert "invalid" not in survivor.statuses
    assert len(scene.ca.ledger().orders) == orders + 1


async def test_refused_new_order_is_not_counted_as_lost(scene: Scene) -> None:
    """The CA turned newOrder away: nothing can have been left there, nothing is sought."""
    assert scene.ca is not None
    counted = scene.kept().events["upstream-order-lost"]
    lists = scene.ca.ledger().count(Resource.ORDERS)
    await obtain_with(scene, NotNow(Resource.NEW_ORDER, 429).fault()[0])
    assert scene.kept().events["upstream-order-lost"] == counted
    assert scene.ca.ledger().count(Resource.ORDERS) == lists


@pytest.mark.parametrize("shown", [AfterFinalize.PROCESSING, AfterFinalize.READY], ids=str)
async def test_slow_ca_is_polled_at_the_pace_it_names(shown: AfterFinalize, scene: Scene) -> None:
    """The CA works on the order for a while: it is polled, never finalized again, never hurried."""
    assert scene.ca is not None
    standing = Behaviour(after_finalize=shown, polls_until_done=3, retry_after="1")
    first = len(scene.ca.ledger().requests)
    survivor = await obtain_with(scene, standing=standing)
    assert survivor.statuses[-2:] == ["processing", "valid"]
    requests = scene.ca.ledger().requests[first:]
    finalized = next(n for n, each in enumerate(requests) if each.resource is Resource.FINALIZE)
    after = [each for each in requests[finalized:] if each.resource is not Resource.CERTIFICATE]
    assert [each.resource for each in after[1:]] == [Resource.ORDER] * 3
    pauses = [b.at_seconds - a.at_seconds for a, b in itertools.pairwise(after)]
    assert min(pauses) >= 1 - CLOCK_SECONDS


async def until_processing(survivors: Sequence[Survivor]) -> None:
    """Wait until each client has seen its order processing."""
    await asyncio.to_thread(
        process.wait_until,
        lambda: all(one.statuses[-1:] == ["processing"] for one in survivors),
        SEEN_SECONDS,
        "all orders are processing",
    )


async def test_ca_that_is_away_fails_no_order(scene: Scene) -> None:
    """An outage: orders wait as processing, few calls are made, all complete when it is back."""
    assert scene.ca is not None
    async with scene.client() as client:
        survivors = [Survivor(client, *scene.names()) for _ in range(3)]
        for one in survivors:
            await one.carry_to("ready")
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[Fault.outage()]))
        first = len(scene.ca.ledger().requests)
        work = [asyncio.create_task(scene.obtain(one)) for one in survivors]
        done, _ = await asyncio.wait(work, timeout=OUTAGE_SECONDS)
        await until_processing(survivors)
        assert not done
        asked = scene.ca.ledger().requests[first:]
        await asyncio.to_thread(scene.ca.set_script, Script())
        await asyncio.gather(*work)
    assert all(one.statuses[-2:] == ["processing", "valid"] for one in survivors)
    # Two jobs of each order try at once and after about 1 and 2 s, with two calls at most each.
    assert len(asked) <= 2 * 3 * 2 * len(survivors)
    assert scene.faults() == []


async def test_wait_for_a_year_is_cut_to_a_day_and_outlives_a_restart(
    make_scene: Callable[..., Scene],
) -> None:
    """A CA that wants to be left alone for a year is asked again within a day, not sooner."""
    scene = make_scene(Script(), limits={"finalize_wait": FINALIZE_WAIT})
    assert scene.ca is not None
    fault = Fault.refusal(Resource.FINALIZE, 429, "rateLimited", retry_after="31536000")
    async with scene.client() as client:
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[fault]))
        waiting = Survivor(client, *scene.names())
        await waiting.carry_to("processing")
        await asyncio.to_thread(scene.ca.wait_seen, Resource.FINALIZE)
        # The other order goes its way: so long a wait is about these names alone.
        await scene.obtain(Survivor(client, *scene.names()))
        await asyncio.to_thread(scene.broker.restart)
        await scene.obtain(Survivor(client, *scene.names()))
        assert (await waiting.look())["status"] == "processing"
    (job,) = jobs_due(scene)
    assert timedelta(hours=23) < job - SystemClock().now() <= timedelta(hours=24)
    refused = {each.order_id for each in scene.ca.ledger().requests} - {None}
    assert len(scene.ca.ledger().finalizes) == 2
    assert len(refused) == 3
    assert scene.ca.ledger().count(Resource.FINALIZE) == 3
