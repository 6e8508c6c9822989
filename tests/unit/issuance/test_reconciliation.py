"""A restored store is compared with its CA: nothing in use is revoked, nothing ordered twice."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.reconciliation import Reconciliation
from broker.issuance.reconciling import OrderListing
from broker.issuance.records import OrderRecord, RestorationRecord
from broker.issuance.standstill import Standstill
from broker.protocol.resources import OrderStatus
from broker.storage.backup import copy_store
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.world import Client, FakeUpstreams, World, leaf_of, make_csr

ANNA = Actor("operator:anna", "it burned down")


@dataclass
class FakeLedger:
    """What the CA says of our account."""

    world: World
    faults: list[str] = field(default_factory=list)
    omits_done: bool = False
    is_whole: bool = True

    @property
    def ca(self) -> FakeUpstream:
        ca = self.world.upstreams["ca"]
        assert isinstance(ca, FakeUpstream)
        return ca

    async def accounts(self) -> Sequence[tuple[str, str]]:
        return [("ca", "default")]

    async def check(self, upstream: str, community: str) -> Sequence[str]:
        return self.faults

    async def list_orders(self, upstream: str, community: str) -> OrderListing | None:
        if not self.ca.lists_orders:
            return None
        left_out = {OrderStatus.INVALID} | ({OrderStatus.VALID} if self.omits_done else set())
        urls = [url for url, one in self.ca.orders.items() if one.status not in left_out]
        return OrderListing(urls, self.is_whole)


class Place:
    """A world whose store can be taken back to a backup."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.ledger = FakeLedger(world)
        self.standstill = Standstill(None)
        self._backup = folder / "backup.db"

    @property
    def ca(self) -> FakeUpstream:
        """The CA, which forgets nothing."""
        return self.ledger.ca

    def back_up(self) -> None:
        """Copy the store as it is."""
        self._backup.unlink(missing_ok=True)
        copy_store(self.world.path, self._backup)

    async def lose_and_restore(self) -> Reconciliation:
        """End the process, put the backup in place of the store, and begin the next."""
        world = self.world
        at = world.clock.now()
        await world.stop()
        for path in world.path.parent.glob(world.path.name + "*"):
            path.unlink()
        self._backup.rename(world.path)
        world.runs_due = False
        await world.start()
        record = RestorationRecord(
            restoration_id="r",
            backup_id="b",
            backup_at=at,
            restored_at=at,
            reconciled_at=None,
            report={},
        )
        event = (await world.store.read_events(after=0, limit=1, order_id=None))[0][1]
        await world.store.begin_restoration(record, crl_numbers=1_000_000, event=event)
        self.standstill = Standstill(await world.store.open_restoration())
        return Reconciliation(
            store=world.store,
            works=world.store,
            orders=world.store,
            keys=world.store,
            upstreams=FakeUpstreams(world),
            ledger=self.ledger,
            dispatcher=world.dispatcher,
            standstill=self.standstill,
            clock=world.clock,
        )

    def certificates(self) -> int:
        """Return how many certificates the CA has issued."""
        return len(self.ca.issued)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A world with one CA."""
    async with World(tmp_path / "world") as world:
        yield Place(world, tmp_path)


async def prepared(place: Place, name: str) -> tuple[Client, OrderRecord]:
    """Return a ready order whose upstream half is under way, with its client."""
    client = await place.world.client()
    order = await client.ready(name)
    await place.world.settle()
    return client, order


async def test_store_that_missed_nothing_goes_on(place: Place) -> None:
    """Nothing was lost, nothing is unknown, and it is over."""
    client = await place.world.client()
    await client.issue("www.example.com")
    place.back_up()
    report = await (await place.lose_and_restore()).run()
    assert report is not None
    assert report["reconciled"] is True
    assert place.standstill.restoration is None
    assert await place.world.store.open_restoration() is None
    assert await place.world.count(EventKind.STORE_RECONCILED) == 1


async def test_order_that_was_finalized_since_is_not_finalized_for_another_key(
    place: Place,
) -> None:
    """Another order for the same names gets an upstream order of its own; nothing is revoked."""
    client, order = await prepared(place, "www.example.com")
    place.back_up()
    csr = make_csr("www.example.com")
    done = await client.finalize(order, csr)
    leaf = leaf_of(await client.chain(done))
    report = await (await place.lose_and_restore()).run()
    assert report is not None
    assert report["reconciled"] is True
    assert len(report["upstreams"][0]["recovered"]) == 1  # type: ignore[index]
    again = await client.finalize(await client.read(order))
    assert again.status is OrderStatus.VALID
    assert leaf_of(await client.chain(again)) != leaf
    assert place.certificates() == 2
    assert place.ca.revoked == {}


async def test_the_same_csr_again_gets_the_same_certificate(place: Place) -> None:
    """The client had not heard of its certificate yet; it is ordered once."""
    client, order = await prepared(place, "www.example.com")
    place.back_up()
    csr = make_csr("www.example.com")
    leaf = leaf_of(await client.chain(await client.finalize(order, csr)))
    await (await place.lose_and_restore()).run()
    again = await client.finalize(await client.read(order), csr)
    assert again.status is OrderStatus.VALID
    assert leaf_of(await client.chain(again)) == leaf
    assert place.certificates() == 1


async def test_order_that_was_on_its_way_is_moved_on(place: Place) -> None:
    """Its finalize was accepted before the backup, its certificate issued after it."""
    client, order = await prepared(place, "www.example.com")
    place.ca.holds_back = True
    going = await client.finalize(order)
    assert going.status is OrderStatus.PROCESSING
    place.back_up()
    place.ca.issue_held()
    await (await place.lose_and_restore()).run()
    done = await place.world.finish(await client.read(order))
    assert done.status is OrderStatus.VALID
    assert place.certificates() == 1


async def test_successor_of_an_upstream_order_is_found_by_its_key(place: Place) -> None:
    """The order in the backup had ended; the one that took its place is listed, and has our key."""
    client = await place.world.client()
    place.ca.is_away = True
    order = await client.ready("www.example.com")
    going = await client.finalize(order)
    assert going.status is OrderStatus.PROCESSING
    place.back_up()
    place.ca.is_away = False
    done = await place.world.finish(going)
    leaf = leaf_of(await client.chain(done))
    reconciliation = await place.lose_and_restore()
    await reconciliation.run()
    again = await place.world.finish(await client.read(order))
    assert leaf_of(await client.chain(again)) == leaf
    assert place.certificates() == 1


async def test_order_that_could_be_ordered_twice_waits_for_a_person(place: Place) -> None:
    """The CA offers no list, and our newOrder may have come through: nobody orders again."""
    client = await place.world.client()
    place.ca.lists_orders = False
    place.ca.is_away = True
    order = await client.ready("www.example.com")
    going = await client.finalize(order)
    place.back_up()
    place.ca.is_away = False
    await place.world.finish(going)
    reconciliation = await place.lose_and_restore()
    report = await reconciliation.run()
    assert report is not None
    assert report["reconciled"] is False
    await place.world.let_pass(timedelta(minutes=1))
    assert place.certificates() == 1
    await reconciliation.run(["ca"], ANNA)
    assert (await place.world.finish(await client.read(order))).status is OrderStatus.VALID
    assert place.certificates() == 2, "which is what was accepted"


async def test_list_without_orders_that_are_done_is_as_good_as_none(place: Place) -> None:
    """As step-ca's: what was on its way and is done since is not in it, and not ordered again."""
    client = await place.world.client()
    await client.issue("known.example.com")
    place.ledger.omits_done = True
    place.ca.is_away = True
    going = await client.finalize(await client.ready("www.example.com"))
    place.back_up()
    place.ca.is_away = False
    await place.world.finish(going)
    reconciliation = await place.lose_and_restore()
    report = await reconciliation.run()
    assert report is not None
    assert "lists no orders that are done" in str(report["in_the_way"])
    await place.world.let_pass(timedelta(minutes=1))
    assert place.certificates() == 2


