"""Many at once: finalizes of one order, and askers whom the CA hands one and the same order.

Whoever wins, the CA's record shows one finalize and one certificate for each order of ours, and
nobody is handed a certificate of somebody else's key.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import pytest
from cryptography.hazmat.primitives import serialization

from tests.deployments.ledger import unfinished_at
from tests.e2e.scene import Scene
from tests.e2e.survivor import Patient, Refused, Survivor
from tests.fakes.acme_client import AcmeClient, Answer, make_csr
from tests.fakes.hostile_ca import AfterFinalize, Behaviour, Fault, Resource, Script
from tests.fakes.hostile_ca.envelope import b64

pytestmark = pytest.mark.e2e

AT_ONCE = 8
ROUNDS = 5

PROMPT_SECONDS = 90.0
"""By when the second asker has its certificate: nobody waits for the abandoned order's 8 hours."""

FINALIZE_WAIT = "1s"
"""How long finalize is held back: short, so that no test waits long for `processing`."""

COALESCING = Behaviour(coalesce=True)
"""Whoever asks for the same names gets the same order until it is finalized, as Boulder does."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of a CA that is told anew by each test."""
    limits = {"finalize_wait": FINALIZE_WAIT}
    with Scene(tmp_path_factory.mktemp("races"), Script(), limits=limits) as scene:
        yield scene


async def same_account(stack: AsyncExitStack, scene: Scene, first: AcmeClient) -> AcmeClient:
    """Return another client of *first*'s account, with a connection and nonces of its own."""
    other = AcmeClient(scene.broker.directory_url, scene.broker.ca_bundle)
    other.key, other.account_url = first.key, first.account_url
    return await stack.enter_async_context(other)


async def finalize_at_once(
    stack: AsyncExitStack, scene: Scene, survivor: Survivor, csrs: Sequence[bytes]
) -> list[Answer | Refused]:
    """Send a finalize for each CSR at the same moment; return what each was told."""
    order = await survivor.carry_to("ready")
    clients = [await same_account(stack, scene, survivor.client) for _ in csrs]
    for client in clients:
        client.nonce = await client.fresh_nonce()
    requests = [
        Patient(client).ask(order["finalize"], {"csr": b64(der)})
        for client, der in zip(clients, csrs, strict=True)
    ]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(each, Answer | Refused) for each in answers), answers
    return [each for each in answers if isinstance(each, Answer | Refused)]


def der_of(survivor: Survivor) -> bytes:
    """Return the DER of the survivor's CSR."""
    return survivor.csr.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("after", [AfterFinalize.VALID, AfterFinalize.PROCESSING], ids=str)
async def test_eight_finalizes_with_one_csr_give_one_certificate(
    after: AfterFinalize, scene: Scene
) -> None:
    """All eight are answered with the order; the CA saw one finalize and issued once."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=Behaviour(after_finalize=after, polls_until_done=2)))
    finalizes = scene.ca.ledger().count(Resource.FINALIZE)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(scene.client())
        survivor = Survivor(client, *scene.names())
        csrs = [der_of(survivor)] * AT_ONCE
        answers = await finalize_at_once(stack, scene, survivor, csrs)
        assert [each.status for each in answers if isinstance(each, Answer)] == [200] * AT_ONCE
        await scene.obtain(survivor)
    assert scene.ca.ledger().count(Resource.FINALIZE) == finalizes + 1
    assert scene.faults() == []


async def test_eight_finalizes_with_eight_csrs_give_one_certificate(scene: Scene) -> None:
    """One wins and gets its certificate; seven are refused, and the CA heard nothing of them."""
    assert scene.ca is not None
    scene.ca.set_script(Script())
    finalizes = scene.ca.ledger().count(Resource.FINALIZE)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(scene.client())
        survivor = Survivor(client, *scene.names())
        others = [make_csr(survivor.names) for _ in range(AT_ONCE)]
        csrs = [each.public_bytes(serialization.Encoding.DER) for each in others]
        answers = await finalize_at_once(stack, scene, survivor, csrs)
        (winner,) = [n for n, each in enumerate(answers) if isinstance(each, Answer)]
        refused = [str(each) for each in answers if isinstance(each, Refused)]
        assert all("orderNotReady" in each for each in refused)
        assert len(refused) == AT_ONCE - 1
        order = await survivor.carry_to("valid")
        chain = await survivor.ask(order["certificate"])
        scene.note_delivery(others[winner], chain.body)
    assert scene.ca.ledger().count(Resource.FINALIZE) == finalizes + 1
    assert scene.faults() == []


@pytest.mark.parametrize(
    ("accounts", "askers"),
    [
        pytest.param(2, 2, id="two accounts"),
        pytest.param(3, 3, id="three accounts"),
        pytest.param(1, 2, id="one account, two keys"),
    ],
)
async def test_coalescing_ca_never_makes_one_asker_receive_anothers_certificate(
    accounts: int, askers: int, scene: Scene
) -> None:
    """The same names, the same moment, other keys: each gets a certificate for its own key."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=COALESCING))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(scene.client()) for _ in range(accounts)]
        for _ in range(ROUNDS):
            names = scene.names(2)
            issued = len(scene.ca.ledger().certificates)
            survivors = [Survivor(clients[n % accounts], *names) for n in range(askers)]
            await asyncio.gather(*(scene.obtain(one) for one in survivors))
            assert len(scene.ca.ledger().certificates) == issued + askers
            assert scene.faults() == []
    assert unfinished_at(scene.ca.ledger()) == []


