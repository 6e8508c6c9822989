"""Rotation of account keys by age, what follows it, and what becomes of what fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_rotation import (
    FIRST_RETIREMENT_RETRY,
    FIRST_RETRY,
    LAST_RETRY,
    LOOK_AGAIN,
    PAUSE,
    SPREAD,
    AccountKeyView,
    KeyPlan,
    KeyRotation,
)
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_keys import UpstreamKeys
from broker.keys.rings import KeyRings
from broker.protocol.problems import Problem, ProblemType
from broker.storage.sqlite import SqliteStore
from tests.fakes.account_at_ca import FakeAccountsAtCas
from tests.fakes.clock import START, FakeClock
from tests.fakes.file_places import FilePlaces
from tests.fakes.interruptions import Cut, Cutting, Traffic
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing

ACTOR = Actor("operator:anna", "ticket 7")
QUARTER = timedelta(days=90)
NOT_OFFERED = Problem(ProblemType.SERVER_INTERNAL, "this CA changes no keys")


class Cas:
    """Several CAs, each of which knows one account; implements ``AccountsAtCas``."""

    def __init__(self, ring: FakeTransitRing) -> None:
        self.ring = ring
        self.each: dict[tuple[str, str], FakeAccountsAtCas] = {}

    def add(self, upstream: str, community: str, url: str, key_id: str) -> None:
        self.each[upstream, community] = FakeAccountsAtCas(self.ring, url, key_id)

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        return self.each[upstream, community].held(upstream, community)

    def set_certain(self, upstream: str, community: str, *, is_certain: bool) -> None:
        self.each[upstream, community].is_certain = is_certain

    def doubt(self, upstream: str, community: str) -> None:
        self.each[upstream, community].doubt(upstream, community)

    def verify_usable(self, upstream: str, community: str) -> None:
        self.each[upstream, community].verify_usable(upstream, community)

    async def change_key(self, account: UpstreamAccountRecord, new_key_id: str) -> None:
        await self.each[account.upstream, account.community].change_key(account, new_key_id)

    async def account_of(self, account: UpstreamAccountRecord, key_id: str) -> str | None:
        return await self.each[account.upstream, account.community].account_of(account, key_id)

    async def thumbprint(self, upstream: str, key_id: str) -> str:
        return f"thumbprint of {key_id}"


class Office:
    """Accounts with keys in Vault, and the processes that rotate them, one after another."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.ring = FakeTransitRing(uses=store)
        self.cas = Cas(self.ring)
        self.clock = FakeClock()
        self.plans: dict[str, KeyPlan] = {}
        self.keys, self.rotation = self.process()

    def process(self, traffic: Traffic | None = None) -> tuple[UpstreamKeys, KeyRotation]:
        """Return what a process that starts now does it with."""
        traffic = traffic or Traffic()
        store = traffic.watch(self.store, "store", counts=True)
        ring = traffic.watch(self.ring, "ring", counts=True)
        cas = traffic.watch(self.cas, "cas", counts=True)
        keys = UpstreamKeys(
            store, self.store, ring=ring, places=self.ring, accounts=cas, clock=self.clock
        )
        return keys, KeyRotation(keys, self.store, stores=ring, plans=self.plans, clock=self.clock)

    async def register(
        self, upstream: str, community: str = "default", *, every: timedelta | None = QUARTER
    ) -> str:
        """Make an account and return the id of its key."""
        key_id = await self.ring.next_account_key_id(upstream, community, None)
        await self.ring.create_key(key_id, "ec-p256")
        url = f"https://{upstream}.example/{community}"
        self.cas.add(upstream, community, url, key_id)
        self.plans[upstream] = KeyPlan(kind="ec-p256", rotate_every=every)
        record = UpstreamAccountRecord(
            upstream=upstream,
            community=community,
            directory_url=f"https://{upstream}.example/directory",
            account_url=url,
            key_id=key_id,
            thumbprint="old",
            registered_at=self.clock.now(),
        )
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
        await self.store.save_upstream_account(record, event)
        return key_id

    async def view(self, upstream: str, community: str = "default") -> AccountKeyView:
        """Return how the key of an account is."""
        found = await self.rotation.overview()
        (one,) = (
            each for each in found if (each.upstream, each.community) == (upstream, community)
        )
        return one

    async def versions(self) -> Mapping[str, int]:
        """Return the version that each account has."""
        found = await self.rotation.overview()
        return {
            f"{one.upstream}@{one.community}": int(one.key_id.rpartition("#")[2]) for one in found
        }


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """No account yet."""
    store = await SqliteStore.open(tmp_path / "store.db")
    yield Office(store)
    await store.close()


