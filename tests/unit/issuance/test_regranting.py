"""What a pod's node may be, looked at again when its identity is renewed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.cluster_rules import Cluster
from broker.issuance.joining import Joined
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod, NodeRecord
from broker.issuance.regranting import Regrants
from broker.issuance.vouching import ClusterVoucher
from broker.protocol.problems import Problem
from tests.fakes.cluster_pods import FakePods
from tests.fakes.memory_folder import memory_folder
from tests.fakes.node_world import AgentKey, NodeWorld
from tests.unit.issuance.test_vouching import TOKEN, cluster, rule


class Scene:
    """A pod that was let in, and the cluster that it is of."""

    def __init__(self, world: NodeWorld) -> None:
        self.world = world
        self.key = AgentKey()
        self.pods = FakePods({"postfix-0": {"app": "postfix"}}, {"smtp": {"app": "postfix"}})
        self.rules(rule(names=("{service}.mail.svc", "mail.example"), upstreams=("local",)))

    def rules(self, *rules: object) -> None:
        """Have the cluster's rules be these."""
        made: Cluster = cluster(*rules, pods=self.pods)  # type: ignore[arg-type]  # rules
        joining = self.world.joining
        joining._vouchers[EnrolmentMethod.KUBERNETES] = ClusterVoucher([made])
        joining._regrants = Regrants([made])

    def asking(self) -> Asking:
        """Return the pod that asks to be let in."""
        asked = self.world.asking(self.key, credential=TOKEN, method=EnrolmentMethod.KUBERNETES)
        return replace(asked, node="")

    async def join(self) -> NodeRecord:
        """Let the pod in."""
        made = await self.world.joining.enrol(self.asking())
        assert isinstance(made, Joined)
        return made.node

    async def renew(self) -> NodeRecord:
        """Renew its identity by the record that is kept."""
        node = await self.world.store.find_node("postfix-0.mail.prod")
        assert node is not None
        await self.world.joining.renew(node, self.key.csr_der)
        found = await self.world.store.find_node(node.node_id)
        assert found is not None
        return found


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Nodes over a real store, and one cluster."""
    with memory_folder(tmp_path) as folder:
        async with NodeWorld(folder) as world:
            yield Scene(world)


async def test_node_keeps_where_it_came_from(scene: Scene) -> None:
    """Cluster, pod and upstreams stand with its record."""
    node = await scene.join()
    assert (node.cluster, node.pod, node.upstreams) == ("prod", "postfix-0", ("local",))
    assert node.names == ("smtp.mail.svc", "mail.example")
    assert await scene.world.store.find_node(node.node_id) == node


async def test_service_that_no_longer_selects_it_takes_its_name_away(scene: Scene) -> None:
    """And one that does by now gives it one."""
    await scene.join()
    scene.pods.selectors = {"relay": {"app": "postfix"}}
    assert (await scene.renew()).names == ("relay.mail.svc", "mail.example")


async def test_api_server_that_is_away_takes_nothing(scene: Scene) -> None:
    """A pod that is there goes on; a new one waits."""
    before = await scene.join()
    scene.pods.is_away = True
    assert (await scene.renew()).names == before.names


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: scene.pods.pods.clear(),
        lambda scene: scene.rules(rule(namespaces=("web",))),
        lambda scene: scene.rules(rule(node="{pod}.{namespace}.other")),
        lambda scene: setattr(scene.world.joining, "_regrants", Regrants([])),
    ],
    ids=["pod gone", "rule gone", "another node", "cluster gone"],
)
async def test_identity_of_what_is_nothing_any_more_is_not_renewed(
    scene: Scene, change: object
) -> None:
    """It ends by itself, and what was granted stays as it was until then."""
    node = await scene.join()
    assert callable(change)
    change(scene)
    with pytest.raises(Problem, match="credential is refused"):
        await scene.renew()
    assert await scene.world.store.find_node(node.node_id) == node


async def test_pod_of_which_no_cluster_is_known_enrols_anew(scene: Scene) -> None:
    """Kept before clusters were, or by a broker that does not know them: no rule would limit it."""
    node = await scene.join()
    old = replace(node, cluster=None, pod=None, pod_uid=None, upstreams=None)
    await scene.world.store.change_node(old, expected=(node.status,), events=())
    with pytest.raises(Problem, match="credential is refused"):
        await scene.renew()
    scene.key = AgentKey()
    anew = await scene.join()
    assert (anew.cluster, anew.pod, anew.upstreams) == ("prod", "postfix-0", ("local",))
    assert (await scene.renew()).node_id == anew.node_id != node.node_id


async def test_owner_that_somebody_set_stays(scene: Scene) -> None:
    """The rule names the first owner; people may have named another since."""
    node = await scene.join()
    kept = replace(node, owner="Relay team")
    await scene.world.store.change_node(kept, expected=(node.status,), events=())
    assert (await scene.renew()).owner == "Relay team"


async def test_same_key_that_comes_again_has_what_its_rule_gives_now(scene: Scene) -> None:
    """An agent that enrols anew is asked about anew."""
    await scene.join()
    scene.rules(rule(names=("other.example",)))
    assert (await scene.join()).names == ("other.example",)


async def test_node_of_no_cluster_is_left_alone(scene: Scene) -> None:
    """Hosts have no rules to look at."""
    token = await scene.world.token()
    made = await scene.world.joining.enrol(scene.world.asking(AgentKey(), credential=token))
    assert isinstance(made, Joined)
    assert await Regrants([]).renewed(made.node) == made.node
