"""How nodes are let in: by a token, by the key of an identity that has ended, by renewal."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.joining import Joined, token_hash
from broker.issuance.joining_ports import Asking, Grant
from broker.issuance.node_ports import EnrolmentMethod, NodeStatus
from broker.protocol.problems import Problem
from broker.protocol.resources import AccountStatus
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import OPERATOR, AgentKey, NodeWorld
from tests.unit.issuance.test_freezes import freeze


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    """Nodes over a real store."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as made:
            yield made


async def joined(scene: NodeWorld, asking: Asking) -> Joined:
    """Let a node in that has nothing to wait for."""
    outcome = await scene.joining.enrol(asking)
    assert isinstance(outcome, Joined)
    return outcome


# ------------------------------------------------------------------------------------------ tokens


async def test_token_lets_one_node_in_with_an_account_of_its_own(scene: NodeWorld) -> None:
    """Identity, account and node are there at once, and the account's key is the identity's."""
    key = AgentKey()
    token = await scene.token(names=("*.corp.example",), owner="web team", contact="web@x.test")
    made = await joined(scene, scene.asking(key, credential=token))
    node = await scene.store.find_node("web-01")
    assert node == made.node
    assert (node.owner, node.contact, node.names) == ("web team", "web@x.test", ("*.corp.example",))
    assert (node.spki_sha256, node.fingerprint) == (key.spki_sha256, made.identity.fingerprint)
    account = await scene.store.find_account(node.account_id)
    assert account is not None
    assert (account.status, account.community) == (AccountStatus.VALID, "default")
    assert EventKind.NODE_ENROLLED in await scene.kinds()
    assert scene.outcomes == [("token", "enrolled")]


async def test_token_is_kept_as_a_hash_alone(scene: NodeWorld) -> None:
    """Who reads the store can join nothing by it."""
    token = await scene.token()
    (kept,) = await scene.store.list_join_tokens()
    assert kept.token_sha256 == token_hash(token)
    assert token not in repr(kept)


async def test_stolen_token_is_refused_like_an_unknown_one(scene: NodeWorld) -> None:
    """The second key that shows a token learns nothing, and the attempt is on record."""
    token = await scene.token()
    await joined(scene, scene.asking(AgentKey(), credential=token))
    with pytest.raises(Problem) as stolen:
        await scene.joining.enrol(scene.asking(AgentKey(), credential=token))
    with pytest.raises(Problem) as unknown:
        await scene.joining.enrol(scene.asking(AgentKey(), credential="pnst_nothing"))
    assert stolen.value.to_json() == unknown.value.to_json()
    rows = await scene.store.read_events(after=0, limit=100, order_id=None)
    refused = [event for _, event in rows if event.kind is EventKind.ENROLMENT_REFUSED]
    assert [event.data["peer"] for event in refused] == ["192.0.2.7"] * 2
    assert token not in repr(rows)


async def test_same_key_is_answered_again_when_no_answer_reached_it(scene: NodeWorld) -> None:
    """A lost answer costs no token: the node that the key has become is given an identity."""
    key, token = AgentKey(), await scene.token()
    first = await joined(scene, scene.asking(key, credential=token))
    again = await joined(scene, scene.asking(key, credential=token))
    assert again.node.node_id == first.node.node_id
    assert await scene.store.find_node_by_identity(again.identity.fingerprint) is not None


async def test_spent_token_proves_nothing_once_the_identity_has_ended(scene: NodeWorld) -> None:
    """Whoever was away for longer comes by the key, not by a token from long ago."""
    key, token = AgentKey(), await scene.token()
    await joined(scene, scene.asking(key, credential=token))
    scene.later(days=8)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(scene.asking(key, credential=token))


