"""A change of our account key, cut off at every step, refused, doubted, and carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_ports import KeyPlaces
from broker.issuance.ports import KeyRing
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_keys import UpstreamKeys
from broker.protocol.problems import Problem, ProblemType
from broker.storage.sqlite import SqliteStore
from tests.fakes.account_at_ca import FakeAccountsAtCas
from tests.fakes.clock import START, FakeClock
from tests.fakes.file_places import FilePlaces
from tests.fakes.interruptions import Cut, Cutting, Traffic
from tests.fakes.transit_ring import FakeTransitRing, Versions

ACTOR = Actor("operator:anna", "ticket 7")
URL = "https://ca.example/acct/1"
FILE = "account-ca@default"
VERSION = "vault:transit/penstock.default.ca#1"
CONFLICT = Problem(ProblemType.MALFORMED, "another account has this key")


class Office:
    """One account at one CA, and the processes that change its key, one after another."""

    def __init__(self, store: SqliteStore, *, is_in_vault: bool) -> None:
        self.store = store
        self.transit = FakeTransitRing(uses=store)
        self.signer = self.transit.signer
        self.is_in_vault = is_in_vault
        self.old = VERSION if is_in_vault else FILE
        self.ring: KeyRing = self.transit if is_in_vault else self.signer
        self.places: KeyPlaces = self.transit if is_in_vault else FilePlaces()
        self.ca = FakeAccountsAtCas(self.ring, URL, self.old)
        self.traffic = Traffic()
        self.keys = self.process()

    def process(self) -> UpstreamKeys:
        """Return what a process that starts now does it with."""
        return UpstreamKeys(
            self.traffic.watch(self.store, "store", counts=True),
            self.store,
            ring=self.traffic.watch(self.ring, "ring", counts=True),
            places=self.traffic.watch(self.places, "places", counts=True),
            accounts=self.traffic.watch(self.ca, "ca", counts=True),
            clock=FakeClock(),
        )

    async def register(self) -> None:
        """Make the account."""
        await self.ring.create_key(self.old, "ec-p256")
        record = UpstreamAccountRecord(
            upstream="ca",
            community="default",
            directory_url="https://ca.example/directory",
            account_url=URL,
            key_id=self.old,
            thumbprint="old",
            registered_at=START,
        )
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
        await self.store.save_upstream_account(record, event)

    async def change(self) -> UpstreamAccountRecord:
        """Change the key."""
        return await self.keys.change("ca", "default", kind="ec-p256", actor=ACTOR)

    async def record(self) -> UpstreamAccountRecord:
        """Return the account as the store has it."""
        found = await self.store.find_upstream_account("ca", "default")
        assert found is not None
        return found

    async def kinds(self) -> list[EventKind]:
        """Return what happened, oldest first."""
        events = await self.store.read_events(after=0, limit=100, order_id=None)
        return [event.kind for _, event in events][1:]

    async def is_sound(self) -> bool:
        """Say whether the key that is on record is the one that the CA knows, and is at hand."""
        record = await self.record()
        return (
            record.key_id == self.ca.key_id
            and await self._signs(record.key_id)
            and record.key_id in self.signer.keys
            and self.ca.is_certain
            and list(await self.store.open_upstream_key_changes()) == []
        )

    async def _signs(self, key_id: str) -> bool:
        return bool(await self.ring.sign(key_id, b"data"))

    def unused(self) -> list[str]:
        """Return the keys that were made and are not the account's."""
        return [one for one in self.signer.keys if one not in {self.old, self.ca.key_id}]


@pytest.fixture(params=[False, True], ids=["file", "vault"])
async def office(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Office]:
    """An account that is registered, with its key in a file or in Vault."""
    store = await SqliteStore.open(tmp_path / "store.db")
    made = Office(store, is_in_vault=request.param)
    await made.register()
    yield made
    await store.close()


