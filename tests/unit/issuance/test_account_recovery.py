"""A lost account is recovered: by its key, or by another one, cut off anywhere and run again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.issuance.account_health import AccountHealth
from broker.issuance.account_ports import LossCause, Standing
from broker.issuance.account_recovery import AccountRecoveries, Recovered
from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.standstill import Standstill
from broker.issuance.upstream_key_ports import KeyChangeStatus, UpstreamKeyChange
from broker.issuance.upstream_keys import UpstreamKeys
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.account_at_ca import FakeAccountsAtCas
from tests.fakes.accounts_asked import (
    KEY,
    URL,
    FakeAccountsAsked,
    FakeRegistrar,
    account_record,
)
from tests.fakes.interruptions import Cut, Cutting, Traffic
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing
from tests.fakes.world import World, make_csr

ACTOR = Actor("operator:anna", "ticket 7")
NEW_KEY = "vault:transit/penstock.default.ca#4"


class Office:
    """A world whose upstream has an account, and the processes that recover it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked = FakeAccountsAsked()
        self.registrar = FakeRegistrar(self.asked)
        self.traffic = Traffic()
        self.standstill = Standstill(None)
        self.recoveries = self.process()

    def process(self) -> AccountRecoveries:
        """Return what a process that starts now recovers with."""
        world, signer = self.world, FakeSigner()
        store = self.traffic.watch(world.store, "store", counts=True)
        self.health = AccountHealth(
            asked=self.asked,
            records=world.store,
            successors=world.store,
            log_=world.store,
            clock=world.clock,
        )
        keys = self.keys = UpstreamKeys(
            world.store,
            world.store,
            ring=signer,
            places=FakeTransitRing(),
            accounts=FakeAccountsAtCas(signer, URL, KEY),
            clock=world.clock,
        )
        return AccountRecoveries(
            health=self.health,
            asked=self.asked,
            registrar=self.traffic.watch(self.registrar, "registrar", counts=True),
            former=store,
            records=world.store,
            works=world.store,
            keys=keys,
            standstill=self.standstill,
            dispatcher=world.dispatcher,
            clock=world.clock,
        )

    async def recover(self, *, is_dry_run: bool = False) -> Recovered:
        """Recover the account."""
        return await self.recoveries.recover(
            "ca", "default", agree_to_terms=True, is_dry_run=is_dry_run, actor=ACTOR
        )

    async def account(self) -> UpstreamAccountRecord:
        """Return our account."""
        found = await self.world.store.find_upstream_account("ca", "default")
        assert found is not None
        return found

    async def former(self) -> list[str]:
        """Return the URLs of former accounts."""
        return [
            one.account_url for one in await self.world.store.former_upstream_accounts("ca", None)
        ]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """An account that is all right, in a world without orders."""
    async with World(tmp_path) as world:
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=world.clock.now())
        record = account_record(registered_at=world.clock.now())
        await world.store.save_upstream_account(record, event)
        yield Office(world)


def lose(office: Office) -> None:
    """Empty the Vault."""
    office.asked.keys.clear()


async def test_sound_account_is_left_alone(office: Office) -> None:
    """Nothing is lost, so nothing is done."""
    with pytest.raises(Broken, match="is not lost"):
        await office.recover()
    assert (await office.account()).account_url == URL


async def test_dry_run_changes_nothing(office: Office) -> None:
    """It says what is wrong and what would be done."""
    lose(office)
    done = await office.recover(is_dry_run=True)
    assert (done.loss.cause, done.is_new, done.account) == (LossCause.KEY_GONE, True, None)
    assert (await office.account()).account_url == URL
    assert office.registrar.made == []


async def test_new_account_takes_the_place_of_the_old_one(office: Office) -> None:
    """With a key of its own; the old account is remembered, and nothing is lost any more."""
    lose(office)
    done = await office.recover()
    account = await office.account()
    assert account == done.account
    assert (account.account_url, account.key_id) == ("https://ca.example/acct/2", NEW_KEY)
    assert await office.former() == [URL]
    assert office.health.losses() == []
    assert office.asked.lost["ca", "default"] is None
    kinds = [event.kind for event in await office.world.events()]
    assert kinds[-4:] == [
        EventKind.UPSTREAM_ACCOUNT_LOST,
        EventKind.UPSTREAM_RECOVERY_BEGUN,
        EventKind.UPSTREAM_ACCOUNT_REPLACED,
        EventKind.UPSTREAM_ACCOUNT_FOUND,
    ]