# ------------------------------------------------------------------------------------ on command


async def test_rotated_account_has_the_next_version_alone(office: Office) -> None:
    """The version before signs no more, for anybody."""
    old = await office.register("ca")
    rotated = await office.rotation.rotate("ca", "default", actor=ACTOR)
    assert rotated.record.key_id == old.replace("#1", "#2")
    assert rotated.not_retired is None
    assert office.ring.signing(old) == [2]
    with pytest.raises(Broken, match="signs no more"):
        await office.ring.sign(old, b"data")


async def test_retirement_that_fails_is_told_and_made_up_for(office: Office) -> None:
    """The account has its new key by then: the command has succeeded."""
    old = await office.register("ca")
    retire, office.ring.retire_before = office.ring.retire_before, _away  # type: ignore[method-assign]
    rotated = await office.rotation.rotate("ca", "default", actor=ACTOR)
    assert rotated.not_retired == "Vault went away"
    assert (await office.view("ca")).not_retired == "Vault went away"
    await office.rotation.retire_due()
    assert office.ring.signing(old) == [1, 2]
    office.ring.retire_before = retire  # type: ignore[method-assign]
    office.clock.advance(FIRST_RETIREMENT_RETRY)
    await office.rotation.retire_due()
    assert office.ring.signing(old) == [2]
    assert (await office.view("ca")).not_retired is None


async def _away(key_id: str) -> None:
    raise Unreachable("Vault went away")


async def test_retirement_that_was_cut_off_is_made_up_for_at_the_next_start(office: Office) -> None:
    """What still signs is asked of Vault, not remembered."""
    old = await office.register("ca")
    office.ring.retire_before, retire = _away, office.ring.retire_before  # type: ignore[method-assign]
    await office.rotation.rotate("ca", "default", actor=ACTOR)
    office.ring.retire_before = retire  # type: ignore[method-assign]
    _, office.rotation = office.process()
    await office.rotation.retire_due()
    assert office.ring.signing(old) == [2]


STEPS = (
    "store.begin_upstream_key_change",
    "ring.create_key",
    "cas.change_key",
    "cas.account_of",
    "store.end_upstream_key_change",
    "ring.retire_before",
)
"""What a rotation does to the world, in this order."""


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("step", STEPS)
async def test_rotation_that_is_cut_off_is_over_at_the_next_start(
    office: Office, step: str, side: Cut
) -> None:
    """One version is pinned, the CA knows it, and none before it signs."""
    key_id = await office.register("ca")
    traffic = Traffic()
    traffic.cutting = Cutting(step, 1, side)
    _, dying = office.process(traffic)
    rotating = asyncio.ensure_future(dying.rotate("ca", "default", actor=ACTOR))
    await traffic.is_cut.wait()
    rotating.cancel()
    await asyncio.gather(rotating, return_exceptions=True)

    keys, office.rotation = office.process()
    await keys.load()
    await keys.settle()
    await office.rotation.take_turn()
    assert keys.unsettled() == ()
    (pinned,) = (await office.versions()).values()
    assert office.cas.each["ca", "default"].key_id == key_id.replace("#1", f"#{pinned}")
    assert office.ring.signing(key_id)[0] == pinned
    rotated = await office.rotation.rotate("ca", "default", actor=ACTOR)
    latest = office.ring.signing(key_id)
    assert latest == [int(rotated.record.key_id.rpartition("#")[2])], "none lies unused"


async def test_retirement_is_looked_at_again_after_a_day(office: Office) -> None:
    """Somebody who may configure the key could have let an old version sign again."""
    old = await office.register("ca")
    await office.rotation.rotate("ca", "default", actor=ACTOR)
    office.ring.made["vault:transit/penstock.default.ca"].oldest_signing = 1
    await office.rotation.retire_due()
    assert office.ring.signing(old) == [1, 2]
    office.clock.advance(LOOK_AGAIN)
    await office.rotation.retire_due()
    assert office.ring.signing(old) == [2]


async def test_retirement_fails_ever_less_often(office: Office) -> None:
    """Without an identity that may, it is tried for ever and costs nearly nothing."""
    await office.register("ca")
    tried = []

    async def refuse(key_id: str) -> None:
        tried.append(office.clock.now())
        raise Broken("no identity that configures keys is configured")

    office.ring.retire_before = refuse  # type: ignore[method-assign]
    for _ in range(60):
        await office.rotation.retire_due()
        office.clock.advance(FIRST_RETIREMENT_RETRY)
    minutes = [round((at - START) / FIRST_RETIREMENT_RETRY) for at in tried]
    assert minutes == [0, 1, 3, 7, 15, 31]


