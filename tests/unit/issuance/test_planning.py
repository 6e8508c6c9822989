"""A decision becomes upstream work that the right orders share, and no others."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken
from broker.issuance.origins import Origin
from broker.issuance.planning import decided_rule, decision_facts
from broker.issuance.records import JobKind, OrderRecord, WorkStatus
from broker.policy.decisions import CapPlan, Lever, NewOrderDecision, Requirement, RuleRef
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.fakes.clock import START
from tests.fakes.world import Client, World, dns

DAY = timedelta(days=1)
RULE = RuleRef("policies/default.yaml", 12, "profiles.server.cap")


def plan(**changes: object) -> CapPlan:
    """Return a plan that asks the CA for an end."""
    made = CapPlan(
        lever=Lever.ASK,
        cap=90 * DAY,
        rule=RULE,
        upstream="ca",
        upstream_profile=None,
        ask_not_after=True,
        tolerance=timedelta(seconds=60),
        is_ct_logged=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def client(world: World) -> Client:
    """An account."""
    return await world.client()


@pytest.fixture
async def order(client: Client) -> OrderRecord:
    """An order for two names."""
    return await client.order("b.example.com", "a.example.com")


# --------------------------------------------------------------------------------------------- work


async def test_work_is_an_intent_that_nobody_has_taken(world: World, order: OrderRecord) -> None:
    """It asks for the cap's end, counted from now, and is opened ahead of finalize."""
    made = world.planner.plan_work(order, plan())
    assert made.work.status is WorkStatus.INTENDED
    assert (made.work.taken_by, made.work.order_url, made.work.is_sent) == (None, None, False)
    assert made.work.identifiers == (dns("a.example.com"), dns("b.example.com"))
    assert made.work.not_after == START + 90 * DAY
    assert made.is_prepared
    assert made.attached().work == made.work
    assert [one.kind for one in made.attached().jobs] == [JobKind.PREPARE]
    taken = world.planner.plan_work(order, plan(), taken_by=order.order_id)
    assert taken.work.taken_by == order.order_id


async def test_local_work_is_not_begun_early(world: World, order: OrderRecord) -> None:
    """It costs nothing at finalize, so nothing is written for an order that never comes to it."""
    made = world.planner.plan_work(order, plan(upstream="local"))
    assert not made.is_prepared
    assert made.attached().work is None
    assert made.attached().jobs == ()


async def test_end_that_is_not_asked_for_is_not_in_the_work(
    world: World, order: OrderRecord
) -> None:
    """A CA that refuses notAfter is not sent one; work that asks for none never grows stale."""
    made = world.planner.plan_work(order, plan(ask_not_after=False, lever=Lever.PROFILE))
    assert made.work.not_after is None
    assert made.since is None


async def test_end_of_the_client_is_asked_for_as_it_is(world: World, client: Client) -> None:
    """It is absolute, so work that asks for it never grows stale."""
    end = START + 10 * DAY
    order = await client.order("www.example.com", not_after=end)
    made = world.planner.plan_work(order, plan())
    assert made.work.not_after == end
    assert made.since is None


async def test_old_work_is_not_taken(world: World, order: OrderRecord) -> None:
    """Its end was counted from a tenth of the cap ago."""
    assert world.planner.plan_work(order, plan()).since == START - 9 * DAY


async def test_upstream_that_is_not_configured_is_broken(world: World, order: OrderRecord) -> None:
    """Nothing can be planned there."""
    with pytest.raises(Broken, match="'gone'"):
        world.planner.plan_work(order, plan(upstream="gone"))


async def test_work_is_shared_by_what_the_ca_is_asked_for(world: World, client: Client) -> None:
    """Same names in any order, same upstream, profile and end: one key; all else, another."""
    keys = {}
    first = await client.order("a.example.com", "b.example.com")
    turned = await (await world.client()).order("b.example.com", "a.example.com")
    for name, order, changes in (
        ("same", first, {}),
        ("same names turned, other account", turned, {}),
        ("other names", await client.order("a.example.com"), {}),
        ("wildcard", await client.order("*.a.example.com", "b.example.com"), {}),
        ("other upstream", first, {"upstream": "local"}),
        ("profile", first, {"upstream_profile": "short"}),
        ("other cap", first, {"cap": 30 * DAY}),
        ("no end", first, {"ask_not_after": False}),
        (
            "named end",
            await client.order("a.example.com", "b.example.com", not_after=START + DAY),
            {},
        ),
        ("lab", await (await world.client("lab")).order("a.example.com", "b.example.com"), {}),
    ):
        keys[name] = world.planner.plan_work(order, plan(**changes)).work.work_key
    assert keys["same"] == keys.pop("same names turned, other account")
    assert len(set(keys.values())) == len(keys)


