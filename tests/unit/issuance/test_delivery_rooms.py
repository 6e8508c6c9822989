"""What deliveries work with, and the words in which they are told of."""

from broker.issuance.delivery_rooms import message_about, names_of
from broker.issuance.events import EventKind
from broker.policy.document import OnNodes
from tests.fakes.delivery_world import DeliveryWorld


async def test_messages_about_one_certificate_take_each_others_place(
    hosts: DeliveryWorld,
) -> None:
    """They share a subject, which no other certificate has."""
    node = await hosts.node()
    await node.wants("www")
    await node.wants("mail")
    subjects = {
        message_about(await node.managed(name), kind, {}).subject
        for name in ("www", "mail")
        for kind in ("want-csr", "certificate", "refused")
    }
    assert subjects == {"certificate/www", "certificate/mail"}


async def test_every_event_of_a_delivery_names_its_node(hosts: DeliveryWorld) -> None:
    """By id and by name, and none has a key or a CSR in it."""
    node = await hosts.node()
    await node.settled("www")
    told = await hosts.events(EventKind.DELIVERY_BEGUN, EventKind.DELIVERY_MOVED)
    stages = [event.data["stage"] for event in told]
    assert stages == ["asked", "ordered", "ordered", "issued", "pushed", "checked", "installed",
                      "reloaded"]  # fmt: skip
    for event in told:
        assert event.data["node"] == "web-01"
        assert event.account_id == node.record.account_id
        assert "csr" not in str(event.data).lower()


async def test_profile_says_how_it_is_renewed(hosts: DeliveryWorld) -> None:
    """One that policy does not know any more is renewed as any other."""
    node = await hosts.node()
    node.profile = "gone"
    node.wanted["www"] = ("www.robots.example.com",)
    await node.state()
    managed = await node.managed()
    assert hosts.deliveries._rooms.on_nodes(managed) == OnNodes()
    assert names_of(managed) == ["www.robots.example.com"]
