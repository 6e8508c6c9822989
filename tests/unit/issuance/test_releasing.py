"""From issued to pushed: held where something was lost, admitted by the rollout."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.node_ports import DeliveryStage, NodeStatus, Verdict
from broker.protocol.problems import Problem
from tests.fakes.delivery_world import DeliveryWorld, Node

_SAN = x509.SubjectAlternativeName

ANNA = Actor("operator:anna", "the name is not needed any more")


async def held(hosts: DeliveryWorld) -> Node:
    """Return a node whose renewed certificate has a name less."""
    node = await hosts.node()
    await node.settled("www", "www.robots.example.com", "b.robots.example.com")
    await node.wants("www", "www.robots.example.com")
    await node.work()
    assert await node.stage() is DeliveryStage.HELD
    return node


async def test_certificate_with_a_name_less_is_held_and_told(hosts: DeliveryWorld) -> None:
    """The node is sent nothing, the old one stays, and what was lost is said."""
    node = await held(hosts)
    (event,) = await hosts.events(EventKind.DELIVERY_HELD)
    assert event.data["lost"] == ["names"]
    assert "b.robots.example.com" in str(event.data["why"])
    assert len(node.leaf().extensions.get_extension_for_class(_SAN).value) == 2
    assert hosts.rollout.judged == [(await node.deliveries())[1].delivery_id]


async def test_released_it_goes_on_in_the_name_of_who_released_it(hosts: DeliveryWorld) -> None:
    """It is not held a second time for the same loss."""
    node = await held(hosts)
    (delivery, _) = await node.deliveries()
    await hosts.deliveries.releasing.release(delivery.delivery_id, ANNA)
    await hosts.settle()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    (event,) = await hosts.events(EventKind.DELIVERY_RELEASED)
    assert event.actor == ANNA
    assert (await node.deliveries())[0].released_at is not None


async def test_only_what_is_held_is_released(hosts: DeliveryWorld) -> None:
    """Neither what has ended nor what there is not."""
    node = await hosts.node()
    await node.settled("www")
    (delivery,) = await node.deliveries()
    for reference, told in ((delivery.delivery_id, "is seen"), ("nothing", "there is no")):
        with pytest.raises(Problem, match=told):
            await hosts.deliveries.releasing.release(reference, ANNA)


async def test_withdrawn_it_never_comes(hosts: DeliveryWorld) -> None:
    """The node is told to forget its key, and it is not tried again at once."""
    node = await held(hosts)
    (delivery, _) = await node.deliveries()
    await hosts.deliveries.releasing.withdraw(delivery.delivery_id, ANNA)
    await hosts.settle()
    assert await node.stage() is DeliveryStage.WITHDRAWN
    (event,) = await hosts.events(EventKind.DELIVERY_WITHDRAWN)
    assert event.actor == ANNA
    assert [message.kind for message in await node.read()] == ["refused"]
    assert await hosts.sweep() == 0
    with pytest.raises(Problem, match="withdrawn already"):
        await hosts.deliveries.releasing.withdraw(delivery.delivery_id, ANNA)


async def test_policy_may_let_a_loss_pass(hosts: DeliveryWorld) -> None:
    """Where its list of what holds is shorter."""
    hosts.policies.change(
        "    upstreams: [{upstream: local}]",
        "    upstreams: [{upstream: local}]\n    on_nodes: {hold: [usages, key, anchors]}",
    )
    node = await hosts.node()
    await node.settled("www", "www.robots.example.com", "b.robots.example.com")
    await node.settled("www", "www.robots.example.com")
    assert await hosts.count(EventKind.DELIVERY_HELD) == 0


async def test_other_anchors_hold_an_adopted_one(hosts: DeliveryWorld) -> None:
    """What was served before came from another CA."""
    node, other = await hosts.node(), await hosts.node("web-02")
    other.profile = "server"
    await other.settled("www")
    pem, _ = other.installed["www"]
    node.wanted["www"] = ("www.robots.example.com",)
    await hosts.deliveries.adopted(replace(node.record, account_id="another"), "www", pem)
    (managed,) = await hosts.store.managed_of(node.record.node_id)
    await hosts.store.keep_managed([replace(managed, certificate_id=None, served_pem=pem)], [])
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    (managed,) = await hosts.store.managed_of(node.record.node_id)
    await hosts.store.keep_managed([replace(managed, profile="private")], [])
    await node.work()
    assert await node.stage() is DeliveryStage.HELD
    assert "other anchors" in ((await node.deliveries())[0].note or "")


async def test_rollout_that_says_no_is_asked_again_when_it_says(hosts: DeliveryWorld) -> None:
    """Its reason is shown meanwhile, with the group."""
    node = await hosts.node()
    later = hosts.clock.now() + timedelta(minutes=30)
    hosts.rollout.verdict = Verdict(
        may_go=False, group="web", why="its canaries come first", retry_at=later
    )
    await node.wants("www")
    await node.work()
    (delivery,) = await node.deliveries()
    assert (delivery.stage, delivery.note) == (DeliveryStage.ISSUED, "its canaries come first")
    assert delivery.rollout_group == "web"
    hosts.rollout.verdict = Verdict(may_go=True, group="web")
    await hosts.let_pass(timedelta(minutes=29))
    assert await node.stage() is DeliveryStage.ISSUED
    await hosts.let_pass(timedelta(minutes=2))
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_end_of_one_wakes_those_that_the_rollout_names(hosts: DeliveryWorld) -> None:
    """They are judged again at once."""
    first, second = await hosts.node(), await hosts.node("web-02")
    await first.wants("www")
    await first.read()
    hosts.rollout.verdict = Verdict(may_go=False, why="after the other")
    await second.wants("www")
    await second.work()
    hosts.rollout.verdict = Verdict(may_go=True)
    hosts.rollout.woken = ((await second.deliveries())[0].delivery_id,)
    await first.work()
    await second.work()
    assert await second.stage() is DeliveryStage.SEEN


async def test_node_that_is_drained_is_not_pushed_to(hosts: DeliveryWorld) -> None:
    """Until it is active again."""
    node = await hosts.node()
    hosts.rollout.verdict = Verdict(may_go=False, why="not yet")
    await node.wants("www")
    await node.work()
    drained = replace(node.record, status=NodeStatus.DRAINED)
    await hosts.store.change_node(drained, expected=(NodeStatus.ACTIVE,), events=())
    hosts.rollout.verdict = Verdict(may_go=True)
    await hosts.let_pass(timedelta(minutes=3))
    assert await node.stage() is DeliveryStage.ISSUED
    await hosts.store.change_node(node.record, expected=(NodeStatus.DRAINED,), events=())
    await hosts.let_pass(timedelta(minutes=2))
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN


async def test_certificate_that_was_revoked_on_the_way_is_not_pushed(hosts: DeliveryWorld) -> None:
    """It failed, and another is ordered after a pause."""
    node = await hosts.node()
    hosts.rollout.verdict = Verdict(may_go=False, why="not yet")
    await node.wants("www")
    await node.work()
    (delivery,) = await node.deliveries()
    event = Event(kind=EventKind.CERTIFICATE_REVOKED, at=hosts.clock.now(), data={})
    await hosts.store.mark_revoked(
        delivery.certificate_id or "", reason=1, at=hosts.clock.now(), event=event
    )
    hosts.rollout.verdict = Verdict(may_go=True)
    await hosts.let_pass(timedelta(minutes=2))
    (failed,) = await node.deliveries()
    assert (failed.stage, failed.note) == (
        DeliveryStage.FAILED, "its certificate was revoked on the way",
    )  # fmt: skip


async def test_message_has_what_the_node_checks_by(hosts: DeliveryWorld) -> None:
    """The key, the generation, the longest lifetime, and how long the key before is kept."""
    node = await hosts.node()
    await node.settled("www")
    message = next(one for one in node.heard if one.kind == "certificate")
    leaf = node.leaf()
    lifetime = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    assert int(str(message.body["longest_seconds"])) >= lifetime
    assert message.body["keep_previous_seconds"] == 30 * 86400
    assert message.body["generation"] == 1
    certificates = await hosts.certificates()
    assert message.body["spki_sha256"] == certificates[0].spki_sha256
    assert message.subject == "certificate/www"
