"""SIGKILL at each call to the CA: before the CA acted on it, and after it did and nobody heard.

The CA holds the request, the broker is killed meanwhile and started again, the client goes on.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.deployments.ledger import unaccounted_at
from tests.e2e.scene import Scene
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import FOREVER, AfterFinalize, Behaviour, Fault, Resource, Script
from tests.peers import process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLOW = Behaviour(after_finalize=AfterFinalize.PROCESSING, polls_until_done=3, retry_after=None)
"""The CA shows the order as processing three times after finalize, so that it is polled."""

NAMES = 1
MORE_NAMES = 3
"""Names of an order where every call is wanted: more authorizations are answered side by side."""

FEWEST_CALLS = 12
"""Calls of one order for one name: newOrder, three about the authorization, the order four times
or more, finalize, the certificate; and directory and nonce, asked for after a start."""

UNSIGNED = (Resource.DIRECTORY, Resource.NEW_NONCE)

CALLED = frozenset(Resource) - {
    Resource.NEW_ACCOUNT,
    Resource.REVOKE,
    Resource.ACCOUNT,
    Resource.ORDERS,
    Resource.RENEWAL_INFO,
}
"""What an order asks for when nothing goes wrong."""

NO_LIST = Fault.refusal(Resource.ORDERS, 404, "malformed", times=FOREVER)
"""A CA that offers no list of orders, as the largest of them does not."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of a CA that takes its time after finalize."""
    with Scene(tmp_path_factory.mktemp("calls"), Script(standing=SLOW)) as scene:
        yield scene


def seen(scene: Scene) -> Counter[Resource]:
    """Return how often the CA has been asked for each resource."""
    assert scene.ca is not None
    return Counter(each.resource for each in scene.ca.ledger().requests)


def unaccounted(scene: Scene) -> int:
    """Return how many orders the CA has whose URL the broker never learned."""
    assert scene.ca is not None
    return len(unaccounted_at(scene.ca.ledger(), scene.kept()))


def held(scene: Scene) -> int:
    """Return how many of the faults that were aimed at every kind of call have struck."""
    assert scene.ca is not None
    return len(CALLED) - len(scene.ca.script().faults)