async def test_nothing_is_retired_while_a_change_is_in_doubt(office: Office) -> None:
    """Nor is the schedule's turn taken."""
    await office.register("ca")
    await _leave_in_doubt(office)
    asked = []

    async def ask(key_id: str) -> None:
        asked.append(key_id)

    office.ring.retire_before = ask  # type: ignore[method-assign]
    await office.rotation.retire_due()
    office.clock.advance(QUARTER * 2)
    await office.rotation.rotate_due()
    assert asked == []
    assert await office.versions() == {"ca@default": 1}
    office.cas.each["ca", "default"].is_away = False
    await office.keys.settle()
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 2}


async def test_account_of_another_community_is_rotated_all_the_same(office: Office) -> None:
    """What is in doubt of one may be so for long."""
    await office.register("ca")
    await office.register("ca", "lab")
    await _leave_in_doubt(office)
    office.clock.advance(QUARTER * 2)
    await office.rotation.retire_due()
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 1, "ca@lab": 2}


async def _leave_in_doubt(office: Office) -> None:
    office.cas.each["ca", "default"].is_away = True
    with pytest.raises(Unreachable):
        await office.rotation.rotate("ca", "default", actor=ACTOR)


async def test_upstream_that_is_not_configured_is_told(office: Office) -> None:
    """Its account may still be on record."""
    await office.register("ca")
    del office.plans["ca"]
    with pytest.raises(Broken, match="not configured as a CA with accounts"):
        await office.rotation.rotate("ca", "default", actor=ACTOR)
    await office.rotation.retire_due()
    assert (await office.view("ca")).due_at is None


# ----------------------------------------------------------------------------------- by schedule


async def test_key_is_rotated_before_it_grows_older_than_was_said(office: Office) -> None:
    """Once, by the schedule itself, and counted anew from then."""
    await office.register("ca")
    due = (await office.view("ca")).due_at
    assert due is not None
    assert START + QUARTER * (1 - SPREAD) <= due <= START + QUARTER
    office.clock.advance(due - START - timedelta(seconds=1))
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 1}
    office.clock.advance(timedelta(seconds=1))
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 2}
    assert (await office.view("ca")).since == due
    office.clock.advance(PAUSE)
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 2}
    events = await office.store.read_events(after=0, limit=10, order_id=None)
    assert events[-1][1].kind is EventKind.UPSTREAM_KEY_CHANGED
    assert events[-1][1].actor == Actor("system", "the key has reached its age")


async def test_without_an_age_nothing_is_rotated_by_itself(office: Office) -> None:
    """It is for commands then."""
    await office.register("ca", every=None)
    office.clock.advance(QUARTER * 100)
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 1}
    assert (await office.view("ca")).due_at is None


async def test_accounts_of_one_day_are_not_rotated_in_one_hour(office: Office) -> None:
    """Ten accounts, ten moments, the same ones whenever they are asked for."""
    for number in range(10):
        await office.register("ca", f"c{number}")
    dues = {one.due_at for one in await office.rotation.overview()}
    _, again = office.process()
    assert {one.due_at for one in await again.overview()} == dues
    assert len(dues) == 10
    assert max(d for d in dues if d) - min(d for d in dues if d) > timedelta(days=1)


async def test_one_is_rotated_at_a_time(office: Office) -> None:
    """The most overdue first, and a pause before the next."""
    for name in ("one", "two", "three"):
        await office.register(name)
    office.clock.advance(QUARTER)
    first = min(await office.rotation.overview(), key=lambda one: str(one.due_at))
    await office.rotation.rotate_due()
    assert (await office.view(first.upstream)).key_id.endswith("#2")
    await office.rotation.rotate_due()
    assert sorted((await office.versions()).values()) == [1, 1, 2]
    office.clock.advance(PAUSE)
    await office.rotation.rotate_due()
    assert sorted((await office.versions()).values()) == [1, 2, 2]