@pytest.mark.parametrize(
    ("wish", "node", "is_in"),
    [
        ({}, "web-01", True),
        ({}, "web-02", False),
        ({"node": None, "node_pattern": "*.farm.example"}, "a.farm.example", True),
        ({"node": None, "node_pattern": "*.farm.example"}, "a.other.example", False),
        ({}, "Web-01", False),
        ({}, "web_01", False),
        ({}, "../web-01", False),
        ({}, "", False),
    ],
    ids=["named", "another", "fits", "fits not", "upper case", "underscore", "path", "empty"],
)
async def test_token_is_for_the_nodes_that_it_names(
    scene: NodeWorld, wish: dict[str, Any], node: str, is_in: bool
) -> None:
    """One node by name, or any one whose name fits."""
    token = await scene.token(**{"node": "web-01", **wish})
    asking = scene.asking(AgentKey(), node=node, credential=token)
    if is_in:
        assert (await joined(scene, asking)).node.name == node
    else:
        with pytest.raises(Problem):
            await scene.joining.enrol(asking)


async def test_expired_and_revoked_tokens_let_nobody_in(scene: NodeWorld) -> None:
    """Both in the words of an unknown one."""
    expired = await scene.token(lifetime=timedelta(hours=1))
    scene.later(hours=2)
    revoked = await scene.token()
    newest = (await scene.store.list_join_tokens())[0]
    await scene.nodes.revoke_token(newest.token_id, OPERATOR)
    for token in (expired, revoked):
        with pytest.raises(Problem, match="not let in"):
            await scene.joining.enrol(scene.asking(AgentKey(), credential=token))


async def test_eight_at_once_with_one_token_make_one_node(scene: NodeWorld) -> None:
    """The store spends a token once; what the others were certified is revoked and believed by
    nobody."""
    token = await scene.token()
    askings = [scene.asking(AgentKey(), credential=token) for _ in range(8)]
    outcomes = await asyncio.gather(
        *(scene.joining.enrol(one) for one in askings), return_exceptions=True
    )
    let_in = [one for one in outcomes if isinstance(one, Joined)]
    assert len(let_in) == 1
    assert all(isinstance(one, Problem) for one in outcomes if one is not let_in[0])
    assert len(await scene.store.list_nodes(status=None, after=None, limit=100)) == 1
    for stray in scene.ca.revoked:
        assert stray != let_in[0].identity.certificate_der
    accounts = await scene.store.list_accounts(community=None, after=None, limit=100)
    assert [one.account_id for one in accounts] == [let_in[0].node.account_id]


async def test_name_of_a_node_is_not_given_twice(scene: NodeWorld) -> None:
    """A token does not take a name away from the node that has it."""
    await scene.join()
    token = await scene.token()
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(scene.asking(AgentKey(), credential=token))


async def test_key_of_a_revoked_node_stays_out(scene: NodeWorld) -> None:
    """A fresh token does not help: the node makes another key, and then it is in."""
    key = AgentKey()
    await scene.join(key=key)
    await scene.nodes.revoke("web-01", OPERATOR)
    with pytest.raises(Problem, match="used before"):
        await scene.joining.enrol(scene.asking(key, credential=await scene.token()))
    assert (await scene.join()).status is NodeStatus.ACTIVE


async def test_ca_that_is_away_leaves_the_token_unspent(scene: NodeWorld) -> None:
    """The agent asks again, and is let in."""
    token = await scene.token()
    scene.ca.is_away = True
    with pytest.raises(Unreachable):
        await scene.joining.enrol(scene.asking(AgentKey(), credential=token))
    scene.ca.is_away = False
    made = await joined(scene, scene.asking(AgentKey(), credential=token))
    assert made.node.name == "web-01"


async def test_method_without_a_voucher_lets_nobody_in(scene: NodeWorld) -> None:
    """What is not configured refuses."""
    with pytest.raises(Problem, match="by kubernetes"):
        await scene.joining.enrol(scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES))


# ------------------------------------------------------------------------------------- credentials


class Pods:
    """A voucher that names the node and lets it take another's place."""

    def __init__(self, *, takes_over: bool, **more: Any) -> None:
        wanted = {"cluster": "prod", "namespace": "shop", "service_account": "web", "pod": "pod-0"}
        self.grant = Grant(
            **{"community": "default", "node": "pod-0", **wanted, **more}, takes_over=takes_over
        )

    async def vouch(self, asking: Asking) -> Grant:
        """Grant."""
        return self.grant