async def test_right_key_is_pinned(office: Office) -> None:
    """Where our store is what is old, the account stays, and no key is made."""
    office.asked.keys[NEW_KEY] = "fourth"
    office.asked.standings = {KEY: Standing.KEY_UNKNOWN, NEW_KEY: Standing.VALID}
    done = await office.recover()
    account = await office.account()
    assert not done.is_new
    assert (account.account_url, account.key_id, account.thumbprint) == (URL, NEW_KEY, "fourth")
    assert await office.former() == []
    assert office.registrar.made == []


async def test_archived_key_makes_no_new_account(office: Office) -> None:
    """Whoever raised the minimum version can lower it again."""
    office.asked.archived.add(KEY)
    with pytest.raises(Broken, match="lower them"):
        await office.recover()
    assert (await office.account()).account_url == URL
    done = await office.recover(is_dry_run=True)
    assert (done.loss.cause, done.is_new) == (LossCause.KEY_ARCHIVED, False)


async def test_what_cannot_be_asked_is_not_recovered(office: Office) -> None:
    """A sealed Vault loses nobody an account."""
    office.asked.failure = Unreachable("Vault is sealed")
    with pytest.raises(Unreachable):
        await office.recover()
    assert (await office.account()).account_url == URL


async def test_ca_that_makes_no_account_is_asked_again_with_the_same_key(office: Office) -> None:
    """Its terms are agreed to at the second attempt; one key is made for both."""
    lose(office)
    office.registrar.refusal = Refused(Problem(ProblemType.USER_ACTION_REQUIRED, "terms"))
    with pytest.raises(Refused):
        await office.recover()
    office.registrar.refusal = None
    done = await office.recover()
    assert done.account is not None
    assert office.registrar.made == [done.account.key_id]


async def test_restored_store_is_reconciled_before_orders_begin_anew(office: Office) -> None:
    """What was finalized after the backup must not be ordered twice."""

    class Held:
        restoration = object()

    office.standstill = Held()  # type: ignore[assignment]
    office.recoveries = office.process()
    lose(office)
    with pytest.raises(Broken, match="accept-loss ca"):
        await office.recover()
    assert office.registrar.made == []


STEPS = (
    "registrar.has_key",
    "store.begin_account_recovery",
    "registrar.make_key",
    "registrar.register_with",
    "store.replace_upstream_account",
)
"""What a recovery changes or asks for, in this order, from an account that is lost."""


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("step", STEPS[1:])
async def test_recovery_that_is_cut_off_is_run_again(office: Office, step: str, side: Cut) -> None:
    """Killed before or after any step, the CA has made one account, and it is ours."""
    lose(office)
    office.traffic.cutting = Cutting(step, 1, side)
    dying = asyncio.ensure_future(office.recover())
    await office.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    office.traffic.revive()
    office.recoveries = office.process()
    if (await office.account()).account_url == URL:
        await office.recover()
    account = await office.account()
    assert list(office.registrar.accounts) == [account.key_id]
    assert office.registrar.accounts[account.key_id] == account.account_url
    assert await office.former() == [URL]
    assert await office.world.store.open_account_recovery("ca", "default") is None
    with pytest.raises(Broken, match="is not lost"):
        await office.recover()


async def test_orders_on_their_way_go_on_under_the_new_account(office: Office) -> None:
    """What was opened under the old account is opened anew; each has one certificate."""
    world = office.world
    client = await world.client()
    opened = await client.ready("opened.example.com")
    intended = await client.ready("intended.example.com")
    world.ca.is_away = True
    orders = [await client.finalize(one) for one in (opened, intended)]
    assert [one.status for one in orders] == [OrderStatus.PROCESSING] * 2
    lose(office)
    done = await office.recover()
    assert set(done.orders.begun_anew) == {one.order_id for one in orders}
    world.ca.is_away = False
    for order in orders:
        assert (await world.finish(order)).status is OrderStatus.VALID
    names = sorted(order.request.identifiers[0].value for order in world.ca.issued)
    assert names == ["intended.example.com", "opened.example.com"]


async def test_order_that_was_finalized_waits_for_a_person(office: Office) -> None:
    """Its certificate may exist: it is not ordered a second time unless somebody says so."""
    world = office.world
    client = await world.client()
    ready = await client.ready("late.example.com")
    world.ca.lose_answer("finalize")
    world.ca.holds_back = True
    await client.finalize(ready)
    work = await world.store.work_of_order(ready.order_id)
    assert work is not None
    await set_account(office, work.work_id, URL)
    lose(office)
    done = await office.recover()
    assert done.orders.undecided == (ready.order_id,)
    again = await world.store.work_of_order(ready.order_id)
    assert again is not None
    assert (again.work_id, again.order_url) == (work.work_id, work.order_url)
    await office.recoveries.order_again(ready.order_id, ACTOR)
    fresh = await world.store.work_of_order(ready.order_id)
    assert fresh is not None
    assert fresh.work_id != work.work_id
    world.ca.holds_back = False
    assert (await world.finish(ready)).status is OrderStatus.VALID


