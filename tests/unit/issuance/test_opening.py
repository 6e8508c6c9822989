"""newOrder at the CA: each of its orders serves one of ours, and a lost answer is sought."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.records import JobKind, OrderRecord
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.clock import START
from tests.fakes.world import Client, World, leaf_of, make_csr, new_key

NAME = "www.example.com"
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


async def proves_own_key(world: World, clients: list[Client], orders: list[OrderRecord]) -> None:
    """Assert that each order, once finalized by a key of its own, gets a certificate for it."""
    keys = [new_key() for _ in orders]
    await asyncio.gather(
        *(
            client.finalize(order, make_csr(NAME, key=key))
            for client, order, key in zip(clients, orders, keys, strict=True)
        )
    )
    for client, order, key in zip(clients, orders, keys, strict=True):
        done = await world.finish(order)
        assert done.status is OrderStatus.VALID, done.error
        leaf = leaf_of(await client.chain(done))
        assert leaf.public_key() == key.public_key()


# -------------------------------------------------------------------------------------- coalescing


@pytest.mark.parametrize("askers", [2, 3, 8])
@pytest.mark.parametrize("coalesces", [True, False], ids=["coalescing", "one order each"])
async def test_askers_of_the_same_names_each_get_a_certificate_for_their_own_key(
    world: World, askers: int, coalesces: bool
) -> None:
    """All at the same time, from a CA that hands its pending order to everyone."""
    world.ca.is_coalescing = coalesces
    clients = [await world.client() for _ in range(askers)]
    orders = [await client.ready(NAME) for client in clients]
    await proves_own_key(world, clients, orders)
    assert (world.ca.accepted, len(world.ca.orders)) == (askers, askers)
    assert world.ca.unfinalized == []
    assert world.ca.revoked == {}
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 0
    assert await world.store.suspensions() == []


async def test_asker_waits_for_the_one_who_has_the_cas_order(world: World) -> None:
    """While the first is at work the second is processing; then it gets an order of its own."""
    world.ca.is_coalescing = True
    first, second = await world.client(), await world.client()
    orders = [await first.ready(NAME), await second.ready(NAME)]
    stall = world.ca.stall("finalize")
    one = asyncio.create_task(
        world.orders.finalize(first.account, orders[0].order_id, make_csr(NAME))
    )
    await stall.reached.wait()
    other = await second.finalize(orders[1])
    assert other.status is OrderStatus.PROCESSING
    assert len(world.ca.orders) == 1
    stall.release()
    assert (await one).status is OrderStatus.PROCESSING, "it has waited long enough as well"
    for order in orders:
        assert (await world.finish(order)).status is OrderStatus.VALID
    assert (len(world.ca.orders), world.ca.accepted) == (2, 2)


async def test_order_that_nobody_has_taken_is_taken_over(world: World) -> None:
    """An abandoned order blocks nobody, even where its work is too old to be taken by its key."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    await gone.ready(NAME)
    world.clock.advance(10 * DAY)
    done = await here.finalize(await here.ready(NAME))
    assert done.status is OrderStatus.VALID, done.error
    assert (len(world.ca.orders), world.ca.accepted) == (1, 1)
    (event,) = await world.events(EventKind.UPSTREAM_ORDER_ADOPTED)
    assert event.order_id == done.order_id
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 0


async def test_order_that_is_taken_over_is_not_authorized_twice_at_once(world: World) -> None:
    """Its challenges may be under way: whoever takes it over waits for that."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    stall = world.ca.stall("authorize")
    await gone.ready(NAME)
    await stall.reached.wait()
    world.clock.advance(10 * DAY)
    order = await here.ready(NAME)
    finalizing = asyncio.create_task(
        world.orders.finalize(here.account, order.order_id, make_csr(NAME))
    )
    await world.settle()
    assert await world.count(EventKind.UPSTREAM_ORDER_ADOPTED) == 1
    assert world.ca.count("authorize") == 1
    stall.release()
    assert (await world.drive(asyncio.wait_for(finalizing, None))).status is OrderStatus.VALID
    assert world.ca.count("authorize") == 1


@pytest.mark.parametrize(
    ("abandoned", "wanted"),
    [
        pytest.param({}, {"not_after": START + 10 * DAY}, id="a later end than the client's"),
        pytest.param(
            {"not_after": START + 10 * DAY}, {"not_after": START + 20 * DAY}, id="earlier"
        ),
        pytest.param({"profile": "other"}, {}, id="another profile"),
    ],
)
async def test_order_that_was_opened_for_something_else_makes_room(
    world: World, abandoned: dict[str, object], wanted: dict[str, object]
) -> None:
    """Taking it over would be a breach: it is withdrawn, and the CA makes another one."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    left = await gone.ready(NAME, **abandoned)  # type: ignore[arg-type]
    order = await here.finalize(await here.ready(NAME, **wanted))  # type: ignore[arg-type]
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("withdraw") == 1
    assert len(world.ca.issued) == 1
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 0
    assert await world.store.suspensions() == []
    # Whoever left it comes back, and is served by an order of its own.
    assert (await world.finish(await gone.finalize(left))).status is OrderStatus.VALID
    assert len(world.ca.issued) == world.ca.accepted == 2