def pods(scene: NodeWorld, *, takes_over: bool, **more: Any) -> None:
    """Have pods let in."""
    scene.joining._vouchers[EnrolmentMethod.KUBERNETES] = Pods(takes_over=takes_over, **more)


async def test_credential_names_the_node(scene: NodeWorld) -> None:
    """What the node calls itself does not count then."""
    pods(scene, takes_over=False)
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES, node="")
    assert (await joined(scene, asking)).node.name == "pod-0"


async def test_pod_that_starts_anew_takes_the_place_of_the_former_one(scene: NodeWorld) -> None:
    """The former one is revoked, whichever key it had."""
    pods(scene, takes_over=True)
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES)
    first = await joined(scene, asking)
    second = await joined(scene, replace(asking, csr_der=AgentKey().csr_der))
    former = await scene.store.find_node(first.node.node_id)
    assert former is not None
    assert former.status is NodeStatus.REVOKED
    assert scene.live.dropped == [former.node_id]
    assert (await scene.nodes.find("pod-0")).node_id == second.node.node_id


async def test_frozen_pod_does_not_shake_it_off_by_a_new_start(scene: NodeWorld) -> None:
    """Else whoever restarts a pod ends a freeze."""
    pods(scene, takes_over=True)
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES)
    holder = (await joined(scene, asking)).node
    place = await freeze(scene.world, FreezeKind.NODE, holder.node_id, name=holder.name)
    anew = replace(asking, csr_der=AgentKey().csr_der)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(anew)
    assert (await scene.nodes.find("pod-0")).node_id == holder.node_id
    await scene.world.freezes.unfreeze(place, OPERATOR)
    assert (await joined(scene, anew)).node.node_id != holder.node_id


@pytest.mark.parametrize(
    "other",
    [{"namespace": "evil"}, {"cluster": "test"}, {"pod": "pod-1"}, {"community": "lab"}],
    ids=lambda other: "".join(other),
)
async def test_pod_takes_no_place_of_another_pod(scene: NodeWorld, other: dict[str, str]) -> None:
    """One of the same name elsewhere is another workload's, however its rule calls both."""
    pods(scene, takes_over=True)
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES)
    holder = await joined(scene, asking)
    pods(scene, takes_over=True, **other)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(replace(asking, csr_der=AgentKey().csr_der))
    assert (await scene.nodes.find("pod-0")).node_id == holder.node.node_id
    assert scene.live.dropped == []


FULL = "pod-0.shop.prod"


@pytest.mark.parametrize(
    ("node", "now", "is_in"),
    [
        (FULL, {}, True),
        (FULL, {"namespace": "evil"}, False),
        ("pod-0.prod", {}, False),
        ("pod-0", {}, False),
    ],
    ids=["its name tells all", "another namespace", "no namespace in it", "pod alone"],
)
async def test_node_from_before_pods_were_kept_gives_way_only_where_its_name_tells_all(
    scene: NodeWorld, node: str, now: dict[str, str], is_in: bool
) -> None:
    """What is unsure is another's."""
    pods(scene, takes_over=True, node=node)
    asking = scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES)
    holder = (await joined(scene, asking)).node
    old = replace(holder, cluster=None, pod=None, pod_uid=None)
    await scene.store.change_node(old, expected=(NodeStatus.ACTIVE,), events=())
    pods(scene, takes_over=True, node=node, **now)
    again = replace(asking, csr_der=AgentKey().csr_der)
    if is_in:
        await joined(scene, again)
    else:
        with pytest.raises(Problem, match="not let in"):
            await scene.joining.enrol(again)
    assert ((await scene.nodes.find(node)).node_id != holder.node_id) is is_in


async def test_pod_takes_no_place_of_a_node_that_came_otherwise(scene: NodeWorld) -> None:
    """A cluster's token does not put out a host that came by a join token."""
    host = await scene.join("pod-0")
    pods(scene, takes_over=True)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(scene.asking(AgentKey(), method=EnrolmentMethod.KUBERNETES))
    assert (await scene.nodes.find("pod-0")).node_id == host.node_id


# ------------------------------------------------------------------------------------------ return


