"""Events are values with stable names, and what workflows write into them can be kept."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from broker.issuance.events import SYSTEM, Event, EventKind
from tests.fakes.clock import START
from tests.fakes.world import World, new_key


@pytest.mark.parametrize("kind", EventKind)
def test_name_follows_from_the_member(kind: EventKind) -> None:
    """Metrics and queries are built on it."""
    assert kind.value == kind.name.lower().replace("_", "-")


def test_event_is_frozen_and_the_systems_own_unless_said_otherwise() -> None:
    """What happened does not change."""
    event = Event(kind=EventKind.ORDER_READY, at=START)
    assert (event.actor, dict(event.data)) == (SYSTEM, {})
    with pytest.raises(FrozenInstanceError):
        event.kind = EventKind.ORDER_EXPIRED  # type: ignore[misc]


async def test_events_of_a_whole_life_hold_no_secret(world: World) -> None:
    """An issued, a withheld, a refused and a revoked one: JSON, and no token, key or CSR."""
    client = await world.client()
    order = await client.issue("a.example.com")
    await client.revoke(await client.leaf_der(order))
    world.ca.misissue = lambda leaf: replace(leaf, public_key=new_key().public_key())
    bad = await client.finalize(await client.ready("b.example.com"))
    await world.settle()
    events = await world.events()
    assert len({event.kind for event in events}) >= 12
    text = json.dumps([dict(event.data) for event in events])
    for one in (order, bad):
        kept = await world.load(one)
        assert kept.csr_der is not None
        assert kept.csr_der.hex() not in text
        for authorization in await client.authorizations(one):
            for challenge in authorization.challenges:
                assert challenge.token not in text
    assert all(event.at.tzinfo is not None for event in events)


async def test_every_event_of_an_order_names_it_and_its_account(world: World) -> None:
    """So that ``penstock order show`` finds them all."""
    client = await world.client()
    order = await client.issue("a.example.com")
    kept = await world.store.read_events(after=0, limit=100, order_id=order.order_id)
    kinds = {event.kind for _, event in kept}
    assert kinds >= {
        EventKind.ORDER_CREATED,
        EventKind.CHALLENGE_RESPONDED,
        EventKind.CHALLENGE_VALID,
        EventKind.ORDER_READY,
        EventKind.ORDER_FINALIZED,
        EventKind.CERTIFICATE_ISSUED,
    }
    for _, event in kept:
        assert event.account_id == client.account.account_id
        assert event.community == "default"
