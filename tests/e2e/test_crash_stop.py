"""SIGTERM while orders are on their way: a clean end in time, and the next start goes on."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.scene import Scene
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import Fault, Resource, Script
from tests.peers import process

pytestmark = pytest.mark.e2e

STOP_SECONDS = 20.0
"""By when a broker that is told to stop is gone; orchestrators kill after 30 s."""

IDLE_STOP_SECONDS = 5.0
"""By when it is gone with nothing to do; 0.2 s on an idle core."""

FINALIZE_WAIT = "1s"
"""How long finalize is held back: an end waits for the answers that are under way."""

HELD = (
    Resource.NEW_ORDER,
    Resource.AUTHORIZATION,
    Resource.CHALLENGE,
    Resource.ORDER,
    Resource.FINALIZE,
    Resource.CERTIFICATE,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of a CA that holds requests when it is told to."""
    limits = {"finalize_wait": FINALIZE_WAIT}
    with Scene(tmp_path_factory.mktemp("stop"), Script(), limits=limits) as scene:
        yield scene


async def stop(scene: Scene) -> float:
    """Send SIGTERM, see that the end is a clean one, and return how many seconds it took."""
    started = time.monotonic()
    os.kill(scene.broker.pid, signal.SIGTERM)
    status = await asyncio.to_thread(scene.broker.wait_ended, STOP_SECONDS)
    assert status == 0, process.tail(scene.broker.log_text())
    return time.monotonic() - started


@pytest.mark.parametrize("resource", HELD, ids=str)
async def test_sigterm_during_an_order_ends_cleanly_and_loses_nothing(
    resource: Resource, scene: Scene
) -> None:
    """The CA holds a request, the broker is told to stop: it ends with 0, and the next one
    carries the order to its certificate."""
    assert scene.ca is not None
    count = scene.ca.ledger().count(resource)
    await asyncio.to_thread(
        scene.ca.set_script, Script(faults=[Fault.hanging(resource, processed=True)])
    )
    log = len(scene.broker.log_text())
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names())
        work = asyncio.create_task(scene.obtain(survivor))
        await asyncio.to_thread(scene.ca.wait_seen, resource, count + 1)
        assert await stop(scene) < STOP_SECONDS
        await asyncio.to_thread(scene.broker.restart)
        await work
    assert "Traceback" not in scene.broker.log_text()[log:]
    assert "invalid" not in survivor.statuses
    assert scene.faults() == []


async def test_sigterm_answers_the_client_that_waits(scene: Scene) -> None:
    """A finalize that is being held back for the CA is answered with the order as it stands."""
    assert scene.ca is not None
    count = scene.ca.ledger().count(Resource.FINALIZE)
    hold = Fault.hanging(Resource.FINALIZE, processed=True)
    async with scene.client() as client:
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[hold]))
        survivor = Survivor(client, *scene.names())
        order = await survivor.carry_to("ready")
        work = asyncio.create_task(client.finalize(order, survivor.csr))
        await asyncio.to_thread(scene.ca.wait_seen, Resource.FINALIZE, count + 1)
        await stop(scene)
        answer = await work
        assert (answer.status, answer.json()["status"]) == (200, "processing")
        await asyncio.to_thread(scene.broker.restart)
        await scene.obtain(survivor)
    assert scene.faults() == []


async def test_idle_broker_stops_at_once(make_scene: Callable[..., Scene]) -> None:
    """With clients connected and nothing to do, the end takes no time at all."""
    scene = make_scene()
    async with scene.client() as client:
        await scene.obtain(Survivor(client, *scene.names()))
        assert await stop(scene) < IDLE_STOP_SECONDS