def returning(scene: NodeWorld, key: AgentKey, fingerprint: str | None, **given: object) -> Asking:
    """Return what a node asks whose identity has ended."""
    return scene.asking(key, method=EnrolmentMethod.FORMER, former=fingerprint, **given)


async def test_node_comes_back_by_its_key_after_its_identity_has_ended(scene: NodeWorld) -> None:
    """It is the same node, with another identity; nothing else about it changed."""
    key = AgentKey()
    node = await scene.join(key=key)
    scene.later(days=20)
    back = await joined(scene, returning(scene, key, node.fingerprint))
    assert back.node.node_id == node.node_id
    assert back.identity.not_after > scene.clock.now()
    assert EventKind.NODE_RETURNED in await scene.kinds()


@pytest.mark.parametrize("why", ["too late", "revoked", "another name", "never seen", "no proof"])
async def test_return_is_refused(scene: NodeWorld, why: str) -> None:
    """Each in the same words."""
    key = AgentKey()
    node = await scene.join(key=key)
    fingerprint: str | None = node.fingerprint
    given = {"node": "web-02"} if why == "another name" else {}
    if why == "revoked":
        await scene.nodes.revoke("web-01", OPERATOR)
    if why in ("never seen", "no proof"):
        fingerprint = "00" * 32 if why == "never seen" else None
    scene.later(days=38 if why == "too late" else 20)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(returning(scene, key, fingerprint, **given))


async def test_key_that_was_given_up_brings_nobody_back(scene: NodeWorld) -> None:
    """The thief of an old key finds that the node has another by now."""
    old, new = AgentKey(), AgentKey()
    node = await scene.join(key=old)
    await scene.joining.renew(node, new.csr_der)
    scene.later(days=10)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.enrol(returning(scene, old, node.fingerprint))


# ----------------------------------------------------------------------------------------- renewal


async def test_renewal_keeps_the_node_and_the_earlier_identity_good(scene: NodeWorld) -> None:
    """An answer that is lost leaves the agent with an identity that is still believed."""
    key = AgentKey()
    node = await scene.join(key=key)
    renewed = await scene.joining.renew(node, key.csr_der)
    for fingerprint in (node.fingerprint, renewed.identity.fingerprint):
        found = await scene.store.find_node_by_identity(fingerprint)
        assert found is not None
        assert found.node_id == node.node_id


async def test_renewal_with_another_key_changes_the_account_too(scene: NodeWorld) -> None:
    """The account's key is the identity's, always."""
    node, other = await scene.join(), AgentKey()
    renewed = await scene.joining.renew(node, other.csr_der)
    account = await scene.store.find_account(node.account_id)
    assert account is not None
    assert renewed.node.spki_sha256 == other.spki_sha256
    assert EventKind.ACCOUNT_KEY_CHANGED in await scene.kinds()
    assert await scene.store.is_account_key(account.thumbprint)


async def test_renewal_does_not_take_the_key_of_another_node(scene: NodeWorld) -> None:
    """One key, one node."""
    theirs = AgentKey()
    await scene.join("web-02", theirs)
    node = await scene.join()
    with pytest.raises(Problem, match="used before"):
        await scene.joining.renew(node, theirs.csr_der)


async def test_node_that_was_revoked_meanwhile_is_given_nothing_believed(scene: NodeWorld) -> None:
    """The record says no, whatever the CA has signed."""
    key = AgentKey()
    node = await scene.join(key=key)
    await scene.nodes.revoke("web-01", OPERATOR)
    with pytest.raises(Problem, match="not let in"):
        await scene.joining.renew(node, key.csr_der)
    for identity in scene.ca.issued:
        assert await scene.store.find_node_by_identity(identity.fingerprint) is None


@pytest.mark.parametrize("csr_der", [b"", b"0", b"\x30" * 300, b"x" * 5000], ids=repr)
async def test_unreadable_request_is_refused(scene: NodeWorld, csr_der: bytes) -> None:
    """Before any credential is looked at."""
    with pytest.raises(Problem) as refused:
        await scene.joining.enrol(replace(scene.asking(AgentKey()), csr_der=csr_der))
    assert refused.value.status == 400
