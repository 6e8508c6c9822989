"""The desk that explains."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.enrollment import Enrollment
from broker.issuance.planning import Planner
from broker.operations import OperatorDesk
from broker.web.operator import OperationError
from tests.fakes.fake_policies import POLICY, FakeSuffixes
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import NodeWorld
from tests.fakes.world import FakeUpstreams
from tests.unit.operations.conftest import Office
from tests.unit.operations.test_nodes import NodeOffice

NAME = "www.example.com"
MARK = "ab" * 32

RULES = f"""\
rules:
  - name: inside
    because: it is for the office
    names: ["**.inside.example.com"]
    only: {{networks: ["192.0.2.0/24", "2001:db8::/32"]}}
  - name: badge
    because: it is for builders
    names: ["**.badge.example.com"]
    only: {{client_names: ["**.corp.example"]}}
  - name: marked
    because: it is for known certificates
    names: ["**.marked.example.com"]
    only: {{client_certificates: ["sha256:{MARK}", "spiffe://corp.example/Web"]}}
  - name: ended
    because: it moves away
    names: ["**.ended.example.com"]
    from: 2026-04-01
    renewals: warn
    refuse: ask elsewhere
"""


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[NodeOffice]:
    """A desk with nodes."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as scene:
            yield NodeOffice(scene)


async def test_policy_is_explained_for_whoever_asks(office: Office) -> None:
    """A name of the robot's is free for the robot and needs a challenge from others."""
    name = "a.robots.example.com"
    robot = await office.world.robot()
    free: Any = await office.desk.policy_explain(names=[name], account=robot.account.account_id)
    by_key: Any = await office.desk.policy_explain(names=[name], eab="robot")
    other: Any = await office.desk.policy_explain(names=[name])
    assert free["allowed"]
    assert free["requirements"] == by_key["requirements"]
    assert free["requirements"][name]["granted_by"] is not None
    assert other["requirements"][name]["granted_by"] is None
    assert other["plan"]["lever"] == "ask"
    assert [each["taken"] for each in other["upstreams"]] == [True]
    json.dumps(free)


async def test_refusal_is_explained_with_its_rule(office: Office) -> None:
    """Which check, which sentence, which line of which file."""
    found: Any = await office.desk.policy_explain(names=["denied.example.com"])
    assert not found["allowed"]
    (finding,) = [each for step in found["checks"] for each in step["findings"]]
    assert finding["name"] == "denied.example.com"
    assert "names.deny" in finding["rule"]
    assert found["plan"] is None


async def test_policy_of_an_unknown_community_is_not_explained(office: Office) -> None:
    """Nor guessed."""
    with pytest.raises(OperationError, match="no community is called 'nowhere'"):
        await office.desk.policy_explain(names=[NAME], community="nowhere")


@pytest.mark.parametrize(
    ("name", "given", "is_allowed"),
    [
        ("a.inside", {}, False),
        ("a.inside", {"address": "192.0.2.7"}, True),
        ("a.inside", {"address": "::ffff:192.0.2.7"}, True),
        ("a.inside", {"address": "2001:DB8::7"}, True),
        ("a.inside", {"address": "203.0.113.9"}, False),
        ("a.badge", {}, False),
        ("a.badge", {"client_names": ["Build.Corp.example"]}, True),
        ("a.badge", {"client_names": ["build.else.example"]}, False),
        ("a.badge", {"client_fingerprint": MARK}, False),
        ("a.marked", {"client_fingerprint": MARK}, True),
        ("a.marked", {"client_fingerprint": ":".join(["AB"] * 32)}, True),
        ("a.marked", {"client_names": ["spiffe://corp.example/Web"]}, True),
        ("a.marked", {"client_names": ["spiffe://corp.example/web"]}, False),
        ("a.ended", {}, True),
        ("a.ended", {"at": "2026-04-01T00:00:00Z"}, False),
        ("a.ended", {"at": "2026-04-01T01:00:00+02:00"}, True),
        ("a.ended", {"at": "2026-04-01T00:00:00Z", "renewal": True}, True),
        ("a.ended", {"at": "2026-04-01T00:00:00Z", "renewal": False}, False),
    ],
)
async def test_every_condition_of_a_rule_can_be_asked_about(
    office: Office, name: str, given: dict[str, Any], is_allowed: bool
) -> None:
    """Network, client certificate, day and renewal, as an order would bring them with it."""
    office.world.policies.set(POLICY + RULES)
    found = await office.desk.policy_explain(names=[f"{name}.example.com"], **given)
    assert found["allowed"] is is_allowed, found["checks"]


