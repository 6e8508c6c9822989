"""Who answers for what, in the store."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from broker.issuance.owner_ports import OwnedKind
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A whole world."""
    async with World(tmp_path) as made:
        yield made


def changed(world: World) -> Event:
    """Return an event about a change."""
    return Event(kind=EventKind.OWNER_CHANGED, at=world.clock.now())


async def test_account_has_the_owner_of_its_key_until_it_has_its_own(world: World) -> None:
    """The contact goes with the owner: one's contact never stands beside another's name."""
    client = await world.robot()
    account = client.account.account_id
    key = await world.store.owner_of(OwnedKind.EAB_KEY, "default", "robot")
    assert key is not None
    await world.store.set_owner(key, owner="robots", contact="r@corp.example", event=changed(world))
    assert await world.store.owners_of_accounts([account]) == {
        account: ("robots", "r@corp.example")
    }
    own = await world.store.owner_of(OwnedKind.ACCOUNT, None, account)
    assert own is not None
    assert (own.owner, own.source) == ("robots", "eab-key")
    await world.store.set_owner(own, owner="anna", contact="", event=changed(world))
    assert await world.store.owners_of_accounts([account]) == {account: ("anna", "")}


async def test_owners_are_found_by_any_part_of_name_or_contact(tmp_path: Path) -> None:
    """With how much each answers for; what nobody does stands first."""
    async with DeliveryWorld(tmp_path) as world:
        await world.node()
        await world.client("lab")
        rows = await world.store.owners(community=None, text=None, limit=10)
        assert [(one.owner, one.accounts, one.eab_keys, one.nodes) for one in rows] == [
            ("", 1, 1, 0),
            ("web team", 1, 0, 1),
        ]
        for text in ("WEB T", "web@corp"):
            (found,) = await world.store.owners(community=None, text=text, limit=10)
            assert (found.owner, found.contacts) == ("web team", "web@corp.example")
        assert await world.store.owners(community="lab", text="web", limit=10) == []


async def test_things_are_found_by_owner_and_by_contact(tmp_path: Path) -> None:
    """Whoever is asked about, however they are written; others' things are not among them."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        for name in ("Web Team", "web@corp.example"):
            found = await world.store.owned_by(name, community=None, limit=10)
            assert [(one.kind, one.subject, one.source) for one in found] == [
                (OwnedKind.ACCOUNT, node.record.account_id, "node"),
                (OwnedKind.NODE, node.record.node_id, "own"),
            ]
        assert await world.store.owned_by("web", community=None, limit=10) == []
        nobodys = await world.store.owned_by("", community=None, limit=10)
        assert [one.subject for one in nobodys] == ["robot"]


async def test_node_is_found_by_its_name(tmp_path: Path) -> None:
    """As people call it."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        found = await world.store.owner_of(OwnedKind.NODE, None, "web-01")
        assert found is not None
        assert (found.subject, found.owner) == (node.record.node_id, "web team")
        assert await world.store.owner_of(OwnedKind.NODE, None, "web-02") is None


async def test_certificates_that_live_are_listed(world: World) -> None:
    """Those of these accounts, which are neither over nor revoked."""
    client, other = await world.client(), await world.client()
    order = await client.issue("a.example.com")
    await other.issue("b.example.com")
    now = world.clock.now()
    account = client.account.account_id
    (found,) = await world.store.certificates_of_accounts([account], now, 10)
    assert (found.certificate_id, found.account_id) == (order.certificate_id, account)
    later = now + timedelta(days=400)
    assert await world.store.certificates_of_accounts([account], later, 10) == []


async def test_what_is_gone_is_not_given_an_owner(world: World) -> None:
    """And no event says it was."""
    client = await world.client()
    found = await world.store.owner_of(OwnedKind.ACCOUNT, None, client.account.account_id)
    assert found is not None
    gone = replace(found, subject="0" * 32)
    with pytest.raises(Conflict, match="there is no account"):
        await world.store.set_owner(gone, owner="anna", contact="", event=changed(world))
    assert await world.events(EventKind.OWNER_CHANGED) == []
