"""The beginning of a delivery: what policy lets a node ask for, and what it may answer."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.node_ports import DeliveryStage, NodeStatus
from broker.protocol.csr import parse_csr
from broker.protocol.problems import Problem
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.world import make_csr, new_key


def keeps(hosts: DeliveryWorld, key: str) -> None:
    """Have policy say which key there is at each renewal."""
    hosts.policies.change(
        "    upstreams: [{upstream: local}]",
        f"    upstreams: [{{upstream: local}}]\n    on_nodes: {{key: {key}}}",
    )


async def again(hosts: DeliveryWorld, reason: str = "asked", incident_id: str | None = None) -> str:
    """Begin another delivery of the one certificate there is."""
    (managed,) = await hosts.store.managed_named("www", 10)
    made = await hosts.deliveries.asking.begin(
        managed.managed_id, reason=reason, incident_id=incident_id
    )
    await hosts.settle()
    return made


async def test_name_of_another_is_refused_before_any_key_is_made(hosts: DeliveryWorld) -> None:
    """The node is told, it is recorded, no CA hears of it, and what it has stays."""
    node = await hosts.node()
    await node.settled("www")
    served = node.leaf()
    node.wanted["theirs"] = ("www.other.example.org",)
    await node.state()
    assert await hosts.count(EventKind.MANAGED_REFUSED) == 1
    assert await node.deliveries("theirs") == []
    (told,) = await node.read()
    assert told.kind == "refused"
    assert "www.other.example.org" in str(told.body["reason"])
    assert node.leaf() == served
    assert (await node.managed("theirs")).fault is not None


async def test_refused_name_is_had_once_policy_lets_it(hosts: DeliveryWorld) -> None:
    """The negative's twin: the same wish, later, with the pause before it."""
    node = await hosts.node()
    node.wanted["theirs"] = ("www.denied.example.com",)
    hosts.policies.change('"**.robots.example.com"', '"**.robots.example.com", "x.example.com"')
    node.wanted["theirs"] = ("y.example.com",)
    node.profile = "server"
    await node.state()
    assert await node.deliveries("theirs") == []
    hosts.policies.change('"**.robots.example.com"', '"**.robots.example.com", "y.example.com"')
    await hosts.let_pass(timedelta(minutes=2))
    await hosts.sweep()
    await node.work()
    assert await node.stage("theirs") is DeliveryStage.SEEN


@pytest.mark.parametrize("number", [0, 2, 101], ids=["none", "one-twice", "too-many"])
async def test_names_that_make_no_order_are_refused(hosts: DeliveryWorld, number: int) -> None:
    """What a client could not order either."""
    node = await hosts.node()
    names = [f"n{n}.robots.example.com" for n in range(number)]
    node.wanted["www"] = tuple(["n.robots.example.com"] * 2 if number == 2 else names)
    await node.state()
    assert await node.deliveries() == []
    assert "expected 1 to 100" in str((await node.managed()).fault)


async def test_key_kind_that_policy_does_not_know_is_refused(hosts: DeliveryWorld) -> None:
    """Before the node makes such a key."""
    node = await hosts.node()
    node.wanted["www"] = ("www.robots.example.com",)
    await node.state(key_kind="rsa-2048")
    assert "rsa-2048" in str((await node.managed()).fault)


BAD_CSRS = ["other-names", "more-names", "identity-key", "account-key", "key-kind", "no-csr"]