def tell(scene: Scene, *faults: Fault) -> None:
    """Have the CA misbehave in this way from now on, and in no other."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=SLOW, faults=list(faults)))


async def until_asked(
    scene: Scene, resource: Resource, count: int, work: asyncio.Task[None]
) -> bool:
    """Return True once the CA was asked for *resource* so often, False if *work* ends before."""
    while not work.done():
        if (await asyncio.to_thread(seen, scene))[resource] >= count:
            return True
        await asyncio.sleep(process.POLL_SECONDS)
    return False


async def kill_at(scene: Scene, survivor: Survivor, fault: Fault, *more: Fault) -> bool:
    """Kill and restart the broker once the CA holds the request that *fault* is aimed at.

    Returns False if the order went through without such a request.
    """
    assert fault.resource is not None
    count = seen(scene)[fault.resource] + fault.skip + 1
    tell(scene, fault, *more)
    if fault.resource in UNSIGNED:
        # A broker that has been running for a while has them already; one that has just been
        # started asks for them at once, to look at its account.
        await asyncio.to_thread(scene.broker.restart)
    work = asyncio.create_task(scene.obtain(survivor))
    is_asked = await until_asked(scene, fault.resource, count, work)
    if is_asked:
        await asyncio.to_thread(scene.broker.restart)
    await work
    return is_asked


async def calls_of_one_order(scene: Scene, names: int) -> Mapping[Resource, int]:
    """Return how often each resource of an order is asked for by a broker that has just been
    started."""
    tell(scene)
    before = seen(scene)
    await asyncio.to_thread(scene.broker.restart)
    async with scene.client() as client:
        await scene.obtain(Survivor(client, *scene.names(names)))
    asked = seen(scene) - before
    return {resource: count for resource, count in asked.items() if resource in CALLED}


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_sigkill_at_each_upstream_call_loses_and_doubles_nothing(
    processed: bool,
    scene: Scene,
    every_crash: bool,
    note: Callable[[str, object], None],
) -> None:
    """Killed at every call that one order makes, in a loop: each order ends in one certificate."""
    names = MORE_NAMES if every_crash else NAMES
    calls = await calls_of_one_order(scene, names)
    assert calls.keys() >= CALLED
    assert sum(calls.values()) >= FEWEST_CALLS
    kills: Counter[Resource] = Counter()
    counted = scene.kept().events["upstream-order-lost"]
    async with scene.client() as client:
        for resource, count in calls.items():
            for skip in range(count):
                fault = Fault.hanging(resource, processed=processed, skip=skip)
                survivor = Survivor(client, *scene.names(names))
                kills[resource] += await kill_at(scene, survivor, fault)
                assert scene.faults() == [], f"killed at {resource} number {skip + 1}"
    note("kills", {str(resource): count for resource, count in kills.items()})
    assert all(kills[resource] for resource in calls)
    # How often nonces and the order are asked for depends a little on the time things take.
    assert kills.total() >= sum(calls.values()) - 3
    # Of a newOrder that was perhaps sent one is counted, whether or not it reached the CA.
    perhaps = sum(kills[each] for each in (*UNSIGNED, Resource.NEW_ORDER))
    assert scene.kept().events["upstream-order-lost"] - counted <= perhaps


@pytest.mark.parametrize("processed", [False, True], ids=["before", "after"])
async def test_one_order_survives_a_kill_at_every_kind_of_call(
    processed: bool, scene: Scene
) -> None:
    """One single order during which the broker dies at each kind of call, one after the other."""
    await asyncio.to_thread(scene.broker.restart)
    tell(scene, *(Fault.hanging(resource, processed=processed) for resource in CALLED))
    deaths = 0
    async with scene.client() as client:
        work = asyncio.create_task(scene.obtain(Survivor(client, *scene.names(NAMES))))
        while not work.done():
            if await asyncio.to_thread(held, scene) > deaths:
                deaths += 1
                await asyncio.to_thread(scene.broker.restart)
            await asyncio.sleep(process.POLL_SECONDS)
        await work
    assert deaths == len(CALLED)
    assert scene.faults() == []


async def test_lost_order_that_cannot_be_sought_is_counted(scene: Scene) -> None:
    """A CA without a list of orders, killed after newOrder: one order is left over, and counted."""
    known, counted = unaccounted(scene), scene.kept().events["upstream-order-lost"]
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names(NAMES))
        assert await kill_at(
            scene, survivor, Fault.hanging(Resource.NEW_ORDER, processed=True), NO_LIST
        )
    assert scene.faults() == []
    assert unaccounted(scene) == known + 1
    assert scene.kept().events["upstream-order-lost"] == counted + 1
    assert scene.metric("penstock_upstream_orders_unaccounted_total") == 1


async def test_order_whose_answer_was_lost_is_found_at_the_ca(scene: Scene) -> None:
    """The same with a list of orders: it is found, taken, and nothing is left over or counted."""
    assert scene.ca is not None
    before, known = len(scene.ca.ledger().orders), unaccounted(scene)
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names(NAMES))
        assert await kill_at(scene, survivor, Fault.hanging(Resource.NEW_ORDER, processed=True))
    assert scene.faults() == []
    assert (len(scene.ca.ledger().orders), unaccounted(scene)) == (before + 1, known)
    assert scene.metric("penstock_upstream_orders_unaccounted_total") == 0


@pytest.mark.parametrize("resource", [Resource.NEW_ORDER, Resource.CHALLENGE, Resource.FINALIZE])
async def test_request_that_arrives_after_the_crash_doubles_nothing(
    resource: Resource, scene: Scene
) -> None:
    """A request of the killed broker reaches the CA when the next one has finished the order."""
    assert scene.ca is not None
    known = unaccounted(scene)
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names(NAMES))
        assert await kill_at(scene, survivor, Fault.hanging(resource))
        finalizes = len(scene.ca.ledger().finalizes)
        await asyncio.to_thread(scene.ca.release)
        # The next order comes behind the late request, which has been acted on by then.
        await scene.obtain(Survivor(client, *scene.names(NAMES)))
    assert len(scene.ca.ledger().finalizes) == finalizes + 1
    assert scene.faults() == []
    # Whatever else was held before is late now as well; each of those orders had been counted.
    assert (unaccounted(scene) > known) or resource is not Resource.NEW_ORDER
