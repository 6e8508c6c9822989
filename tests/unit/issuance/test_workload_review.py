"""What a pod would get that is not there yet; and that asking changes nothing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.budgets import Limits
from broker.issuance.cluster_rules import ClusterRule
from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor
from broker.issuance.freeze_ports import FreezeKind, FreezeRecord
from broker.issuance.workload_review import Review, Workload, WorkloadReviews
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from tests.fakes.cluster_pods import FakePods
from tests.fakes.world import World
from tests.unit.issuance.test_vouching import cluster, rule

WEEK = timedelta(days=7)
TRUSTING = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
names:
  allow: ["**.example.com"]
challenges: [http-01, dns-01]
keys: {allow: [ec-p256]}
cap: 90d
profiles:
  server:
    description: TLS servers
    usages: [server-auth]
    upstreams: [{upstream: ca}, {upstream: local}]
default_profile: server
trusted:
  - nodes: ["**.prod"]
    names: ["**.example.com"]
    profiles: [server]
    because: "a cluster's rule says which names they may have"
rules:
  - name: pods
    because: "a public CA counts what a service account orders"
    who: {clusters: [prod]}
    quotas: [{per: workload, limit: 2/7d, upstreams: [ca]}]
"""
WEB = "web.shop.svc.example.com"


class Scene:
    """A broker that knows one cluster."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods = FakePods({}, {"web": {"app": "web"}})
        world.policies.set(TRUSTING)
        world.facts["local"] = replace(world.facts["local"], is_builtin=True)
        self.rules(
            rule(
                namespaces=("shop",),
                service_accounts=("web",),
                names=("{service}.{namespace}.svc.example.com", "{pod}.example.com"),
                upstreams=("ca", "local"),
            )
        )

    def rules(self, *rules: ClusterRule) -> None:
        """Have the cluster's rules be these."""
        self.reviews = WorkloadReviews(
            [cluster(*rules, pods=self.pods)],
            planner=self.world.planner,
            policies=self.world.policies,
            limits=Limits(self.world.quotas, self.world.store, self.world.clock),
            clock=self.world.clock,
            freezes=self.world.freezes,
        )

    async def review(self, **asked: Any) -> Review:
        """Ask about a pod of shop/web."""
        made = {"cluster": "prod", "namespace": "shop", "service_account": "web"}
        return await self.reviews.review(Workload(**(made | {"services": ("web",)} | asked)))


@pytest.fixture
async def scene(world: World) -> Scene:
    """A broker with a public CA and one of its own, and a cluster."""
    return Scene(world)


async def test_pod_gets_the_names_of_its_services(scene: Scene) -> None:
    """Those of its rule are the default, as far as they are known before it has a name."""
    found = await scene.review()
    assert found.is_allowed, found.reasons
    assert (found.names, found.node, found.community) == ((WEB,), "*.shop.prod", "default")
    assert (found.profile, found.upstreams, found.upstream) == ("server", ("ca", "local"), "ca")


async def test_asking_changes_nothing(scene: Scene) -> None:
    """No token is taken, no row kept."""
    before = scene.world.dump()
    for _ in range(5):
        assert (await scene.review()).upstream == "ca"
    assert scene.world.dump() == before


async def test_pod_with_a_name_has_that_of_the_pod_too(scene: Scene) -> None:
    """As a StatefulSet's has; what generateName begins with is no name."""
    found = await scene.review(pod="web-0")
    assert (found.names, found.node) == ((WEB, "web-0.example.com"), "web-0.shop.prod")
    assert (await scene.review(pod="web-7d9f-")).names == (WEB,)


async def test_services_are_asked_for_where_only_labels_are_told(scene: Scene) -> None:
    """Of the API server, as when the pod comes."""
    found = await scene.review(services=None, labels={"app": "web"})
    assert (found.names, scene.pods.asked) == ((WEB,), ["services shop"])
    assert not (await scene.review(services=None, labels={"app": "db"})).is_allowed
    scene.pods.is_away = True
    with pytest.raises(Unreachable):
        await scene.review(services=None, labels={"app": "web"})


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another namespace": ({"namespace": "web"}, "cluster-rule", "no rule of cluster 'prod'"),
    "no Service": ({"services": ()}, "cluster-rule", "no Service selects"),
    "a name of others": ({"names": ("mail.example.com",)}, "eab-names", "is outside the names of"),
    "no name": ({"names": ("x",)}, "names", "expected a fully qualified name"),
    "an unknown profile": ({"profile": "gold"}, "profile-offered", "gold"),
    "too many": ({"names": (WEB,) * 101}, "names", "101 names are asked for"),
}