async def test_account_has_another_key_afterwards(office: Office) -> None:
    """CA and store agree, the old key stays in its place, and the events name who asked."""
    changed = await office.change()
    assert changed == await office.record()
    assert changed.key_id == office.ca.key_id != office.old
    assert changed.account_url == URL
    assert changed.thumbprint == f"thumbprint of {changed.key_id}"
    assert office.old in office.signer.keys
    assert await office.is_sound()
    assert await office.kinds() == [
        EventKind.UPSTREAM_KEY_CHANGE_BEGUN,
        EventKind.UPSTREAM_KEY_CHANGED,
    ]
    events = await office.store.read_events(after=0, limit=100, order_id=None)
    assert events[-1][1].actor == ACTOR


async def test_key_can_be_changed_again(office: Office) -> None:
    """Each time to a key of another name."""
    names = {office.old, *[(await office.change()).key_id for _ in range(3)]}
    assert len(names) == 4
    assert await office.is_sound()


STEPS = (
    "places.next_account_key_id",
    "places.next_account_key_id",
    "store.begin_upstream_key_change",
    "ring.has_key",
    "ring.create_key",
    "ca.change_key",
    "ring.has_key",
    "ca.account_of",
    "ca.thumbprint",
    "store.end_upstream_key_change",
)
"""What a change does, in this order."""


async def test_steps_are_these(office: Office) -> None:
    """The list that the next test walks is the whole list."""
    await office.change()
    assert tuple(office.traffic.steps) == STEPS


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("place", range(len(STEPS)), ids=lambda place: f"{place}-{STEPS[place]}")
async def test_change_that_is_cut_off_ends_at_the_next_start(
    office: Office, place: int, side: Cut
) -> None:
    """Killed before or after any step, the account works, with the one key or with the other."""
    step = STEPS[place]
    office.traffic.cutting = Cutting(step, STEPS[: place + 1].count(step), side)
    dying = asyncio.ensure_future(office.change())
    await office.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    office.traffic.revive()
    office.ca.is_certain = True
    office.keys = office.process()
    await office.keys.load()
    is_open = bool(office.keys.unsettled())
    assert office.ca.is_certain != is_open, "until it is settled nobody uses the account"
    await office.keys.settle()
    assert await office.is_sound()
    assert office.keys.unsettled() == ()
    if not is_open and office.ca.changes == 0:
        assert (await office.record()).key_id == office.old
    assert len(office.unused()) <= int(office.is_in_vault)
    await office.change()
    assert await office.is_sound()


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("happened", [True, False], ids=["changed", "unchanged"])
@pytest.mark.parametrize(
    "step",
    ["ring.has_key", "ca.account_of", "ring.destroy_key", "store.end_upstream_key_change"],
)
async def test_settling_that_is_cut_off_is_done_again(
    office: Office, step: str, side: Cut, happened: bool
) -> None:
    """The second start mends what the first one left."""
    office.traffic.cutting = Cutting("ca.change_key", 1, Cut.AFTER if happened else Cut.BEFORE)
    dying = asyncio.ensure_future(office.change())
    await office.traffic.is_cut.wait()
    dying.cancel()
    office.traffic.revive()
    office.keys = office.process()
    await office.keys.load()
    office.traffic.cutting = Cutting(step, 1, side)
    settling = asyncio.ensure_future(office.keys.settle())
    cut = asyncio.ensure_future(office.traffic.is_cut.wait())
    await asyncio.wait((settling, cut), return_when=asyncio.FIRST_COMPLETED)
    settling.cancel()
    cut.cancel()
    await asyncio.gather(dying, settling, cut, return_exceptions=True)

    office.traffic.revive()
    office.ca.is_certain = True
    office.keys = office.process()
    await office.keys.load()
    await office.keys.settle()
    assert await office.is_sound()
    assert (office.ca.key_id != office.old) == happened
    assert ((await office.record()).key_id != office.old) == happened


