"""Which way an account of ours is lost, told apart from a Vault or a CA that is merely away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.account_health import LOOK_AGAIN, LOOK_ALL, AccountHealth
from broker.issuance.account_ports import LossCause, Standing
from broker.issuance.errors import Unreachable
from broker.issuance.events import Event, EventKind
from broker.storage.sqlite import SqliteStore
from tests.fakes.accounts_asked import KEY, FakeAccountsAsked, account_record
from tests.fakes.clock import START, FakeClock

NAME = "vault:transit/penstock.default.ca"


class Ward:
    """One account, and whoever looks after it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.asked = FakeAccountsAsked()
        self.health = AccountHealth(
            asked=self.asked, records=store, successors=store, log_=store, clock=self.clock
        )

    async def look(self) -> LossCause | None:
        """Look, and return what is wrong."""
        loss = await self.health.look("ca", "default")
        return None if loss is None else loss.cause

    async def kinds(self) -> list[EventKind]:
        """Return what was told, oldest first."""
        events = await self.store.read_events(after=1, limit=100, order_id=None)
        return [event.kind for _, event in events]


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    """An account with the third version of its key, and nothing wrong."""
    store = await SqliteStore.open(tmp_path / "store.db")
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
    await store.save_upstream_account(account_record(), event)
    yield Ward(store)
    await store.close()


async def test_sound_account_is_not_lost(ward: Ward) -> None:
    """Key and CA agree with the record: nothing is told."""
    assert await ward.look() is None
    assert await ward.kinds() == []
    assert ward.health.warning() is None


def _gone(asked: FakeAccountsAsked) -> None:
    asked.keys.clear()


def _older(asked: FakeAccountsAsked) -> None:
    del asked.keys[KEY]
    asked.keys[f"{NAME}#2"] = "second"


def _other(asked: FakeAccountsAsked) -> None:
    asked.keys[KEY] = "another"


def _archived(asked: FakeAccountsAsked) -> None:
    asked.archived.add(KEY)


def _store_older(asked: FakeAccountsAsked) -> None:
    asked.keys |= {f"{NAME}#4": "fourth", f"{NAME}#5": "fifth"}
    asked.standings = {KEY: Standing.KEY_UNKNOWN, f"{NAME}#5": Standing.VALID}


def _store_older_and_archived(asked: FakeAccountsAsked) -> None:
    asked.archived.add(KEY)
    asked.keys[f"{NAME}#4"] = "fourth"
    asked.standings = {f"{NAME}#4": Standing.VALID}


def _key_unknown(asked: FakeAccountsAsked) -> None:
    asked.keys[f"{NAME}#4"] = "fourth"
    asked.standings = {KEY: Standing.KEY_UNKNOWN, f"{NAME}#4": Standing.KEY_UNKNOWN}


def _closed(asked: FakeAccountsAsked) -> None:
    asked.standings = {KEY: Standing.CLOSED}


def _unknown(asked: FakeAccountsAsked) -> None:
    asked.standings = {KEY: Standing.ACCOUNT_UNKNOWN}


def _moved(asked: FakeAccountsAsked) -> None:
    asked.directories["ca"] = "https://other.example/directory"


LOSSES = [
    pytest.param(_gone, LossCause.KEY_GONE, id="vault-emptied"),
    pytest.param(_older, LossCause.KEY_OLDER, id="vault-restored"),
    pytest.param(_other, LossCause.KEY_OTHER, id="name-used-again"),
    pytest.param(_archived, LossCause.KEY_ARCHIVED, id="archived"),
    pytest.param(_store_older, LossCause.STORE_OLDER, id="store-restored"),
    pytest.param(_store_older_and_archived, LossCause.STORE_OLDER, id="store-restored-retired"),
    pytest.param(_key_unknown, LossCause.KEY_UNKNOWN, id="key-changed-elsewhere"),
    pytest.param(_closed, LossCause.ACCOUNT_CLOSED, id="deactivated"),
    pytest.param(_unknown, LossCause.ACCOUNT_UNKNOWN, id="ca-emptied"),
    pytest.param(_moved, LossCause.CA_OTHER, id="directory-changed"),
]


@pytest.mark.parametrize(("lose", "cause"), LOSSES)
async def test_cause_is_named(ward: Ward, lose: object, cause: LossCause) -> None:
    """Each by its own name and sentence, told once, and everybody who would use it is told."""
    assert callable(lose)
    lose(ward.asked)
    assert await ward.look() is cause
    assert await ward.look() is cause
    assert await ward.kinds() == [EventKind.UPSTREAM_ACCOUNT_LOST]
    (loss,) = ward.health.losses()
    assert "{" not in loss.sentence
    assert "upstream recover ca" in (ward.asked.lost["ca", "default"] or "")
    assert str(cause) in (ward.health.warning() or "")