async def test_coalesced_askers_survive_a_crash(scene: Scene) -> None:
    """The broker is killed while three wait for one order of the CA: each gets its own."""
    assert scene.ca is not None
    hold = Fault.hanging(Resource.FINALIZE, processed=True)
    scene.ca.set_script(Script(standing=COALESCING, faults=[hold]))
    finalizes = scene.ca.ledger().count(Resource.FINALIZE)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(scene.client()) for _ in range(3)]
        names = scene.names()
        work = [asyncio.create_task(scene.obtain(Survivor(one, *names))) for one in clients]
        await asyncio.to_thread(scene.ca.wait_seen, Resource.FINALIZE, finalizes + 1)
        await asyncio.to_thread(scene.broker.restart)
        await asyncio.gather(*work)
    assert scene.faults() == []


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_abandoned_order_blocks_nobody(round_: int, scene: Scene) -> None:
    """One asker leaves its order ready for ever; the next for the same names takes over its
    upstream half, and nothing is left at the CA."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=COALESCING))
    async with scene.client() as idle, scene.client() as keen:
        names = scene.names()
        orders = len(scene.ca.ledger().orders)
        await Survivor(idle, *names).carry_to("ready")
        async with asyncio.timeout(PROMPT_SECONDS):
            await scene.obtain(Survivor(keen, *names))
            await scene.obtain(Survivor(keen, *names))
        assert len(scene.ca.ledger().orders) <= orders + 2
    assert scene.faults() == []


@pytest.mark.parametrize(
    ("idle_end", "keen_end"),
    [
        pytest.param(10, None, id="an earlier one than none"),
        pytest.param(None, 10, id="none, then one"),
        pytest.param(10, 20, id="an earlier one"),
        pytest.param(20, 10, id="a later one"),
    ],
)
async def test_abandoned_order_for_another_end_blocks_nobody(
    idle_end: int | None, keen_end: int | None, scene: Scene
) -> None:
    """The abandoned order was for another end of validity, which this CA does not look at."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=COALESCING))
    async with scene.client() as idle, scene.client() as keen:
        names = scene.names()
        await Survivor(idle, *names, days=idle_end).carry_to("ready")
        async with asyncio.timeout(PROMPT_SECONDS):
            await scene.obtain(Survivor(keen, *names, days=keen_end))
    assert scene.faults() == []


async def test_order_prepared_meanwhile_keeps_the_end_its_client_named(scene: Scene) -> None:
    """Finalize comes while the order waits for its turn to be opened ahead, and the CA answers with
    an abandoned order for an earlier end: that one is not taken, and nothing is withheld."""
    assert scene.ca is not None
    scene.ca.set_script(Script(standing=COALESCING))
    adopted = scene.kept().events["upstream-order-adopted"]
    count = scene.ca.ledger().count(Resource.NEW_ORDER)
    async with scene.client() as idle, scene.client() as other, scene.client() as keen:
        names = scene.names()
        await Survivor(idle, *names, days=10).carry_to("ready")
        await asyncio.to_thread(scene.ca.wait_seen, Resource.NEW_ORDER, count + 1)
        # The names are asked for by one task at a time: this one holds the turn until released.
        hold = Fault.hanging(Resource.NEW_ORDER)
        await asyncio.to_thread(scene.ca.set_script, Script(standing=COALESCING, faults=[hold]))
        await Survivor(other, *names, days=30).carry_to("ready")
        await asyncio.to_thread(scene.ca.wait_seen, Resource.NEW_ORDER, count + 2)
        survivor = Survivor(keen, *names, days=20)
        await survivor.carry_to("processing")
        await asyncio.to_thread(scene.ca.release)
        await scene.obtain(survivor)
    kept = scene.kept()
    assert scene.faults() == []
    assert kept.events["certificate-withheld"] == kept.events["upstream-suspended"] == 0
    assert kept.events["upstream-order-adopted"] == adopted