async def test_refusal_leaves_the_account_as_it_was(office: Office) -> None:
    """The new key's file is destroyed, in Vault it stays unused; the CA's words come back."""
    office.ca.refusal = CONFLICT
    with pytest.raises(Refused, match="another account has this key"):
        await office.change()
    assert (await office.record()).key_id == office.old
    assert len(office.unused()) == int(office.is_in_vault)
    assert await office.is_sound()
    assert (await office.kinds())[-1] is EventKind.UPSTREAM_KEY_CHANGE_UNDONE


async def test_lost_answer_is_asked_for(office: Office) -> None:
    """The CA made the change and nobody heard: it is a success."""
    office.ca.loses_answers = True
    changed = await office.change()
    assert changed.key_id == office.ca.key_id != office.old
    assert await office.is_sound()


async def test_outage_in_the_middle_keeps_the_account_at_rest(office: Office) -> None:
    """Nothing is signed until the CA is back and has said which key it knows."""
    change = office.ca.change_key

    async def vanish(record: UpstreamAccountRecord, new_key_id: str) -> None:
        await change(record, new_key_id)
        office.ca.is_away = True
        raise Unreachable("the answer was lost")

    office.ca.change_key = vanish  # type: ignore[method-assign, assignment]
    with pytest.raises(Unreachable, match="the CA is away"):
        await office.change()
    assert not office.ca.is_certain
    await office.keys.settle()
    assert not office.ca.is_certain
    office.ca.is_away = False
    await office.keys.settle()
    assert await office.is_sound()
    assert (await office.record()).key_id != office.old


async def test_unsettled_change_is_settled_before_the_next(office: Office) -> None:
    """A person asks again instead of waiting: the first change ends, the second is made."""
    office.ca.is_away = True
    with pytest.raises(Unreachable):
        await office.change()
    office.ca.is_away = False
    await office.change()
    assert await office.is_sound()
    assert office.ca.changes == 1


async def test_success_that_is_none_is_not_believed(office: Office) -> None:
    """The CA says yes and has done nothing: pinning the new key would lose the account."""

    async def say_yes(record: UpstreamAccountRecord, new_key_id: str) -> None:
        return

    office.ca.change_key = say_yes  # type: ignore[method-assign, assignment]
    with pytest.raises(Broken, match="and knows it by the old one"):
        await office.change()
    assert (await office.record()).key_id == office.old
    assert await office.is_sound()


async def test_key_of_another_account_is_never_taken(office: Office) -> None:
    """A CA that knows the new key by another account has not changed ours."""

    async def lie(record: UpstreamAccountRecord, new_key_id: str) -> None:
        office.ca.others[new_key_id] = "https://ca.example/acct/2"
        raise Unreachable("the answer was lost")

    office.ca.change_key = lie  # type: ignore[method-assign, assignment]
    with pytest.raises(Unreachable):
        await office.change()
    assert (await office.record()).key_id == office.old
    assert await office.is_sound()


async def test_account_that_nobody_knows_needs_a_person(office: Office) -> None:
    """Neither key is known: nothing is decided, and the sentence says what to do."""
    office.ca.loses_answers = True
    office.ca.key_id = None
    with pytest.raises(Broken, match="known to its CA by neither key"):
        await office.change()
    assert not office.ca.is_certain
    assert len(await office.store.open_upstream_key_changes()) == 1


async def test_change_of_an_account_that_was_replaced_is_over(office: Office) -> None:
    """Whoever recovered it has given it a key; the change that was in doubt says no more."""
    office.ca.loses_answers = True
    office.ca.key_id = None
    with pytest.raises(Broken, match="known to its CA by neither key"):
        await office.change()
    new = replace(await office.record(), account_url="https://ca.example/acct/2", key_id="other")
    await office.store.save_upstream_account(
        new, Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    )
    await office.keys.settle()
    assert office.keys.unsettled() == ()
    assert office.ca.is_certain
    assert await office.record() == new


