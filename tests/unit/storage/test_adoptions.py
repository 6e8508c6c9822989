"""What is kept of accounts and certificates that came from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.adoption_ports import AdoptedCertificate
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.upstream_key_ports import KeyChangeStatus
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START
from tests.unit.storage.test_upstream_keys import ACCOUNT, BEGUN, CHANGE, ENDED

CERTIFICATE = AdoptedCertificate(
    cert_id="aa.bb",
    upstream="ca",
    community="default",
    account_url=ACCOUNT.account_url,
    identifiers=(Identifier(IdentifierType.DNS, "www.example"),),
    not_after=START + timedelta(days=30),
)
ADOPTED = Event(kind=EventKind.CERTIFICATES_ADOPTED, at=START)
UNDONE = Event(kind=EventKind.UPSTREAM_ADOPTION_UNDONE, at=START)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with an account."""
    made = await SqliteStore.open(tmp_path / "store.db")
    await made.save_upstream_account(
        ACCOUNT, Event(kind=EventKind.UPSTREAM_ACCOUNT_ADOPTED, at=START)
    )
    yield made
    await made.close()


async def test_adoption_is_undone_with_its_event(store: SqliteStore) -> None:
    """The account is gone, and a second time there is nothing to undo."""
    await store.undo_adoption(ACCOUNT, UNDONE)
    assert await store.find_upstream_account("ca", "default") is None
    with pytest.raises(Conflict, match="is not ours by old"):
        await store.undo_adoption(ACCOUNT, UNDONE)
    events = await store.read_events(after=0, limit=10, order_id=None)
    assert [event.kind for _, event in events][1:] == [EventKind.UPSTREAM_ADOPTION_UNDONE]


async def test_change_is_found_by_the_key_that_it_led_to(store: SqliteStore) -> None:
    """Only once it has happened."""
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    assert await store.change_that_led_to("new") is None
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=START)
    await store.end_upstream_key_change(ended, replace(ACCOUNT, key_id="new"), ENDED)
    assert await store.change_that_led_to("new") == ended
    assert await store.change_that_led_to("old") is None


async def test_certificates_come_back_as_they_were_kept(store: SqliteStore) -> None:
    """By community and CertID; kept again, the later word counts."""
    await store.keep_adopted_certificates([CERTIFICATE], ADOPTED)
    assert list(await store.adopted_certificates("default", "aa.bb")) == [CERTIFICATE]
    assert list(await store.adopted_certificates("default", "aa.cc")) == []
    assert list(await store.adopted_certificates("lab", "aa.bb")) == []
    moved = replace(CERTIFICATE, account_url="https://ca.example/acct/2")
    await store.keep_adopted_certificates([moved], ADOPTED)
    assert list(await store.adopted_certificates("default", "aa.bb")) == [moved]


async def test_keys_on_record_are_those_that_something_still_needs(store: SqliteStore) -> None:
    """Of an account, of a change that happened or may have, of an account that was replaced; not
    of an adoption that was undone."""
    assert list(await store.keys_on_record()) == ["old"]
    await store.begin_upstream_key_change(CHANGE, BEGUN)
    ended = replace(CHANGE, status=KeyChangeStatus.CHANGED, ended_at=START)
    await store.end_upstream_key_change(ended, replace(ACCOUNT, key_id="new"), ENDED)
    assert list(await store.keys_on_record()) == ["new", "old"]
    other = replace(ACCOUNT, key_id="third", account_url="https://ca.example/acct/2")
    await store.save_upstream_account(other, BEGUN)
    assert list(await store.keys_on_record()) == ["new", "old", "third"]
    await store.undo_adoption(other, UNDONE)
    assert list(await store.keys_on_record()) == ["new", "old"]