@pytest.mark.parametrize("fault", BAD_CSRS)
async def test_csr_that_was_not_asked_for_is_refused(hosts: DeliveryWorld, fault: str) -> None:
    """Whatever is wrong with it, the delivery fails, is told, and nothing is issued."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    (delivery,) = await node.deliveries()
    client = await hosts.client()
    chosen = {"other-names": ("a",), "more-names": ("www", "a")}.get(fault, ("www",))
    names = [f"{one}.robots.example.com" for one in chosen]
    key = client.key if fault == "account-key" else new_key()
    csr_der = b"no CSR" if fault == "no-csr" else make_csr(*names, key=key)
    if fault == "identity-key":
        spki = parse_csr(csr_der).spki_sha256
        await hosts.store.change_node(
            replace(node.record, spki_sha256=spki), expected=(NodeStatus.ACTIVE,), events=()
        )
    if fault == "key-kind":
        (managed,) = await hosts.store.managed_of(node.record.node_id)
        await hosts.store.keep_managed([replace(managed, key_kind="rsa-2048")], [])
    try:
        await node.offer(delivery.delivery_id, csr_der)
    except Problem:
        assert fault != "account-key", "finalize tells of that one"
    await hosts.settle()
    (after,) = await node.deliveries()
    assert after.stage is DeliveryStage.FAILED
    assert await hosts.certificates() == []
    assert await hosts.count(EventKind.DELIVERY_FAILED) == 1


async def test_delivery_of_another_node_does_not_exist(hosts: DeliveryWorld) -> None:
    """Nor does one that there never was, and the words are the same."""
    node, other = await hosts.node(), await hosts.node("web-02")
    await node.wants("www")
    await node.read()
    (delivery,) = await node.deliveries()
    csr_der = make_csr("www.robots.example.com")
    told = set()
    for reference in (delivery.delivery_id, "nothing"):
        with pytest.raises(Problem) as caught:
            await hosts.deliveries.offered(other.record, reference, csr_der)
        told.add(caught.value.detail)
    assert told == {"no such delivery here"}
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_same_csr_again_changes_nothing_and_another_is_refused(hosts: DeliveryWorld) -> None:
    """A message that comes twice is no harm; a change of mind is."""
    node = await hosts.node()
    node.ends = "checked"
    await node.wants("www")
    await node.work()
    (delivery,) = await node.deliveries()
    await node.offer(delivery.delivery_id)
    with pytest.raises(Problem, match="another CSR"):
        await node.offer(delivery.delivery_id, make_csr("www.robots.example.com"))
    assert await node.stage() is DeliveryStage.CHECKED
    assert len(await hosts.certificates()) == 1


async def test_node_that_cannot_now_is_waited_for_and_one_that_never_can_is_not(
    hosts: DeliveryWorld,
) -> None:
    """The reason is shown; an end is tried again after a pause."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    (delivery,) = await node.deliveries()
    report = hosts.deliveries.unable
    await report(node.record, delivery.delivery_id, "the token is locked", is_final=False)
    (waiting,) = await node.deliveries()
    assert waiting.stage is DeliveryStage.ASKED
    assert waiting.note == "the node says: the token is locked"
    await report(node.record, delivery.delivery_id, "no such token", is_final=True)
    assert await node.stage() is DeliveryStage.FAILED
    await report(node.record, delivery.delivery_id, "no such token", is_final=True)
    assert (await node.managed()).attempts == 1


@pytest.mark.parametrize(("key", "is_same"), [("new", False), ("kept", True), ("csr", True)])
async def test_key_is_new_or_kept_as_policy_says(
    hosts: DeliveryWorld, key: str, *, is_same: bool
) -> None:
    """With its CSR kept the node is not even asked."""
    keeps(hosts, key)
    node = await hosts.node()
    await node.settled("www")
    before = node.leaf()
    await again(hosts)
    kinds = {message.kind for message in await node.read()}
    assert ("want-csr" in kinds) is (key != "csr")
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert (node.leaf().public_key() == before.public_key()) is is_same
    assert node.leaf().serial_number != before.serial_number


async def test_csr_that_asks_for_other_names_is_not_used_again(hosts: DeliveryWorld) -> None:
    """The node's wish has changed, so it is asked."""
    keeps(hosts, "csr")
    node = await hosts.node()
    await node.settled("www")
    await node.wants("www", "www.robots.example.com", "b.robots.example.com")
    assert [one.kind for one in await node.read()] == ["want-csr"]


async def test_incident_takes_the_place_of_what_is_under_way_and_goes_on_with_its_own(
    hosts: DeliveryWorld,
) -> None:
    """A new key whatever policy keeps; asked twice it is one delivery."""
    keeps(hosts, "kept")
    node = await hosts.node()
    await node.settled("www")
    before = node.leaf()
    asked = await again(hosts)
    first = await again(hosts, "incident", incident_id="i1")
    assert first != asked
    assert await again(hosts, "incident", incident_id="i1") == first
    assert await hosts.count(EventKind.DELIVERY_SUPERSEDED) == 1
    assert [one.body["delivery"] for one in await node.read()] == [first]
    await node.work()
    delivery = (await node.deliveries())[0]
    assert (delivery.stage, delivery.incident_id) == (DeliveryStage.SEEN, "i1")
    assert node.leaf().public_key() != before.public_key()
    assert (asked, "superseded") in hosts.rollout.ends


async def test_asking_again_goes_on_with_what_is_under_way(hosts: DeliveryWorld) -> None:
    """An impatient operator begins nothing twice; who began it is kept."""
    node = await hosts.node()
    await node.settled("www")
    (managed,) = await hosts.store.managed_named("www", 10)
    anna = Actor("operator:anna", "ticket 7")
    begin = hosts.deliveries.asking.begin
    first = await begin(managed.managed_id, reason="asked", actor=anna)
    assert await begin(managed.managed_id, reason="asked", actor=anna) == first
    begun = await hosts.events(EventKind.DELIVERY_BEGUN)
    assert [event.actor for event in begun][1:] == [anna]


async def test_drained_node_is_sent_nothing_new(hosts: DeliveryWorld) -> None:
    """It is refused with the node's name in the words."""
    node = await hosts.node()
    await node.settled("www")
    drained = replace(node.record, status=NodeStatus.DRAINED)
    await hosts.store.change_node(drained, expected=(NodeStatus.ACTIVE,), events=())
    with pytest.raises(Problem, match="drained"):
        await again(hosts)