async def test_order_that_waits_for_nothing_of_the_kind_is_not_ordered_again(
    office: Office,
) -> None:
    """An order of the present account is hurried instead."""
    client = await office.world.client()
    ready = await client.ready("www.example.com")
    with pytest.raises(Broken, match="order retry"):
        await office.recoveries.order_again(ready.order_id, ACTOR)


async def test_open_orders_tell_no_ca_what_they_replace(office: Office) -> None:
    """The predecessor was ordered by another account, of which the new one knows nothing."""
    world = office.world
    client = await world.client()
    first = await client.issue("www.example.com")
    assert first.certificate_id is not None
    certificate = await world.store.find_certificate(first.certificate_id)
    assert certificate is not None
    renewal = await client.ready("www.example.com", replaces=certificate.cert_id)
    assert renewal.replaces_upstream == "ca"
    lose(office)
    await office.recover()
    assert (await world.load(renewal)).replaces_upstream is None
    await client.finalize(renewal, make_csr("www.example.com"))
    assert (await world.finish(renewal)).status is OrderStatus.VALID
    assert world.ca.issued[-1].request.replaces is None


async def set_account(office: Office, work_id: str, url: str) -> None:
    """Say which account opened the work; the fake CA has none."""
    await office.world.store._database.write(
        lambda transaction: transaction.change(
            "UPDATE work SET account_url = ? WHERE work_id = ?", url, work_id
        )
    )


async def test_key_of_an_attempt_that_signs_no_more_is_not_taken_again(office: Office) -> None:
    """The account was found again and its key rotated meanwhile, which archived the other one."""
    lose(office)
    office.registrar.refusal = Refused(Problem(ProblemType.USER_ACTION_REQUIRED, "terms"))
    with pytest.raises(Refused):
        await office.recover()
    office.asked.archived.add(NEW_KEY)
    office.registrar.refusal = None
    done = await office.recover()
    assert done.account is not None
    assert done.account.key_id != NEW_KEY


async def test_order_that_an_earlier_version_opened_is_ordered_again_when_told_to(
    office: Office,
) -> None:
    """It did not keep which account that was, and there was but one."""
    world = office.world
    client = await world.client()
    ready = await client.ready("late.example.com")
    world.ca.lose_answer("finalize")
    world.ca.holds_back = True
    await client.finalize(ready)
    work = await world.store.work_of_order(ready.order_id)
    assert work is not None
    assert work.account_url is None
    lose(office)
    done = await office.recover()
    assert done.orders.undecided == (ready.order_id,)
    await office.recoveries.order_again(ready.order_id, ACTOR)
    world.ca.holds_back = False
    assert (await world.finish(ready)).status is OrderStatus.VALID


async def test_order_is_ordered_again_where_the_new_account_has_the_url_of_the_old_one(
    office: Office,
) -> None:
    """A CA that was set up anew counts its accounts from the beginning."""
    world = office.world
    client = await world.client()
    ready = await client.ready("late.example.com")
    world.ca.lose_answer("finalize")
    world.ca.holds_back = True
    await client.finalize(ready)
    work = await world.store.work_of_order(ready.order_id)
    assert work is not None
    await set_account(office, work.work_id, URL)
    lose(office)
    office.registrar.accounts[NEW_KEY] = URL
    office.asked.standings = {KEY: Standing.ACCOUNT_UNKNOWN}
    done = await office.recover()
    assert done.account is not None
    assert done.account.account_url == URL
    await office.recoveries.order_again(ready.order_id, ACTOR)
    fresh = await world.store.work_of_order(ready.order_id)
    assert fresh is not None
    assert fresh.work_id != work.work_id
    with pytest.raises(Broken, match="order retry"):
        await office.recoveries.order_again(ready.order_id, ACTOR)


async def test_recovery_leaves_changes_of_other_accounts_alone(office: Office) -> None:
    """One that began or ended while the recovery looked is neither forgotten nor made up."""
    keys = office.keys
    before = keys.unsettled()
    lose(office)
    read = office.world.store.open_upstream_key_changes
    other = UpstreamKeyChange(
        upstream="other",
        community="default",
        account_url="https://other.example/acct/1",
        old_key_id="old",
        new_key_id="new",
        status=KeyChangeStatus.BEGUN,
        begun_at=office.world.clock.now(),
    )

    async def read_while_another_ends() -> object:
        return [*await read(), other]

    office.world.store.open_upstream_key_changes = read_while_another_ends  # type: ignore[method-assign, assignment]
    await office.recover()
    assert keys.unsettled() == before