async def test_newest_key_that_speaks_for_the_account_is_the_pin(ward: Ward) -> None:
    """Of several that the CA may know the newest is asked about first."""
    _store_older(ward.asked)
    loss = await ward.health.look("ca", "default")
    assert loss is not None
    assert loss.pin == f"{NAME}#5"


async def test_what_cannot_be_asked_is_not_lost(ward: Ward) -> None:
    """Vault sealed or the CA away: what was known before still holds, either way."""
    ward.asked.failure = Unreachable("Vault is sealed")
    with pytest.raises(Unreachable):
        await ward.look()
    assert ward.health.loss("ca", "default") is None
    ward.asked.failure = None
    _closed(ward.asked)
    await ward.look()
    ward.asked.failure = Unreachable("Vault is sealed")
    with pytest.raises(Unreachable):
        await ward.look()
    assert ward.health.loss("ca", "default") is not None


async def test_account_that_is_found_again_is_told(ward: Ward) -> None:
    """Somebody put Vault right: the loss is over by itself."""
    _gone(ward.asked)
    await ward.look()
    ward.asked.keys[KEY] = "third"
    ward.clock.advance(LOOK_AGAIN)
    await ward.health.look_at_doubted()
    assert ward.health.loss("ca", "default") is None
    assert ward.asked.lost["ca", "default"] is None
    assert await ward.kinds() == [
        EventKind.UPSTREAM_ACCOUNT_LOST,
        EventKind.UPSTREAM_ACCOUNT_FOUND,
    ]


async def test_doubt_is_looked_at_at_once(ward: Ward) -> None:
    """What nobody doubts is not asked about at every turn."""
    await ward.health.look_at_all()
    looks = ward.asked.looks
    ward.clock.advance(timedelta(seconds=5))
    await ward.health.look_at_doubted()
    assert ward.asked.looks == looks
    ward.asked.doubts.append(("ca", "default"))
    _closed(ward.asked)
    await ward.health.look_at_doubted()
    assert ward.health.loss("ca", "default") is not None
    looks = ward.asked.looks
    ward.clock.advance(timedelta(seconds=5))
    await ward.health.look_at_doubted()
    assert ward.asked.looks == looks, "a lost account is asked about once a minute"


async def test_look_that_failed_is_not_repeated_at_every_turn(ward: Ward) -> None:
    """A CA that refuses whatever it is asked is not pestered for an account's sake."""
    ward.asked.doubts.append(("ca", "default"))
    ward.asked.failure = Unreachable("later")
    await ward.health.look_at_doubted()
    looks = ward.asked.looks
    ward.asked.failure = None
    _closed(ward.asked)
    ward.clock.advance(timedelta(seconds=5))
    await ward.health.look_at_doubted()
    assert ward.asked.looks == looks
    ward.clock.advance(LOOK_AGAIN)
    await ward.health.look_at_doubted()
    assert ward.health.loss("ca", "default") is not None


async def test_account_that_was_registered_just_now_is_not_looked_at(ward: Ward) -> None:
    """The CA has just answered for it; the next look at all of them takes it along."""
    await ward.health.look_at_doubted()
    assert ward.asked.looks == 0
    ward.clock.advance(LOOK_ALL)
    await ward.health.look_at_doubted()
    assert ward.asked.looks == 1


async def test_start_survives_what_cannot_be_asked(ward: Ward) -> None:
    """The look at the start is tolerant, and comes again."""
    ward.asked.failure = Unreachable("later")
    await ward.health.look_at_all()
    assert ward.health.losses() == []


async def test_loss_is_named_while_a_change_of_the_key_is_in_doubt(ward: Ward) -> None:
    """A CA that was emptied knows neither key, and nobody would be told what to do."""
    ward.asked.is_certain = False
    ward.asked.standings = {KEY: Standing.ACCOUNT_UNKNOWN}
    loss = await ward.health.look("ca", "default")
    assert loss is not None
    assert loss.cause is LossCause.ACCOUNT_UNKNOWN


async def test_key_that_a_change_in_doubt_led_to_is_no_loss(ward: Ward) -> None:
    """Whoever settles it pins the new key: nobody is alarmed."""
    later = "vault:transit/penstock.default.ca#4"
    ward.asked.is_certain = False
    ward.asked.keys[later] = "fourth"
    ward.asked.standings = {KEY: Standing.KEY_UNKNOWN, later: Standing.VALID}
    assert await ward.health.look("ca", "default") is None
    ward.asked.is_certain = True
    loss = await ward.health.look("ca", "default")
    assert loss is not None
    assert loss.cause is LossCause.STORE_OLDER