async def test_one_that_fails_is_tried_ever_less_often(office: Office) -> None:
    """A CA that changes no keys is asked daily, in the end, and no version is made for it."""
    key_id = await office.register("ca")
    office.cas.each["ca", "default"].refusal = NOT_OFFERED
    office.clock.advance(QUARTER)
    for number in range(1, 10):
        await office.rotation.rotate_due()
        failure = (await office.view("ca")).failure
        assert failure is not None
        assert (failure.failures, failure.failed_at) == (number, office.clock.now())
        assert failure.reason == "this CA changes no keys"
        due = (await office.view("ca")).due_at
        assert due is not None
        pause = due - office.clock.now()
        assert pause == min(FIRST_RETRY * 2 ** (number - 1), LAST_RETRY)
        office.clock.advance(pause - timedelta(seconds=1))
        await office.rotation.rotate_due()
        assert (await office.view("ca")).failure == failure
        office.clock.advance(timedelta(seconds=1))
    assert office.ring.signing(key_id) == [1, 2]
    office.cas.each["ca", "default"].refusal = None
    await office.rotation.rotate_due()
    assert (await office.view("ca")).failure is None
    assert office.ring.signing(key_id) == [2]


async def test_failure_outlives_the_process(office: Office) -> None:
    """A restart is no reason to try again, and no reason to forget."""
    await office.register("ca")
    office.cas.each["ca", "default"].refusal = NOT_OFFERED
    office.clock.advance(QUARTER)
    await office.rotation.rotate_due()
    _, office.rotation = office.process()
    office.cas.each["ca", "default"].refusal = None
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 1}
    office.clock.advance(FIRST_RETRY)
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 2}


async def test_command_that_fails_keeps_the_schedule_away(office: Office) -> None:
    """It was tried just now; a further command is always tried."""
    await office.register("ca")
    office.clock.advance(QUARTER)
    office.cas.each["ca", "default"].refusal = NOT_OFFERED
    with pytest.raises(Refused):
        await office.rotation.rotate("ca", "default", actor=ACTOR)
    office.cas.each["ca", "default"].refusal = None
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 1}
    await office.rotation.rotate("ca", "default", actor=ACTOR)
    assert await office.versions() == {"ca@default": 2}


async def test_one_ca_that_fails_does_not_hold_up_the_others(office: Office) -> None:
    """It waits for its next attempt while they have their turns."""
    for name in ("one", "two"):
        await office.register(name)
    await office.register("ca")
    office.cas.each["ca", "default"].is_away = True
    office.clock.advance(QUARTER)
    for _ in range(3):
        await office.rotation.rotate_due()
        office.clock.advance(PAUSE)
    assert await office.versions() == {"ca@default": 1, "one@default": 2, "two@default": 2}


async def test_sealed_vault_is_tried_again(office: Office) -> None:
    """Nothing was begun; the account went on resting on Vault as before."""
    await office.register("ca")
    office.clock.advance(QUARTER)
    office.ring.is_sealed = True
    await office.rotation.rotate_due()
    failure = (await office.view("ca")).failure
    assert failure is not None
    assert failure.reason == "Vault is sealed"
    assert office.keys.unsettled() == ()
    office.ring.is_sealed = False
    office.clock.advance(FIRST_RETRY)
    await office.rotation.rotate_due()
    assert await office.versions() == {"ca@default": 2}


async def test_turn_that_is_under_way_is_not_taken_twice(office: Office) -> None:
    """At the start and by schedule at once, a key is rotated once."""
    await office.register("ca")
    office.clock.advance(QUARTER)
    await asyncio.gather(office.rotation.take_turn(), office.rotation.take_turn())
    assert await office.versions() == {"ca@default": 2}
    assert [one.key_id[-2:] for one in office.rotation.known] == ["#2"]


async def test_keys_in_files_are_rotated_as_well(tmp_path: Path) -> None:
    """There is nothing to retire: the old file stays, and its key is the account's no more."""
    store = await SqliteStore.open(tmp_path / "files.db")
    signer, clock = FakeSigner(), FakeClock()
    await signer.create_key("account-ca@default", "ec-p256")
    record = UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url="https://ca.example/directory",
        account_url="https://ca.example/acct/1",
        key_id="account-ca@default",
        thumbprint="old",
        registered_at=START,
    )
    await store.save_upstream_account(
        record, Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    )
    ca = FakeAccountsAtCas(signer, record.account_url, record.key_id)
    rings = KeyRings(signer)
    keys = UpstreamKeys(store, store, ring=rings, places=FilePlaces(), accounts=ca, clock=clock)
    plans = {"ca": KeyPlan(kind="ec-p256", rotate_every=QUARTER)}
    rotation = KeyRotation(keys, store, stores=rings, plans=plans, clock=clock)
    await rotation.take_turn()
    assert ca.changes == 0
    clock.advance(QUARTER)
    await rotation.take_turn()
    assert ca.changes == 1
    assert set(signer.keys) == {"account-ca@default", ca.key_id}
    assert [(one.key_id, one.not_retired) for one in rotation.known] == [(ca.key_id, None)]
    await store.close()
