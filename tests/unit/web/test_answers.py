"""What commands answer is of the types that the description is written from."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from broker.operations import OperatorDesk, Rooms
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.web.openapi import describe
from broker.web.routes import route_of
from broker.web.shapes import schema_of
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.fake_policies import POLICY
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import NodeWorld
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper
from tests.unit.operations.test_nodes import NodeOffice

RULES = """\
rules:
  - name: asked
    because: somebody looks at each
    names: ["**.asked.example.com"]
    quotas: [{per: requester, limit: 5/7d, upstreams: [ca]}]
    approval: {people: 2, by: [anna, ben], evidence: [ticket]}
    cap: 7d
  - name: later
    because: not yet
    names: ["**.asked.example.com"]
    mode: warn
    only: {networks: ["192.0.2.0/24"]}
"""


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[NodeOffice]:
    """A desk with nodes."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as scene:
            yield NodeOffice(scene)


def check(command: str, answer: Any) -> None:
    """See that *answer* is of the type of *command*, and that its objects have nothing more."""
    components = describe({})["components"]
    closed = {
        name: {**one, "unevaluatedProperties": False} if "properties" in one else one
        for name, one in components["schemas"].items()
    }
    schema = {**schema_of(route_of(command).answer, {}), "components": {"schemas": closed}}
    jsonschema.Draft202012Validator(schema).validate(answer)


async def test_answers_about_requesters_are_of_their_types(office: NodeOffice) -> None:
    """As a real store has them."""
    world, desk = office.scene.world, office.desk
    order = await (await world.client()).issue("www.example.com")
    check("order_list", await desk.order_list())
    check("order_show", await desk.order_show(order_id=order.order_id))
    check("cert_list", await desk.cert_list())
    check("cert_show", await desk.cert_show(certificate=order.certificate_id or ""))
    check("account_list", await desk.account_list())
    check("account_show", await desk.account_show(account_id=order.account_id))
    check("eab_mint", await desk.eab_mint(actor=ANNA, label="x"))
    check("eab_list", await desk.eab_list())


async def test_answers_about_nodes_are_of_their_types(office: NodeOffice) -> None:
    """A token's text is in one of them alone."""
    desk = office.desk
    await office.scene.join("web-01")
    check("node_list", await desk.node_list())
    check("node_show", await desk.node_show(node="web-01"))
    check("node_drain", await desk.node_drain(actor=ANNA, node="web-01"))
    made = await desk.node_token(actor=ANNA, node="web-02")
    check("node_token", made)
    check("node_tokens", await desk.node_tokens())
    with pytest.raises(jsonschema.ValidationError):
        check("node_tokens", [made])


async def test_explanations_are_of_their_type(office: NodeOffice) -> None:
    """Allowed, refused, warned of, left to people and counted."""
    office.scene.world.policies.set(POLICY + RULES)
    given: dict[str, Any]
    for given in (
        {"names": ["www.example.com"]},
        {"names": ["denied.example.com"], "address": "192.0.2.7", "at": "2027-03-15T08:00:00Z"},
        {"names": ["a.asked.example.com", "*.b.example.com"], "client_names": ["a.corp.example"]},
        {"names": ["a.robots.example.com"], "eab": "robot", "renewal": True},
        {"names": ["www.example.com"], "profile": "none"},
    ):
        check("policy_explain", await office.desk.policy_explain(**given))
    asked = await office.desk.policy_explain(names=["a.asked.example.com"])
    assert asked["approval"]
    assert asked["quotas"]
    assert asked["warnings"]


async def test_answers_about_limits_and_upstreams_are_of_their_types(office: NodeOffice) -> None:
    """With something used, and without."""
    world, desk = office.scene.world, office.desk
    check("quota_show", await desk.quota_show())
    week = timedelta(days=7)
    world.limits["ca"] = (PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(10, week)),)
    await (await world.client()).issue("www.example.com")
    shown = await desk.quota_show()
    assert shown["buckets"]
    check("quota_show", shown)
    await desk.upstream_register(actor=ANNA, upstream="ca")
    check("upstream_list", await desk.upstream_list())
    check("upstream_show", await desk.upstream_show(upstream="ca"))


async def test_way_of_a_delivery_is_of_its_type(tmp_path: Path) -> None:
    """Under way, withdrawn and seen."""
    async with DeliveryWorld(tmp_path) as hosts:
        desk = OperatorDesk(
            Rooms(
                store=hosts.store,
                accounts=hosts.accounts,
                enrollment=hosts.enrollment,
                revocations=hosts.revocations,
                planner=hosts.planner,
                policies=hosts.policies,
                upstreams=FakeUpstreamKeeper(),
                authorities=FakeAuthorityKeeper(),
                clock=hosts.clock,
                communities=("default",),
                version="0.1.0",
                deliveries=hosts.deliveries,
                delivery_rooms=hosts.store,
            )
        )
        node = await hosts.node()
        await node.settled("www")
        (seen,) = await node.deliveries("www")
        check("cert_trace", await desk.cert_trace(reference=seen.delivery_id))
        await node.wants("other")
        (begun,) = await node.deliveries("other")
        check("cert_trace", await desk.cert_trace(reference=begun.delivery_id))
        check("cert_withdraw", await desk.cert_withdraw(actor=ANNA, delivery=begun.delivery_id))
        check("cert_trace", await desk.cert_trace(reference=begun.delivery_id))