async def test_account_that_is_lost_gets_no_key(office: Office) -> None:
    """Nothing is begun that could not end."""
    office.ca.loss = "the CA knows no such account"
    with pytest.raises(Broken, match="knows no such account"):
        await office.change()
    assert await office.kinds() == []
    office.ca.loss = None
    await office.change()
    assert await office.is_sound()


async def test_without_an_account_there_is_nothing_to_change(office: Office) -> None:
    """The sentence says how to get one."""
    with pytest.raises(Broken, match="has no account for community 'lab'; register one"):
        await office.keys.change("ca", "lab", kind="ec-p256", actor=ACTOR)


async def test_account_that_changed_meanwhile_is_a_conflict(office: Office) -> None:
    """The journal keeps a change of the very key that is on record."""
    record = await office.record()
    await office.change()
    stale = office.keys._new_change(record, "another")
    event = Event(kind=EventKind.UPSTREAM_KEY_CHANGE_BEGUN, at=START)
    with pytest.raises(Conflict, match=f"has another key than {office.old}"):
        await office.store.begin_upstream_key_change(stale, event)


class TestInVault:
    """What is otherwise where keys are versions that nobody may destroy."""

    @pytest.fixture
    async def office(self, tmp_path: Path) -> AsyncIterator[Office]:
        """An account whose key lies in Vault."""
        store = await SqliteStore.open(tmp_path / "store.db")
        made = Office(store, is_in_vault=True)
        await made.register()
        yield made
        await store.close()

    async def test_version_that_was_not_used_is_taken_next(self, office: Office) -> None:
        """A CA that never agrees does not fill Vault with versions."""
        office.ca.refusal = CONFLICT
        for _ in range(3):
            with pytest.raises(Refused):
                await office.change()
        assert len(office.unused()) == 1
        office.ca.refusal = None
        assert (await office.change()).key_id.endswith("#2")
        assert await office.is_sound()

    async def test_version_of_somebody_else_changes_nothing(self, office: Office) -> None:
        """The pinned version signs on; the next change takes what lies there unused."""
        await office.transit.rotate(office.old)
        await office.transit.rotate(office.old)
        assert await office.is_sound()
        assert (await office.change()).key_id.endswith("#3")
        assert await office.is_sound()

    async def test_version_that_somebody_makes_meanwhile_is_a_conflict(
        self, office: Office
    ) -> None:
        """Between the look and the wish; the account keeps its key, and rests no longer."""
        create = office.transit.create_key

        async def too_late(key_id: str, kind: str) -> bytes:
            await office.transit.rotate(office.old)
            return await create(key_id, kind)

        office.transit.create_key = too_late  # type: ignore[method-assign]
        with pytest.raises(Conflict):
            await office.change()
        assert (await office.record()).key_id == office.old
        assert await office.is_sound()

    async def test_version_of_another_account_is_not_tried_again(self, office: Office) -> None:
        """Two brokers that share a key by mistake would meet the same refusal for ever."""
        taken = VERSION.replace("#1", "#2")
        office.ca.others[taken] = "https://ca.example/acct/2"
        office.ca.refusal = CONFLICT
        with pytest.raises(Refused):
            await office.change()
        office.ca.refusal = None
        assert (await office.change()).key_id.endswith("#3")
        assert await office.is_sound()

    async def test_without_an_identity_that_makes_keys_nothing_is_begun(
        self, office: Office
    ) -> None:
        """No event, no entry in the journal; the reason alone."""
        office.transit.may_rotate = False
        with pytest.raises(Broken, match="no identity that makes keys is configured"):
            await office.change()
        assert await office.kinds() == []
        assert await office.is_sound()

    async def test_version_that_somebody_made_for_us_needs_no_such_identity(
        self, office: Office
    ) -> None:
        """Where others rotate keys in Vault, the account follows them on command."""
        await office.transit.rotate(office.old)
        office.transit.may_rotate = False
        assert (await office.change()).key_id.endswith("#2")
        assert await office.is_sound()

    async def test_login_that_is_refused_leaves_the_account_as_it_was(self, office: Office) -> None:
        """It is known by then only; the change is undone."""
        office.transit.rotate_refusal = "permission denied"
        with pytest.raises(Unreachable, match="permission denied"):
            await office.change()
        assert (await office.record()).key_id == office.old
        assert office.unused() == []
        assert await office.is_sound()

    @pytest.mark.parametrize("happened", [True, False], ids=["changed", "unchanged"])
    async def test_vault_that_is_sealed_in_the_middle_is_waited_for(
        self, office: Office, happened: bool
    ) -> None:
        """The account rests, as it could sign nothing anyway, and is sound once Vault is back."""
        change = office.ca.change_key

        async def seal(record: UpstreamAccountRecord, new_key_id: str) -> None:
            if happened:
                await change(record, new_key_id)
            office.transit.is_sealed = True
            raise Unreachable("Vault is sealed")

        office.ca.change_key = seal  # type: ignore[method-assign, assignment]
        with pytest.raises(Unreachable, match="Vault is sealed"):
            await office.change()
        await office.keys.settle()
        assert not office.ca.is_certain
        office.transit.is_sealed = False
        await office.keys.settle()
        assert await office.is_sound()
        assert (office.ca.key_id != office.old) == happened

    async def test_sealed_vault_is_found_before_anything_is_begun(self, office: Office) -> None:
        """Nothing rests for it."""
        office.transit.is_sealed = True
        with pytest.raises(Unreachable, match="Vault is sealed"):
            await office.change()
        office.transit.is_sealed = False
        assert await office.kinds() == []
        assert await office.is_sound()

    async def test_key_may_be_named(self, office: Office) -> None:
        """As when it moves to a place that configuration does not name yet."""
        named = "vault:elsewhere/penstock.default.ca#1"
        changed = await office.keys.change(
            "ca", "default", kind="ec-p256", actor=ACTOR, new_key_id=named
        )
        assert changed.key_id == named
        assert await office.is_sound()

    async def test_same_key_may_come_to_another_id(self, office: Office) -> None:
        """The CA is asked which account the key has, and for nothing else."""
        named = "vault:elsewhere/penstock.default.ca#1"

        async def bring(old_key_id: str, new_key_id: str) -> None:
            office.signer.keys[new_key_id] = office.signer.keys[old_key_id]
            office.transit.made["vault:elsewhere/penstock.default.ca"] = Versions("ec-p256", 1)
            office.ca.key_id = new_key_id
            office.ca.thumbprints[new_key_id] = (await office.record()).thumbprint

        changed = await office.keys.change(
            "ca", "default", kind="ec-p256", actor=ACTOR, new_key_id=named, make=bring
        )
        assert changed.key_id == named
        assert office.ca.changes == 0
        assert await office.is_sound()
        assert (await office.kinds())[-1] is EventKind.UPSTREAM_KEY_IMPORTED


async def test_change_that_the_store_has_ended_is_over(office: Office) -> None:
    """As a recovery does, which knows the account's key: others may use it at once."""
    await _leave_open(office)
    office.keys.has_ended("ca", "lab")
    assert office.keys.unsettled() != ()
    office.keys.has_ended("ca", "default")
    assert office.keys.unsettled() == ()
    assert office.ca.is_certain


async def test_account_that_nobody_knows_is_looked_at(office: Office) -> None:
    """It may be lost, which somebody else finds out and tells by name."""
    await _leave_open(office)
    office.ca.is_away = False
    office.ca.key_id = None
    await office.keys.settle()
    assert office.ca.is_doubted


async def _leave_open(office: Office) -> None:
    """Begin a change that the CA goes away in."""
    office.ca.is_away = True
    with pytest.raises(Unreachable):
        await office.change()
    assert office.keys.unsettled() != ()
    assert not office.ca.is_certain
