"""What nodes state, made into certificates that are kept fresh."""

from datetime import timedelta
from typing import Any

import pytest

from broker.issuance import managed
from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.node_ports import DeliveryStage
from broker.protocol.certificates import parse_chain
from broker.protocol.problems import Problem
from tests.fakes.delivery_world import DeliveryWorld, Node

DAY = timedelta(days=1)


async def test_same_statement_again_changes_nothing(hosts: DeliveryWorld) -> None:
    """A node states itself at each connection."""
    node = await hosts.node()
    await node.settled("www")
    before = hosts.dump()
    await node.state()
    assert hosts.dump() == before


async def test_certificate_that_is_stated_twice_is_refused(hosts: DeliveryWorld) -> None:
    """Neither of the two is taken."""
    node = await hosts.node()
    node.wanted["www"] = ("www.robots.example.com",)
    (statement,) = node.statements()
    with pytest.raises(Problem, match="twice"):
        await hosts.deliveries.stated(node.record, [statement, statement])
    assert await hosts.store.managed_of(node.record.node_id) == []


async def test_node_that_would_fill_the_store_is_refused(
    hosts: DeliveryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that it states no more count too; what it has is renewed on."""
    monkeypatch.setattr(managed, "MAX_RECORDS", 3)
    node = await hosts.node()
    await node.settled("www")
    await node.wants("a")
    node.wanted = {"www": node.wanted["www"], "b": ("b.robots.example.com",)}
    await node.state()
    with pytest.raises(Problem, match="past the limit of 3"):
        await node.wants("c")
    pem, _ = node.installed["www"]
    with pytest.raises(Problem, match="past the limit of 3"):
        await hosts.deliveries.adopted(node.record, "d", pem)
    assert (await node.managed()).is_wanted


async def test_what_is_stated_no_more_is_not_renewed(hosts: DeliveryWorld) -> None:
    """It is told; stated again it is renewed again."""
    node = await hosts.node()
    await node.settled("www")
    wanted = node.wanted.pop("www")
    await node.state()
    managed = await node.managed()
    assert (managed.is_wanted, managed.next_at) == (False, None)
    assert await hosts.count(EventKind.CERTIFICATE_UNMANAGED) == 1
    await hosts.let_pass(70 * DAY)
    assert await hosts.sweep() == 0
    await node.wants("www", *wanted)
    await node.work()
    assert (await node.deliveries())[0].reason == "due"


async def test_what_is_on_its_way_is_taken_back_when_it_is_not_wanted(
    hosts: DeliveryWorld,
) -> None:
    """Nothing is ordered for it any more."""
    node = await hosts.node()
    await node.wants("www")
    del node.wanted["www"]
    await node.state()
    assert await node.stage() is DeliveryStage.WITHDRAWN
    assert await hosts.count(EventKind.ORDER_CREATED) == 0


async def test_change_of_names_is_ordered_at_once(hosts: DeliveryWorld) -> None:
    """A name more; what was under way for fewer is given up."""
    node = await hosts.node()
    await node.settled("www")
    await node.wants("www", "www.robots.example.com", "b.robots.example.com")
    (changing, _) = await node.deliveries()
    assert changing.reason == "changed"
    names = [f"{one}.robots.example.com" for one in ("www", "b", "c")]
    await node.wants("www", *names)
    await node.work()
    newest, superseded, _ = await node.deliveries()
    assert (newest.stage, superseded.stage) == (DeliveryStage.SEEN, DeliveryStage.SUPERSEDED)
    assert parse_chain(node.installed["www"][0]).leaf.identifiers == {
        *next(iter(node.statements())).identifiers
    }


async def test_node_that_lost_its_certificate_gets_another(hosts: DeliveryWorld) -> None:
    """It was set up anew, and states that it has none."""
    node = await hosts.node()
    await node.settled("www")
    node.installed.clear()
    await node.state()
    assert await node.stage() is DeliveryStage.ASKED
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_node_that_serves_an_older_one_is_planned_by_that(hosts: DeliveryWorld) -> None:
    """It was put back from a backup."""
    node = await hosts.node()
    await node.settled("www")
    older = node.installed["www"]
    planned = (await node.managed()).next_at
    await hosts.let_pass(10 * DAY)
    (managed,) = await hosts.store.managed_of(node.record.node_id)
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    assert (await node.managed()).next_at != planned
    node.installed["www"] = older
    await node.state()
    assert (await node.managed()).next_at == planned


async def test_statement_tells_what_a_lost_receipt_did_not(hosts: DeliveryWorld) -> None:
    """The server serves the new one, so the delivery is at its end."""
    node = await hosts.node()
    node.ends = "installed"
    await node.wants("www")
    await node.work()
    assert await node.stage() is DeliveryStage.INSTALLED
    await node.state()
    assert await node.stage() is DeliveryStage.SEEN
    assert (await node.managed()).certificate_id is not None


async def test_certificate_of_another_account_is_none_of_the_nodes(hosts: DeliveryWorld) -> None:
    """A fingerprint proves nothing about whose it is."""
    node = await hosts.node()
    client = await hosts.client()
    order = await client.issue("www.example.com")
    (certificate,) = [one for one in await hosts.certificates() if one.order_id == order.order_id]
    node.wanted["www"] = ("www.robots.example.com",)
    await node.state(
        fingerprint=certificate.fingerprint, not_after=certificate.not_after, is_seen=True
    )
    assert (await node.managed()).certificate_id is None


async def test_question_that_was_lost_is_asked_again(hosts: DeliveryWorld) -> None:
    """The node took it in and forgot; a minute later its statement shows that."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    node.inbox.clear()
    await node.state()
    assert await node.read() == []
    await hosts.let_pass(timedelta(minutes=1))
    await node.state()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_certificate_that_was_lost_is_sent_again(hosts: DeliveryWorld) -> None:
    """Likewise, with the same generation."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    await node.answer(node.inbox.pop())
    await node.read()
    node.inbox.clear()
    await hosts.let_pass(timedelta(minutes=1))
    await node.state()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert len(await node.deliveries()) == 1


async def test_generation_goes_on_from_what_the_node_has(hosts: DeliveryWorld) -> None:
    """A broker that was restored is behind its nodes, which take nothing older than they have."""
    node = await hosts.node()
    await node.settled("www")
    pem, _ = node.installed["www"]
    node.installed["www"] = pem, 7
    await node.state()
    (managed,) = await hosts.store.managed_of(node.record.node_id)
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    delivery = (await node.deliveries())[0]
    assert (delivery.generation, delivery.stage) == (8, DeliveryStage.SEEN)


# -------------------------------------------------------------------------------------- adoption


async def foreign(hosts: DeliveryWorld) -> tuple[Node, bytes]:
    """Return a node, and a chain for its name that did not come from its account."""
    client = await hosts.client()
    order = await client.issue("www.example.com")
    node = await hosts.node()
    node.wanted["www"] = ("www.example.com",)
    return node, await client.chain(order)


async def test_adopted_pair_is_not_reissued_before_it_is_due(hosts: DeliveryWorld) -> None:
    """Whichever comes first, the statement or the adoption."""
    for name in ("web-01", "web-02"):
        client = await hosts.client()
        pem = await client.chain(await client.issue("www.example.com"))
        node = await hosts.node(name)
        node.wanted["www"] = ("www.example.com",)
        node.installed["www"] = pem, 0
        if name == "web-01":
            await hosts.deliveries.adopted(node.record, "www", pem)
            await node.state()
        else:
            await node.state()
            await hosts.deliveries.adopted(node.record, "www", pem)
        managed = await node.managed()
        assert await node.deliveries() == []
        leaf = parse_chain(pem).leaf
        assert managed.not_after == leaf.not_after
        assert managed.next_at is not None
        assert leaf.not_before + 50 * DAY < managed.next_at < leaf.not_after - 20 * DAY
        assert managed.served_pem is not None


async def test_adoption_that_is_no_certificate_is_refused(hosts: DeliveryWorld) -> None:
    """The words say what is wrong."""
    node = await hosts.node()
    with pytest.raises(Problem, match="adopted certificate"):
        await hosts.deliveries.adopted(node.record, "www", b"no PEM")


async def test_adopted_pair_with_a_name_missing_is_replaced_at_once(hosts: DeliveryWorld) -> None:
    """The node wants more than it has."""
    node, pem = await foreign(hosts)
    node.wanted["www"] = ("www.robots.example.com",)
    await hosts.deliveries.adopted(node.record, "www", pem)
    node.installed["www"] = pem, 0
    await node.state()
    assert (await node.deliveries())[0].reason == "changed"


async def test_statement_of_a_foreign_certificate_alone_orders_nothing_at_once(
    hosts: DeliveryWorld,
) -> None:
    """Its end is known, so it is renewed before that."""
    node, pem = await foreign(hosts)
    node.installed["www"] = pem, 0
    await node.state()
    managed = await node.managed()
    assert await node.deliveries() == []
    assert managed.next_at is not None
    assert managed.not_after is not None
    assert hosts.clock.now() < managed.next_at < managed.not_after


async def test_statement_that_crosses_the_end_of_a_delivery_forgets_no_renewal(
    hosts: DeliveryWorld,
) -> None:
    """What it was made of is over, so the node states it again; the next attempt keeps its time."""
    node = await hosts.node()
    await node.wants("www")
    (delivery,) = await node.deliveries()
    stating = hosts.deliveries._stating
    kept = stating._store

    class Crossing:
        """A store in which the delivery ends while the statement is being dealt with."""

        def __getattr__(self, name: str) -> Any:
            return getattr(kept, name)

        async def open_deliveries_of(self, node_id: str) -> Any:
            found = await kept.open_deliveries_of(node_id)
            await hosts.deliveries.unable(
                node.record, delivery.delivery_id, "no room", is_final=True
            )
            return found

    crossing: Any = Crossing()
    stating._store = crossing
    served = {"fingerprint": "ab" * 32, "not_after": hosts.clock.now() + DAY}
    with pytest.raises(Conflict):
        await node.state(**served)
    stating._store = kept
    planned = await node.managed()
    assert planned.attempts == 1
    assert planned.next_at is not None
    await node.state(**served)
    again = await node.managed()
    assert again.next_at is not None
    assert again.not_after == served["not_after"]