# ------------------------------------------------------------------------------------------- facts


async def test_facts_are_of_now(world: World, client: Client) -> None:
    """What is suspended, ready and public is looked up for each decision."""
    facts = await world.planner.facts(
        client.account,
        identifiers=(dns("*.co.example.com"), dns("www.example.com")),
        profile=None,
        not_before=None,
        not_after=None,
    )
    assert facts.at == START
    assert facts.public_suffixes == frozenset({"co.example.com"})
    assert [one.name for one in facts.upstreams] == ["ca", "local"]
    assert facts.suspended == frozenset()
    assert facts.account_thumbprint == client.account.thumbprint


async def test_public_suffixes_are_looked_up_behind_the_at(world: World, client: Client) -> None:
    """Of e-mail as of names; an IP address has none."""
    facts = await world.planner.facts(
        client.account,
        identifiers=(
            Identifier(IdentifierType.EMAIL, "jane@co.example.com"),
            Identifier(IdentifierType.EMAIL, "jane@www.co.example.com"),
            Identifier(IdentifierType.IP, "2001:db8::1"),
        ),
        profile=None,
        not_before=None,
        not_after=None,
    )
    assert facts.public_suffixes == frozenset({"co.example.com"})


async def test_who_asks_and_from_where(world: World, client: Client) -> None:
    """The account and its binding from the store, the address from the skin."""
    facts = await world.planner.facts(
        client.account,
        identifiers=(dns("www.example.com"),),
        profile=None,
        not_before=None,
        not_after=None,
        origin=Origin(address="192.0.2.7"),
    )
    assert facts.requester.account_id == client.account.account_id
    assert facts.requester.address == "192.0.2.7"
    assert not facts.is_unchanged_renewal


async def test_an_order_for_what_the_account_has_is_a_renewal(world: World) -> None:
    """Of exactly these names, under this profile, also when the old one ended some days ago."""
    client = await world.client()
    await client.issue("www.example.com")

    async def is_renewal(*names: str, profile: str | None = None) -> bool:
        facts = await world.planner.facts(
            client.account,
            identifiers=tuple(dns(name) for name in names),
            profile=profile,
            not_before=None,
            not_after=None,
        )
        return facts.is_unchanged_renewal

    assert await is_renewal("www.example.com")
    assert not await is_renewal("www.example.com", profile="other")
    assert not await is_renewal("www.example.com", "a.example.com")
    await world.let_pass(timedelta(days=95))
    assert await is_renewal("www.example.com")
    await world.let_pass(timedelta(days=60))
    assert not await is_renewal("www.example.com")


async def test_order_keeps_the_facts_of_its_decision(world: World) -> None:
    """Policy's hash, lever, cap and its rule, and which rule granted which name."""
    robot = await world.robot()
    order = await robot.order("r1.robots.example.com")
    document = world.policies.current("default")
    assert order.decision["policy_sha256"] == document.sha256
    assert order.decision["lever"] == "ask"
    assert order.decision["cap"] == "90d"
    assert order.decision["tolerance_seconds"] == 60
    assert order.decision["upstream"] == "ca"
    granted = order.decision["granted"]
    assert isinstance(granted, dict)
    assert granted["r1.robots.example.com"].startswith("default.yaml:")
    assert decided_rule(order.decision) == document.cap_rule


def test_what_needs_a_challenge_is_not_among_what_was_granted() -> None:
    """Only a rule grants."""
    decision = NewOrderDecision(
        findings=(),
        checks=("x",),
        policy_sha256="00",
        requirements={
            dns("a.example.com"): Requirement(challenges=(ChallengeType.DNS_01,)),
            dns("b.example.com"): Requirement(challenges=(), granted_by=RULE),
        },
    )
    kept = decision_facts(decision, plan(), START)
    assert kept["granted"] == {"b.example.com": "policies/default.yaml:12"}


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        RuleRef("a folder/with: colons.yaml", 3, "caps[0].names[1]"),
        RuleRef("x.yaml", 1, ""),
    ],
    ids=str,
)
def test_rule_of_the_cap_comes_back(rule: RuleRef) -> None:
    """The gate names the rule that set the cap, not the one that would set it now."""
    decision = NewOrderDecision(findings=(), checks=(), policy_sha256="00")
    assert decided_rule(decision_facts(decision, plan(rule=rule), START)) == rule


@pytest.mark.parametrize("facts", [{}, {"cap_rule": "nonsense"}, {"cap_rule": 7}], ids=str)
def test_facts_without_a_rule_have_none(facts: dict[str, object]) -> None:
    """Then the rule that would set the cap now is named."""
    assert decided_rule(facts) is None