async def test_work_that_is_taken_while_it_is_prepared_keeps_its_own_end(world: World) -> None:
    """The preparation knows of no order, so it takes nothing over that asked for another end."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    await gone.ready(NAME, not_after=START + 10 * DAY)
    stall = world.ca.stall("open_order", after=True)
    order = await here.ready(NAME, not_after=START + 20 * DAY)
    await stall.reached.wait()
    finalizing = asyncio.create_task(
        world.orders.finalize(here.account, order.order_id, make_csr(NAME))
    )
    await world.settle()
    stall.release()
    await world.drive(asyncio.wait_for(finalizing, None))
    done = await world.finish(order)
    assert done.status is OrderStatus.VALID, done.error
    (issued,) = world.ca.issued
    assert x509.load_der_x509_certificate(issued.leaf_der).not_valid_after_utc == START + 20 * DAY
    assert await world.store.suspensions() == []


async def test_withdrawal_that_is_not_answered_is_asked_for_again(world: World) -> None:
    """Until the CA has let go of the order, nobody gets it who asked for another end."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    await gone.ready(NAME)
    world.ca.fail("withdraw", Unreachable("the CA is away"), times=2)
    order = await here.finalize(await here.ready(NAME, not_after=START + 10 * DAY))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("withdraw") == 3
    assert world.ca.accepted == 1
    assert await world.store.suspensions() == []


async def test_order_that_was_opened_under_a_longer_cap_makes_room(world: World) -> None:
    """Its certificate would be past the cap of the one who took it over."""
    world.ca.is_coalescing = True
    gone, here = await world.client(), await world.client()
    await gone.ready(NAME)
    world.policies.change("cap: 90d", "cap: 30d")
    order = await here.finalize(await here.ready(NAME))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("withdraw") == 1
    assert await world.store.suspensions() == []


async def test_order_whose_finalize_was_refused_serves_the_next_one(world: World) -> None:
    """The CA did not like the key and hands the same order, still ready, to the next asker."""
    world.ca.is_coalescing = True
    client = await world.client()
    world.ca.fail("finalize", Refused(Problem(ProblemType.BAD_CSR, "key is not to our taste")))
    refused = await client.finalize(await client.ready(NAME))
    assert refused.status is OrderStatus.INVALID
    order = await client.ready(NAME)
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert (len(world.ca.orders), world.ca.accepted) == (1, 1)


async def test_ca_that_hands_out_a_finished_order_is_broken(world: World) -> None:
    """Its certificate is somebody's: the order stands still, and passes once the CA is mended."""
    client = await world.client()
    await client.issue(NAME)
    (finished,) = world.ca.orders.values()
    finished.status = OrderStatus.READY
    world.ca.is_coalescing = True
    with capture_logs() as lines:
        order = await client.finalize(await client.ready(NAME))
    assert order.status is OrderStatus.PROCESSING
    assert "handed out a finished order again" in str(lines)
    assert world.ca.accepted == 1
    finished.status = OrderStatus.VALID
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.accepted == 2


async def test_one_new_order_at_a_time_for_the_same_names(world: World) -> None:
    """Two that are sent at once could both be given the same order and both be told it is new."""
    clients = [await world.client() for _ in range(3)]
    orders = [await client.ready(NAME) for client in clients]
    stall = world.ca.stall("open_order")
    finalizing = [
        asyncio.create_task(world.orders.finalize(c.account, o.order_id, make_csr(NAME)))
        for c, o in zip(clients, orders, strict=True)
    ]
    await stall.reached.wait()
    await world.settle()
    assert world.ca.count("open_order") == 2, "the one that was prepared, and one more"
    stall.release()
    answers = await world.drive(asyncio.wait_for(asyncio.gather(*finalizing), None))
    assert {one.status for one in answers} == {OrderStatus.VALID}


async def test_new_orders_for_other_names_do_not_wait(world: World) -> None:
    """A CA that hangs over one name keeps nobody else waiting."""
    client = await world.client()
    stall = world.ca.stall("open_order")
    await client.ready(NAME)
    await stall.reached.wait()
    assert (await client.issue("b.example.com")).status is OrderStatus.VALID
    stall.release()


# ------------------------------------------------------------------------------------ lost answers