async def test_orders_that_only_the_ca_knows_are_told(place: Place) -> None:
    """By name and status, and they stand in nobody's way."""
    client = await place.world.client()
    await client.issue("www.example.com")
    place.back_up()
    await client.issue("later.example.com")
    report = await (await place.lose_and_restore()).run()
    assert report is not None
    (unknown,) = report["upstreams"][0]["unknown"]  # type: ignore[index]
    assert (unknown["names"], unknown["status"]) == (["later.example.com"], "valid")
    assert report["reconciled"] is True


async def test_account_that_is_not_ours_any_more_is_a_loss(place: Place) -> None:
    """Its key was changed after the backup; nothing of it is given to anybody."""
    _, order = await prepared(place, "www.example.com")
    place.back_up()
    reconciliation = await place.lose_and_restore()
    place.ledger.faults = ["account is refused: unauthorized"]
    report = await reconciliation.run()
    assert report is not None
    assert "account is refused" in str(report["in_the_way"])
    assert place.standstill.restoration is not None
    report = await reconciliation.run(["ca"], ANNA)
    assert report is not None
    assert report["reconciled"] is True
    works = await place.world.store.living_work()
    assert [one.status for one in works if one.order_url is not None] == []
    events = await place.world.events(EventKind.STORE_RECONCILED)
    assert (events[-1].actor, events[-1].data["accepted"]) == (ANNA, ["ca"])
    assert (await place.world.load(order)).status is OrderStatus.READY


async def test_ca_that_is_away_is_asked_again(place: Place) -> None:
    """Until it answers nothing is lifted; then by itself."""
    await prepared(place, "www.example.com")
    place.back_up()
    reconciliation = await place.lose_and_restore()
    place.ca.is_away = True
    report = await reconciliation.run()
    assert report is not None
    assert report["reconciled"] is False
    place.ca.is_away = False
    report = await reconciliation.run()
    assert report is not None
    assert report["reconciled"] is True
    assert await reconciliation.run() is None


async def test_loss_of_another_upstream_is_not_accepted_with_it(place: Place) -> None:
    """Acceptance is by name."""
    place.ca.lists_orders = False
    await (await place.world.client()).issue("www.example.com")
    place.back_up()
    reconciliation = await place.lose_and_restore()
    report = await reconciliation.run(["local"], ANNA)
    assert report is not None
    assert report["reconciled"] is False


async def test_list_that_is_cut_off_is_a_loss(place: Place) -> None:
    """What stands on the rest of it is not known."""
    await (await place.world.client()).issue("www.example.com")
    place.back_up()
    place.ledger.is_whole = False
    report = await (await place.lose_and_restore()).run()
    assert report is not None
    assert report["reconciled"] is False