@pytest.mark.parametrize(("asked", "check", "words"), REFUSED.values(), ids=REFUSED)
async def test_refusal_says_which_check_and_why(
    scene: Scene, asked: dict[str, Any], check: str, words: str
) -> None:
    """The sentence is for the person whose pod it is."""
    found = await scene.review(**asked)
    assert not found.is_allowed
    assert [one.check for one in found.reasons] == [check]
    assert words in found.reasons[0].detail


async def test_refusal_by_a_rule_names_its_line(scene: Scene) -> None:
    """So that whoever owns the policy finds it."""
    text = TRUSTING + "  - {name: none, because: no, names: ['web.**'], refuse: 'not yet'}\n"
    scene.world.policies.set(text.replace("'web.**'", "'**.svc.example.com'"))
    (reason,) = (await scene.review()).reasons
    assert "not yet" in reason.detail
    assert reason.rule is not None
    assert (reason.rule.source, reason.rule.line) == ("default.yaml", text.count("\n"))


async def test_budget_is_told_and_the_next_ca_is_taken(scene: Scene) -> None:
    """Where the public CA's figure would be passed, the built-in one serves."""
    scene.world.limits["ca"] = (PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, WEEK)),)
    (budget, *_) = (await scene.review()).budgets
    assert (budget.upstream, budget.limit, budget.used) == ("ca", "1/7d", 0)
    robot = await scene.world.client()
    await robot.issue(WEB)
    found = await scene.review()
    assert (found.is_allowed, found.upstream) == (True, "local")
    spent = next(one for one in found.budgets if one.would_exceed)
    assert (spent.used, spent.limit) == (1, "1/7d")
    assert "limited to 1/7d and none is left" in spent.detail


async def test_pod_that_no_ca_has_room_for_is_refused_with_the_figure(scene: Scene) -> None:
    """Where policy leaves no other CA."""
    scene.world.limits["ca"] = (PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, WEEK)),)
    scene.world.policies.set(TRUSTING.replace(", {upstream: local}", ""))
    await (await scene.world.client()).issue(WEB)
    found = await scene.review()
    assert (found.is_allowed, found.upstream) == (False, None)
    assert [one.check for one in found.reasons] == ["budget"]
    assert "limited to 1/7d" in found.reasons[0].detail


async def test_public_ca_without_a_budget_per_workload_is_not_taken(scene: Scene) -> None:
    """A policy that lost its quota costs nobody's limits."""
    scene.world.policies.set(TRUSTING[: TRUSTING.index("rules:")])
    found = await scene.review()
    assert (found.is_allowed, found.upstreams) == (True, ("local",))


async def test_public_ca_that_the_rule_does_not_name_is_not_taken(scene: Scene) -> None:
    """Pods have the built-in one unless their cluster's rule says more."""
    scene.rules(
        rule(namespaces=("shop",), service_accounts=("web",), names=(WEB,), upstreams=("local",))
    )
    found = await scene.review()
    assert (found.upstreams, found.upstream) == (("local",), "local")


async def test_what_no_pod_can_wait_for_refuses(scene: Scene) -> None:
    """A person's word, a challenge that no pod answers, the end of a freeze."""
    approved = TRUSTING + "  - {name: ask, because: yes, approval: {people: 1}}\n"
    scene.world.policies.set(approved)
    assert [one.check for one in (await scene.review()).reasons] == ["approval"]
    scene.world.policies.set(TRUSTING.replace('"**.prod"', '"**.test"'))
    assert [one.check for one in (await scene.review()).reasons] == ["control"]
    scene.world.policies.set(TRUSTING)
    await scene.world.freezes.freeze(
        FreezeRecord(
            kind=FreezeKind.COMMUNITY,
            community="default",
            subject="default",
            name="default",
            at=scene.world.clock.now(),
            actor="operator:anna",
            reason="",
        ),
        Actor("operator:anna"),
    )
    assert "frozen" in [one.check for one in (await scene.review()).reasons]


async def test_names_that_hang_on_the_pods_name_cannot_be_told(scene: Scene) -> None:
    """A rule with nothing else gives a pod nothing before it has one."""
    scene.rules(rule(namespaces=("shop",), service_accounts=("web",), names=("{pod}.example.com",)))
    assert "hang on the name of the pod" in (await scene.review()).reasons[0].detail
    assert (await scene.review(pod="web-0")).is_allowed


async def test_rule_without_names_wants_some(scene: Scene) -> None:
    """What policy says is no list of names."""
    scene.rules(rule(namespaces=("shop",), service_accounts=("web",), names=()))
    assert "gives none without a wildcard" in (await scene.review()).reasons[0].detail
    assert (await scene.review(names=(WEB,))).is_allowed


async def test_stranger_of_a_cluster(scene: Scene) -> None:
    """Nobody asks about a cluster that is not there."""
    assert scene.reviews.communities_of("prod") == {"default"}
    assert scene.reviews.communities_of("nowhere") == frozenset()
    with pytest.raises(KeyError):
        await scene.review(cluster="nowhere")