async def test_lost_answer_is_sought_and_found(world: World) -> None:
    """The order that was made is used, and no second one is asked for."""
    client = await world.client()
    world.ca.lose_answer("open_order")
    order = await client.finalize(await client.ready(NAME))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert (world.ca.count("open_order"), world.ca.count("seek_order")) == (1, 1)
    assert (len(world.ca.orders), world.ca.unfinalized) == (1, [])
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 0


async def test_lost_order_that_the_ca_does_not_list_is_counted(world: World) -> None:
    """One unfinalized order stays behind, and an event says so."""
    client = await world.client()
    world.ca.lists_orders = False
    world.ca.lose_answer("open_order")
    order = await client.finalize(await client.ready(NAME))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert (len(world.ca.orders), len(world.ca.unfinalized)) == (2, 1)
    (event,) = await world.events(EventKind.UPSTREAM_ORDER_LOST)
    assert event.upstream == "ca"


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Unreachable("connection refused", left_nothing=True), id="no connection"),
        pytest.param(Unreachable("busy", left_nothing=True), id="turned away"),
    ],
)
async def test_request_that_left_nothing_is_not_sought(world: World, outcome: Exception) -> None:
    """It is just sent again, and nothing is counted."""
    client = await world.client()
    world.ca.fail("open_order", outcome, times=3)
    order = await client.finalize(await client.ready(NAME))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("seek_order") == 0
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 0


async def test_order_of_another_record_is_never_found(world: World) -> None:
    """Whatever the CA lists, what is ours already is passed over."""
    first, second = await world.client(), await world.client()
    orders = [await first.ready(NAME), await second.ready(NAME)]
    world.ca.holds_back = True
    await first.finalize(orders[0])
    world.ca.lose_answer("open_order")
    world.ca.holds_back = False
    await proves_own_key(world, [second], [orders[1]])
    world.ca.issue_held()
    await world.finish(orders[0])
    assert (len(world.ca.orders), world.ca.accepted) == (2, 2)


# ----------------------------------------------------------------------------------------- refusals


async def test_new_order_that_the_ca_refuses_ends_the_order_once_somebody_asks(
    world: World,
) -> None:
    """Prepared in vain, nobody hears of it; at finalize the reason is told."""
    client = await world.client()
    refusal = Refused(Problem(ProblemType.REJECTED_IDENTIFIER, "not for this name"))
    world.ca.fail("open_order", refusal, times=2)
    order = await client.ready(NAME)
    assert await world.jobs(JobKind.PREPARE) == 0
    ended = await client.finalize(order)
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert "not for this name" in str(ended.error["detail"])
    assert str(ended.error["type"]).endswith(":rejectedIdentifier")
    assert (await client.issue(NAME)).status is OrderStatus.VALID


async def test_order_that_the_ca_forgot_before_finalize_is_opened_anew(world: World) -> None:
    """It was never finalized, so nothing can come of it."""
    client = await world.client()
    order = await client.ready(NAME)
    (url,) = world.ca.orders
    world.ca.forget(url)
    world.clock.advance(MINUTE)
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert world.ca.count("open_order") == 2


async def test_order_that_the_ca_forgot_after_finalize_stands_still(world: World) -> None:
    """A certificate may have come of it, so no second one is asked for; a person has to look."""
    client = await world.client()
    world.ca.holds_back = True
    order = await client.finalize(await client.ready(NAME))
    ((url, forgotten),) = world.ca.orders.items()
    world.ca.forget(url)
    await world.let_pass(timedelta(hours=5))
    assert (await world.load(order)).status is OrderStatus.PROCESSING
    assert world.ca.count("open_order") == 1
    world.ca.orders[url] = forgotten
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.accepted == 1


async def test_work_without_a_url_has_nothing_to_read(world: World) -> None:
    """Asking for it is a fault of ours, told as one."""
    client = await world.client()
    order = await client.ready(NAME, profile="private")
    await client.finalize(order)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    opening = world.fulfilment._opening
    with pytest.raises(Broken, match="no upstream order"):
        await opening.read(world.local, replace(work, order_url=None))
    assert (await opening.read(world.local, work)).status is OrderStatus.VALID


async def test_work_that_another_order_has_by_now_is_read_again(world: World) -> None:
    """Two may have exchanged theirs since it was read; who has it goes on."""
    client = await world.client()
    world.ca.is_away = True
    orders = [await client.finalize(await client.ready(NAME)) for _ in range(2)]
    work = await world.store.work_of_order(orders[0].order_id)
    assert work is not None
    world.ca.is_away = False
    opening = world.fulfilment._opening
    with pytest.raises(Postponed):
        await opening.open(world.ca, work, order=orders[1])
    assert world.ca.orders == {}
    opened, _ = await opening.open(world.ca, work, order=orders[0])
    assert opened.order_url in world.ca.orders
