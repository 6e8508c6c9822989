"""Who was away for too long to come back, and who may take the place."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.issuance.events import EventKind
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.joining import Joined
from broker.issuance.joining_ports import Asking, Grant
from broker.issuance.node_ports import EnrolmentMethod, EnrolmentRequest, NodeRecord, NodeStatus
from broker.issuance.nodes import Approval
from broker.protocol.problems import Problem
from broker.protocol.resources import AccountStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import (
    IDENTITY_LIFETIME,
    OPERATOR,
    RETURN_WITHIN,
    AgentKey,
    NodeWorld,
)
from tests.unit.issuance.test_freezes import freeze

NAME = "web-01.farm.example"

LATE = IDENTITY_LIFETIME + RETURN_WITHIN + timedelta(seconds=1)
"""When a node that came now is too late, by the second."""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    """Nodes over a real store."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as made:
            yield made


class Certificates:
    """A voucher for the client certificate that names the node."""

    async def vouch(self, asking: Asking) -> Grant:
        """Grant."""
        return Grant(community="default", node=NAME, is_for_node=True)


async def shown(scene: NodeWorld, key: AgentKey, method: EnrolmentMethod) -> Asking:
    """Return what a stranger asks whom this method lets be the node."""
    asking = scene.asking(key, node=NAME, method=method)
    if method is EnrolmentMethod.TOKEN:
        return replace(asking, credential=await scene.token(NAME))
    if method is EnrolmentMethod.CERTIFICATE:
        scene.joining._vouchers[method] = Certificates()
        return asking
    request = await scene.joining.enrol(asking)
    assert isinstance(request, EnrolmentRequest)
    await scene.nodes.approve(request.request_id, Approval(community="default"), OPERATOR)
    return asking


async def is_in_place(scene: NodeWorld, holder: NodeRecord) -> bool:
    """Return whether the node has its name, and nobody has put it out."""
    found = await scene.nodes.find(NAME)
    assert scene.live.dropped == []
    assert scene.ca.revoked == []
    return found.node_id == holder.node_id


WAYS = [EnrolmentMethod.TOKEN, EnrolmentMethod.CERTIFICATE, EnrolmentMethod.APPROVAL]


@pytest.mark.parametrize("method", WAYS, ids=str)
async def test_place_of_one_away_for_too_long_is_taken(
    scene: NodeWorld, method: EnrolmentMethod
) -> None:
    """By whoever is let in under this very name; the former node is revoked, with its account."""
    holder = await scene.join(NAME)
    scene.clock.advance(LATE)
    key = AgentKey()
    joined = await scene.joining.enrol(await shown(scene, key, method))
    assert isinstance(joined, Joined)
    assert (await scene.nodes.find(NAME)).node_id == joined.node.node_id != holder.node_id
    former = await scene.nodes.find(holder.node_id)
    account = await scene.store.find_account(holder.account_id)
    assert account is not None
    assert (former.status, account.status) == (NodeStatus.REVOKED, AccountStatus.DEACTIVATED)
    assert scene.live.dropped == [holder.node_id]
    came, went = EventKind.NODE_ENROLLED, EventKind.NODE_REVOKED
    assert [one for one in await scene.kinds() if one in (came, went)] == [came, went, came]


@pytest.mark.parametrize("method", [EnrolmentMethod.TOKEN, EnrolmentMethod.CERTIFICATE], ids=str)
async def test_place_is_kept_to_the_last_second(scene: NodeWorld, method: EnrolmentMethod) -> None:
    """As long as its key brings it back, a stolen token does not put it out."""
    key = AgentKey()
    holder = await scene.join(NAME, key)
    scene.clock.advance(LATE - timedelta(seconds=1))
    asking = await shown(scene, AgentKey(), method)
    with capture_logs() as lines, pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(asking)
    assert await is_in_place(scene, holder)
    until = (holder.identity_not_after + RETURN_WITHIN).isoformat()
    told = f"held by node {holder.node_id} until {until}; revoke it first"
    assert (NAME, told) in [(line.get("node"), line.get("reason")) for line in lines]
    former = scene.asking(key, node=NAME, method=EnrolmentMethod.FORMER, former=holder.fingerprint)
    assert isinstance(await scene.joining.enrol(former), Joined)


async def hold(scene: NodeWorld, holder: NodeRecord, why: str) -> Asking:
    """Return what a stranger asks that does not get the place, for this reason."""
    wish: dict[str, object] = {"node": NAME}
    if why == "pattern":
        wish = {"node": None, "node_pattern": "*.farm.example"}
    elif why == "community":
        wish["community"] = "lab"
    elif why == "drained":
        await scene.nodes.drain(NAME, OPERATOR)
    else:
        await freeze(scene.world, FreezeKind.NODE, holder.node_id, name=NAME)
    token = await scene.token(**wish)  # type: ignore[arg-type]  # what a wish has
    return scene.asking(AgentKey(), node=NAME, credential=token)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("pattern", "what was shown was not made for this name"),
        ("community", "of community 'default'"),
        ("drained", "which is drained"),
        ("frozen", "which is frozen"),
    ],
    ids=["pattern", "community", "drained", "frozen"],
)
async def test_place_of_one_away_for_too_long_is_kept(
    scene: NodeWorld, why: str, said: str
) -> None:
    """Until a person revokes it, as the log says; the token is not spent by the attempt."""
    holder = await scene.join(NAME)
    scene.clock.advance(LATE)
    asking = await hold(scene, holder, why)
    with capture_logs() as lines, pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(asking)
    assert await is_in_place(scene, holder)
    reasons = [str(line.get("reason")) for line in lines]
    assert any(said in one and one.endswith("revoke it first") for one in reasons)
    await scene.nodes.revoke(NAME, OPERATOR)
    assert isinstance(await scene.joining.enrol(asking), Joined)


@pytest.mark.parametrize("is_revoked", [False, True], ids=["late", "revoked"])
async def test_former_key_stays_out(scene: NodeWorld, *, is_revoked: bool) -> None:
    """Whatever it shows with it; nobody loses a place to a newcomer that is not let in."""
    key = AgentKey()
    holder = await scene.join(NAME, key)
    if is_revoked:
        await scene.nodes.revoke(NAME, OPERATOR)
    scene.clock.advance(LATE)
    with pytest.raises(Problem, match="used before"):
        await scene.joining.enrol(await shown(scene, key, EnrolmentMethod.TOKEN))
    if not is_revoked:
        assert await is_in_place(scene, holder)


async def test_of_several_at_once_one_takes_the_place(scene: NodeWorld) -> None:
    """Each with a token of its own; the others are refused in the usual words."""
    await scene.join(NAME)
    scene.clock.advance(LATE)
    askings = [await shown(scene, AgentKey(), EnrolmentMethod.TOKEN) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(scene.joining.enrol(one) for one in askings), return_exceptions=True
    )
    (joined,) = [one for one in outcomes if isinstance(one, Joined)]
    assert (await scene.nodes.find(NAME)).node_id == joined.node.node_id
    refused = [one for one in outcomes if isinstance(one, Problem)]
    assert ["not let in" in one.detail for one in refused] == [True] * 3
