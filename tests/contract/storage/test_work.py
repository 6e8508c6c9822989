"""Upstream orders: taken by one of ours at most, each URL held by one living record."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached, Store
from broker.issuance.records import OrderRecord, WorkRecord, WorkStatus
from broker.protocol.resources import OrderStatus
from tests.contract.storage import given

URL = "https://ca.example/order/1"


async def has_free(store: Store, **changes: Any) -> WorkRecord:
    """Keep free work of a key of its own and return it."""
    made = given.work(work_key=given.name("key"), **changes)
    await given.has_order(store, attached=Attached(work=made))
    return made


async def opened(store: Store, work: WorkRecord, url: str = URL) -> WorkRecord:
    """Record that *work* was opened at *url*."""
    event = given.event(EventKind.UPSTREAM_ORDER_OPENED)
    return await store.record_opened(work.work_id, url, event, durable=True)


async def count(store: Store, kind: EventKind) -> int:
    """Return how many events of *kind* are kept."""
    events = await store.read_events(after=0, limit=100, order_id=None)
    return [one.kind for _, one in events].count(kind)


async def test_unknown_work_is_none(store: Store) -> None:
    """What was never kept is not found."""
    assert await store.load_work("nothing") is None
    assert await store.work_of_order("nothing") is None


async def test_sent_is_noted_and_taken_back(store: Store) -> None:
    """A newOrder under way is marked, and unmarked when it left nothing."""
    work = await has_free(store)
    for is_sent in (True, False):
        await store.mark_sent(work.work_id, is_sent=is_sent)
        assert await store.load_work(work.work_id) == replace(work, is_sent=is_sent)
    with pytest.raises(Conflict, match="unknown"):
        await store.mark_sent("nothing", is_sent=True)


async def test_opened_work_has_its_url_and_nothing_in_flight(store: Store) -> None:
    """The answer is kept, so nothing sent is without its answer any more."""
    work = await has_free(store)
    await store.mark_sent(work.work_id, is_sent=True)
    kept = await opened(store, work)
    assert kept == replace(work, status=WorkStatus.OPENED, order_url=URL, is_sent=False)
    assert await store.load_work(work.work_id) == kept


async def test_url_that_is_held_returns_its_holder(store: Store) -> None:
    """A coalescing CA gives one order to two; the second record learns who holds it."""
    first, second = await has_free(store), await has_free(store)
    holder = await opened(store, first)
    assert await opened(store, second) == holder
    assert await store.load_work(second.work_id) == second
    assert await count(store, EventKind.UPSTREAM_ORDER_OPENED) == 1


async def test_same_url_for_the_same_record_changes_nothing(store: Store) -> None:
    """A repeated note of one answer is answered with the record as kept."""
    work = await has_free(store)
    kept = await opened(store, work)
    assert await opened(store, work) == kept
    assert await count(store, EventKind.UPSTREAM_ORDER_OPENED) == 1


async def test_eight_records_at_once_for_one_url_have_one_holder(store: Store) -> None:
    """All of them are told the same holder."""
    records = [await has_free(store) for _ in range(8)]
    got = await asyncio.gather(*(opened(store, one) for one in records))
    assert len({one.work_id for one in got}) == 1
    assert (await store.outcome_counts())["work_opened"] == 1


async def test_url_of_dead_work_is_free(store: Store) -> None:
    """A CA that hands a refused order to the next asker gives it to that one; the dead record
    keeps its history, and the URL stays known."""
    dead = await opened(store, await has_free(store))
    await store.change_work(dead.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.DEAD)
    second = await has_free(store)
    kept = await opened(store, second)
    assert (kept.work_id, kept.order_url) == (second.work_id, URL)
    assert await store.load_work(dead.work_id) == replace(dead, status=WorkStatus.DEAD)
    assert await store.known_urls("ca", "default") == frozenset({URL})
    third = await has_free(store)
    assert await opened(store, third) == kept


async def test_dead_work_does_not_come_back_to_a_url_that_was_given_on(store: Store) -> None:
    """Whatever is asked, a URL has one living record."""
    dead = await opened(store, await has_free(store))
    await store.change_work(dead.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.DEAD)
    await opened(store, await has_free(store))
    with pytest.raises(Conflict):
        await store.change_work(dead.work_id, expected=[WorkStatus.DEAD], status=WorkStatus.OPENED)


async def test_dead_work_is_not_opened(store: Store) -> None:
    """An answer that comes for abandoned work is a conflict, and its URL stays free."""
    work = await has_free(store)
    await store.change_work(work.work_id, expected=[WorkStatus.INTENDED], status=WorkStatus.DEAD)
    with pytest.raises(Conflict, match="is dead, expected intended"):
        await opened(store, work)
    with pytest.raises(Conflict, match="unknown"):
        await opened(store, replace(work, work_id="nothing"))
    assert await store.known_urls("ca", "default") == frozenset()


async def test_open_work_is_not_opened_elsewhere(store: Store) -> None:
    """A record keeps the URL it has; another answer for it is a conflict."""
    work = await has_free(store)
    kept = await opened(store, work)
    with pytest.raises(Conflict, match="is opened, expected intended"):
        await opened(store, work, "https://ca.example/order/2")
    assert await store.load_work(work.work_id) == kept


async def test_known_urls_are_those_of_the_account(store: Store) -> None:
    """Every URL of (upstream, community) counts, whatever became of the work."""
    mine = await has_free(store)
    await opened(store, mine)
    await store.change_work(mine.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.DEAD)
    for n, changes in enumerate(({"upstream": "other"}, {"community": "other"})):
        await opened(store, await has_free(store, **changes), f"https://ca.example/other/{n}")
    await has_free(store)
    assert await store.known_urls("ca", "default") == frozenset({URL})


# ----------------------------------------------------------------------------------- adoption


async def adopt(store: Store, mine: WorkRecord, other: WorkRecord) -> WorkRecord:
    """Let the order that took *mine* take *other* instead."""
    assert mine.taken_by is not None
    return await store.adopt_work(
        mine.taken_by,
        work_id=other.work_id,
        instead_of=mine.work_id,
        event=given.event(EventKind.UPSTREAM_ORDER_ADOPTED),
    )


async def test_order_adopts_free_work(store: Store) -> None:
    """The order has the adopted work from now on, and its own is dead."""
    free = await opened(store, await has_free(store))
    order, mine = await given.has_claimed(store)
    adopted = await adopt(store, mine, free)
    assert adopted == replace(free, taken_by=order.order_id)
    assert await store.work_of_order(order.order_id) == adopted
    assert await store.load_work(mine.work_id) == replace(mine, status=WorkStatus.DEAD)


async def test_eight_orders_at_once_adopt_one_work_once(store: Store) -> None:
    """One order gets it; the others keep their own."""
    free = await has_free(store)
    claimed = [await given.has_claimed(store) for _ in range(8)]
    got = await asyncio.gather(
        *(adopt(store, mine, free) for _, mine in claimed), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in got) == 7
    living = [await store.work_of_order(order.order_id) for order, _ in claimed]
    assert len({one.work_id for one in living if one is not None}) == 8
    assert await count(store, EventKind.UPSTREAM_ORDER_ADOPTED) == 1


async def test_adoption_of_what_cannot_be_had_changes_nothing(store: Store) -> None:
    """Work that is taken, dead or unknown is refused, and one's own goes on living."""
    order, mine = await given.has_claimed(store)
    _, taken = await given.has_claimed(store)
    dead = await has_free(store)
    await store.change_work(dead.work_id, expected=[WorkStatus.INTENDED], status=WorkStatus.DEAD)
    for other, sentence in (
        (taken, "is taken by"),
        (dead, "is dead"),
        (given.work(), "unknown"),
    ):
        with pytest.raises(Conflict, match=sentence):
            await adopt(store, mine, other)
    assert await store.work_of_order(order.order_id) == mine