async def test_what_was_supposed_is_told(office: Office) -> None:
    """In one spelling each; what was not said is nothing."""
    shown = await office.desk.policy_explain(
        names=[NAME],
        address="2001:DB8::7",
        client_names=["Build.corp.example"],
        at="2026-04-01T02:00:00+02:00",
        renewal=True,
    )
    assert shown["request"] == {
        "address": "2001:db8::7",
        "client_names": ["build.corp.example"],
        "client_fingerprint": None,
        "at": "2026-04-01T00:00:00Z",
        "renewal": True,
    }
    marked = await office.desk.policy_explain(names=[NAME], client_fingerprint=f"sha256:{MARK}")
    assert marked["request"]["client_fingerprint"] == MARK
    plain = await office.desk.policy_explain(names=[NAME])
    assert plain["request"] == {
        "address": None,
        "client_names": [],
        "client_fingerprint": None,
        "at": None,
        "renewal": False,
    }


async def test_renewal_of_an_account_is_known_and_can_be_supposed_away(office: Office) -> None:
    """The store knows what the account holds; the first order is asked about again without."""
    office.world.policies.set(POLICY + RULES)
    name, later = "a.ended.example.com", "2026-04-01T00:00:00Z"
    client = await office.world.client()
    await client.issue(name)
    account = client.account.account_id
    renewed = await office.desk.policy_explain(names=[name], account=account, at=later)
    assert renewed["request"]["renewal"]
    assert renewed["allowed"]
    assert renewed["warnings"]
    first = await office.desk.policy_explain(names=[name], account=account, at=later, renewal=False)
    assert not first["allowed"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "192.0.2.0/24"}, "'192.0.2.0/24' is no IP address"),
        ({"client_fingerprint": "ab12"}, "'ab12' is no SHA-256 fingerprint"),
        ({"at": "last night"}, "'last night' is not an RFC 3339 time"),
        ({"at": "2026-04-01T00:00:00"}, "is not an RFC 3339 time"),
    ],
    ids=["network", "fingerprint", "words", "no zone"],
)
async def test_what_cannot_be_of_a_request_is_refused(
    office: Office, given: dict[str, Any], words: str
) -> None:
    """A guess would explain another order."""
    with pytest.raises(OperationError) as caught:
        await office.desk.policy_explain(names=[NAME], **given)
    assert words in caught.value.message


async def test_order_of_a_node_comes_from_nowhere(nodes: NodeOffice) -> None:
    """The broker makes it, so no address and no client certificate can be supposed of it."""
    world = nodes.scene.world
    enrollment = Enrollment(
        world.store, world.clock, world.settings, sealer=world.sealer, nodes=nodes.scene.store
    )
    planner = Planner(
        policies=world.policies,
        enrollment=enrollment,
        upstreams=FakeUpstreams(world),
        upstream_store=world.store,
        suffixes=FakeSuffixes(),
        clock=world.clock,
    )
    desk = OperatorDesk(replace(nodes.desk._rooms, planner=planner))
    await nodes.scene.join("web-01")
    given: dict[str, Any]
    for given in ({"address": "192.0.2.7"}, {"client_names": ["a.corp.example"]}):
        with pytest.raises(OperationError, match="orders of node 'web-01' have no address"):
            await desk.policy_explain(names=[NAME], node="web-01", **given)
    assert await desk.policy_explain(names=[NAME], node="web-01", renewal=True)
