"""What is of which community: read from the store, by any reference that commands take."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.operations.belonging import StoredBelonging
from broker.web.rights import Thing
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import NodeWorld
from tests.unit.operations.conftest import ANNA
from tests.unit.operations.test_nodes import NodeOffice


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[NodeOffice]:
    """A desk with nodes."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as scene:
            yield NodeOffice(scene)


async def test_things_are_of_their_community(office: NodeOffice) -> None:
    """By the references that commands take."""
    world, store = office.scene.world, office.scene.store
    belonging = StoredBelonging(store, store, store)
    order = await (await world.client()).issue("www.example.com")
    certificate = await world.store.find_certificate(order.certificate_id or "")
    assert certificate is not None
    token = await office.desk.node_token(actor=ANNA, node="web-01", community="lab")
    found = {
        thing: await belonging.communities_of(thing, reference)
        for thing, reference in (
            (Thing.ACCOUNT, order.account_id),
            (Thing.ORDER, order.order_id),
            (Thing.CERTIFICATE, certificate.certificate_id),
            (Thing.JOIN_TOKEN, token["token_id"]),
            (Thing.DELIVERY, order.order_id),
        )
    }
    assert found == {
        Thing.ACCOUNT: {"default"},
        Thing.ORDER: {"default"},
        Thing.CERTIFICATE: {"default"},
        Thing.JOIN_TOKEN: {"lab"},
        Thing.DELIVERY: {"default"},
    }
    colons = ":".join(
        certificate.fingerprint[place : place + 2].upper()
        for place in range(0, len(certificate.fingerprint), 2)
    )
    for reference in (colons, certificate.serial, f"0x{certificate.serial.upper()}"):
        assert await belonging.communities_of(Thing.CERTIFICATE, reference) == {"default"}


async def test_node_is_of_its_community_by_name_and_id(office: NodeOffice) -> None:
    """As what is at it is."""
    belonging = StoredBelonging(office.scene.store, office.scene.store)
    node = await office.scene.join("web-01")
    for reference in (node.name, node.node_id):
        for thing in (Thing.NODE, Thing.MANAGED):
            assert await belonging.communities_of(thing, reference) == {node.community}


@pytest.mark.parametrize("thing", [one for one in Thing if one is not Thing.COMMUNITY])
async def test_what_does_not_exist_is_of_none(office: NodeOffice, thing: Thing) -> None:
    """And so is in nobody's community."""
    belonging = StoredBelonging(office.scene.store, office.scene.store)
    assert await belonging.communities_of(thing, "no-such-thing") == frozenset()


async def test_without_nodes_nothing_is_at_one(office: NodeOffice) -> None:
    """Deliveries are looked for by their orders alone."""
    belonging = StoredBelonging(office.scene.store)
    assert await belonging.communities_of(Thing.DELIVERY, "none") == frozenset()
    assert await belonging.communities_of(Thing.MANAGED, "none") == frozenset()