async def has_opened(store: Store) -> tuple[OrderRecord, WorkRecord]:
    """Return an order that is processing, with work that is open."""
    order, made = await given.has_claimed(store)
    return order, await opened(store, made)


async def test_orders_exchange_work_in_one_step(store: Store) -> None:
    """The one has what was open, the other begins anew, and nobody is ever without."""
    waiting, theirs = await has_opened(store)
    order, mine = await given.has_claimed(store)
    anew = given.work(taken_by=waiting.order_id)
    got = await store.adopt_work(
        order.order_id,
        work_id=theirs.work_id,
        instead_of=mine.work_id,
        event=given.event(EventKind.UPSTREAM_ORDER_ADOPTED),
        in_exchange=anew,
    )
    assert got == replace(theirs, taken_by=order.order_id)
    assert await store.work_of_order(order.order_id) == got
    assert await store.work_of_order(waiting.order_id) == anew
    assert await store.load_work(mine.work_id) == replace(mine, status=WorkStatus.DEAD)


async def test_what_is_being_finalized_is_not_exchanged(store: Store) -> None:
    """Nor what a third order has: each keeps its own."""
    waiting, theirs = await has_opened(store)
    order, mine = await given.has_claimed(store)
    third, _ = await given.has_claimed(store)

    async def exchange(giver: OrderRecord) -> None:
        await store.adopt_work(
            order.order_id,
            work_id=theirs.work_id,
            instead_of=mine.work_id,
            event=given.event(EventKind.UPSTREAM_ORDER_ADOPTED),
            in_exchange=given.work(taken_by=giver.order_id),
        )

    with pytest.raises(Conflict, match="is taken by"):
        await exchange(third)
    await store.change_work(
        theirs.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.FINALIZING
    )
    with pytest.raises(Conflict, match="is finalizing"):
        await exchange(waiting)
    assert await store.work_of_order(order.order_id) == mine
    found = await store.work_of_order(waiting.order_id)
    assert found == replace(theirs, status=WorkStatus.FINALIZING)


