"""Revoking what an account ordered that is ours no more: proved once, tried once, told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.issuance.errors import Refused
from broker.issuance.events import Event, EventKind
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.accounts_asked import URL, account_record
from tests.fakes.world import Client, World

NO = Problem(ProblemType.UNAUTHORIZED, "not associated with this account", status=403)
ELSE = "own key, directly at the CA"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with an account at its CA."""
    async with World(tmp_path) as made:
        yield made


async def issued(world: World, ordered_by: str) -> tuple[Client, bytes]:
    """Return a client with a certificate that *ordered_by* ordered."""
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=world.clock.now())
    await world.store.save_upstream_account(account_record(), event)
    client = await world.client()
    order = await client.issue("www.example.com")
    await world.store._database.write(
        lambda transaction: transaction.change(
            "UPDATE certificates SET upstream_account = ?", ordered_by
        )
    )
    return client, await client.leaf_der(order)


async def test_present_account_proves_the_names_and_revokes(world: World) -> None:
    """A CA that goes by authorizations takes its word at the second time of asking."""
    client, leaf = await issued(world, "https://ca.example/acct/former")
    world.ca.fail("revoke", Refused(NO))
    await client.revoke(leaf)
    assert len(world.ca.revoked) == 1
    assert len(world.ca.unfinalized) == 1, "the order that proved the names was never finalized"


async def test_ca_that_says_no_all_the_same_is_not_asked_for_ever(world: World) -> None:
    """Whoever asked hears what is left to do; no job stays."""
    client, leaf = await issued(world, "https://ca.example/acct/former")
    world.ca.fail("revoke", Refused(NO), times=5)
    with pytest.raises(Problem, match=ELSE):
        await client.revoke(leaf)
    assert world.ca.count("revoke") == 2
    assert await world.jobs() == 0
    (event,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REFUSED)
    assert ELSE in str(event.data["detail"])


async def test_what_the_present_account_ordered_is_refused_as_before(world: World) -> None:
    """Nothing is ordered to prove what the CA should know."""
    client, leaf = await issued(world, URL)
    world.ca.fail("revoke", Refused(NO))
    with pytest.raises(Problem) as refused:
        await client.revoke(leaf)
    assert ELSE not in str(refused.value)
    assert world.ca.count("revoke") == 1
    assert world.ca.unfinalized == []


async def test_names_that_cannot_be_proved_are_told(world: World) -> None:
    """The new account's order is refused as well."""
    client, leaf = await issued(world, "https://ca.example/acct/former")
    world.ca.fail("revoke", Refused(NO))
    world.ca.refuses_names = Problem(ProblemType.DNS, "no such record")
    with pytest.raises(Problem, match=ELSE):
        await client.revoke(leaf)
    assert world.ca.revoked == {}