async def test_order_moves_on_only_its_own_work(store: Store) -> None:
    """What was exchanged meanwhile is finalized by who has it now."""
    order, mine = await given.has_claimed(store)
    move = {"expected": [WorkStatus.INTENDED], "status": WorkStatus.FINALIZING}
    with pytest.raises(Conflict, match="is taken by"):
        await store.change_work(mine.work_id, only_of="another", **move)
    await store.change_work(mine.work_id, only_of=order.order_id, **move)
    assert await store.work_of_order(order.order_id) == replace(mine, status=WorkStatus.FINALIZING)


async def test_work_of_another_order_cannot_be_given_up(store: Store) -> None:
    """An order marks only its own work dead."""
    _, theirs = await given.has_claimed(store)
    order, _ = await given.has_claimed(store)
    free = await has_free(store)
    with pytest.raises(Conflict, match="does not belong"):
        await adopt(store, replace(theirs, taken_by=order.order_id), free)
    assert await store.load_work(theirs.work_id) == theirs


# ------------------------------------------------------------------------------------ changes


async def test_work_moves_on_from_an_expected_status(store: Store) -> None:
    """Any of the expected ones will do; another is a conflict that names both."""
    work = await has_free(store)
    await store.change_work(
        work.work_id,
        expected=(WorkStatus.OPENED, WorkStatus.INTENDED),
        status=WorkStatus.ACCEPTED,
        events=(given.event(EventKind.UPSTREAM_ORDER_LOST),),
        durable=False,
    )
    assert await store.load_work(work.work_id) == replace(work, status=WorkStatus.ACCEPTED)
    with pytest.raises(Conflict, match="is accepted, expected intended or opened"):
        await store.change_work(
            work.work_id,
            expected=(WorkStatus.OPENED, WorkStatus.INTENDED),
            status=WorkStatus.DEAD,
            events=(given.event(EventKind.UPSTREAM_ORDER_LOST),),
        )
    assert await count(store, EventKind.UPSTREAM_ORDER_LOST) == 1


async def test_unknown_work_cannot_move_on(store: Store) -> None:
    """There is nothing to compare with."""
    with pytest.raises(Conflict, match="unknown"):
        await store.change_work("nothing", expected=[WorkStatus.OPENED], status=WorkStatus.DEAD)


async def test_replacement_comes_with_the_end_of_the_old(store: Store) -> None:
    """An order has living work at every moment: the new in the moment the old is dead."""
    order, old = await given.has_claimed(store)
    new = given.work(taken_by=order.order_id)
    await store.change_work(
        old.work_id, expected=[old.status], status=WorkStatus.DEAD, replacement=new
    )
    assert await store.work_of_order(order.order_id) == new


async def test_order_never_has_two_living_works(store: Store) -> None:
    """A replacement beside living work is refused, and the old stays as it was."""
    order, old = await given.has_claimed(store)
    with pytest.raises(Conflict):
        await store.change_work(
            old.work_id,
            expected=[old.status],
            status=WorkStatus.ACCEPTED,
            replacement=given.work(taken_by=order.order_id),
        )
    assert await store.work_of_order(order.order_id) == old


async def test_only_untaken_work_is_abandoned(store: Store) -> None:
    """Work that an order took meanwhile is not dropped by the one who prepared it."""
    free = await has_free(store)
    order = await given.has_order(store, status=OrderStatus.READY)

    async def abandon() -> None:
        await store.change_work(
            free.work_id,
            expected=[WorkStatus.INTENDED],
            status=WorkStatus.DEAD,
            only_untaken=True,
        )

    await store.claim_finalize(given.claim(order, work_key=free.work_key))
    with pytest.raises(Conflict, match="is taken by"):
        await abandon()
    assert await store.work_of_order(order.order_id) == replace(free, taken_by=order.order_id)


async def test_untaken_work_is_abandoned(store: Store) -> None:
    """The twin: nobody took it, so it ends."""
    free = await has_free(store)
    await store.change_work(
        free.work_id, expected=[WorkStatus.INTENDED], status=WorkStatus.DEAD, only_untaken=True
    )
    assert await store.load_work(free.work_id) == replace(free, status=WorkStatus.DEAD)
