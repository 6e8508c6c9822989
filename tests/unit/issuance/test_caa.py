"""CAA at finalize: nothing, a report beside the order, or a decision before it."""

from typing import Any

import pytest

from broker.issuance.events import EventKind
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_caa import OURS
from tests.fakes.stall import Stall
from tests.fakes.world import World

NAME = "www.example.com"
OTHER = "mail.example.com"


@pytest.fixture
def caa(world: World) -> Any:
    """A CA that has a name, and records that keep it out of one of two names."""
    world.caa.identities["ca"] = OURS
    world.caa.records = {NAME: ["other.example.org"], OTHER: [OURS]}
    return world.caa


def rule(world: World, mode: str) -> None:
    """Put a policy in force that says what CAA means."""
    world.policies.change("default_profile: server\n", f"default_profile: server\ncaa: {mode}\n")


async def told(world: World) -> dict[str, str]:
    """Return the outcome for each name, of the one event."""
    (event,) = await world.events(EventKind.CAA_LOOKED_AT)
    return {one["name"]: one["outcome"] for one in event.data["names"]}  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------- report


async def test_report_refuses_nothing_and_says_what_it_saw(world: World, caa: Any) -> None:
    """The certificate is issued; the event names the order, its upstream and each name."""
    client = await world.client()
    order = await client.issue(NAME, OTHER)
    await world.settle()
    assert await told(world) == {NAME: "forbids", OTHER: "permits"}
    (event,) = await world.events(EventKind.CAA_LOOKED_AT)
    assert (event.order_id, event.upstream) == (order.order_id, "ca")
    assert caa.looked == [("default", [NAME, OTHER])]
    assert await world.jobs() == 0


async def test_report_is_the_default(world: World, caa: Any) -> None:
    """Whoever says nothing is told, and nobody is refused."""
    del caa
    assert str(world.policies.current("default").caa) == "report"


async def test_report_keeps_no_client_waiting(world: World, caa: Any) -> None:
    """The order is valid while a resolver still hangs; the report comes when it answers."""
    caa.stall = stall = Stall(is_after=False)
    client = await world.client()
    order = await client.issue(NAME)
    assert order.status is OrderStatus.VALID
    await stall.reached.wait()
    assert await world.count(EventKind.CAA_LOOKED_AT) == 0
    stall.release()
    await world.settle()
    assert await told(world) == {NAME: "forbids"}


async def test_report_outlives_a_restart(world: World, caa: Any) -> None:
    """Its job is written with the claim."""
    caa.stall = stall = Stall(is_after=False)
    client = await world.client()
    await client.issue(NAME)
    await stall.reached.wait()
    await world.stop()
    caa.stall = None
    await world.start()
    await world.dispatcher.run_due()
    await world.settle()
    assert await told(world) == {NAME: "forbids"}


async def test_failed_lookup_is_reported_and_no_more(world: World, caa: Any) -> None:
    """Also when it is the CA's identity that cannot be had."""
    caa.records = {NAME: "no resolver answers: SERVFAIL"}
    client = await world.client()
    await client.issue(NAME)
    await world.settle()
    assert await told(world) == {NAME: "failed"}
    caa.is_away = True
    await client.issue(OTHER)
    await world.settle()
    events = await world.events(EventKind.CAA_LOOKED_AT)
    assert "is not known: the CA is away" in str(events[1].data)


async def test_upstream_that_nobody_can_name_is_not_reported(world: World, caa: Any) -> None:
    """No record could name it, so there is nothing to tell, and no resolver is asked."""
    caa.identities.clear()
    client = await world.client()
    await client.issue(NAME)
    await world.settle()
    assert (await world.count(EventKind.CAA_LOOKED_AT), caa.looked) == (0, [])


# ----------------------------------------------------------------------------------------- ignore


async def test_ignore_asks_nobody(world: World, caa: Any) -> None:
    """For networks without a way to ask."""
    rule(world, "ignore")
    client = await world.client()
    await client.issue(NAME)
    await world.settle()
    assert (await world.count(EventKind.CAA_LOOKED_AT), caa.looked) == (0, [])


# ----------------------------------------------------------------------------------------- refuse


async def test_refuse_ends_in_a_problem_for_each_name(world: World, caa: Any) -> None:
    """403 caa, before anything is finalized upstream; the order stays ready for better records."""
    rule(world, "refuse")
    client = await world.client()
    order = await client.ready(NAME, OTHER)
    await world.settle()
    with pytest.raises(Problem) as caught:
        await client.finalize(order)
    problem = caught.value
    assert (problem.type, problem.status) == (ProblemType.CAA, 403)
    assert [str(one.identifier.value) for one in problem.subproblems if one.identifier] == [NAME]
    assert "it allows other.example.org" in problem.detail
    assert (await client.read(order)).status is OrderStatus.READY
    assert not [call for call in world.ca.calls if "finalize" in str(call)]
    assert await world.count(EventKind.REQUEST_REFUSED) == 1

    caa.records[NAME] = [OURS]
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert await told(world) == {NAME: "permits", OTHER: "permits"}


@pytest.mark.parametrize(
    ("records", "is_refused"),
    [
        pytest.param({}, False, id="none"),
        pytest.param({NAME: [OURS]}, False, id="named"),
        pytest.param({NAME: [";"]}, True, id="nobody"),
        pytest.param({NAME: "no resolver answers: SERVFAIL"}, True, id="failed"),
        pytest.param({NAME: [f"{OURS}; validationmethods=dns-01"]}, False, id="our-solver"),
        pytest.param({NAME: [f"{OURS}; validationmethods=http-01"]}, True, id="another-method"),
        pytest.param(
            {NAME: [f"{OURS}; accounturi=https://ca.example.net/acct/1"]}, False, id="our-account"
        ),
        pytest.param(
            {NAME: [f"{OURS}; accounturi=https://ca.example.net/acct/2"]}, True, id="other-account"
        ),
    ],
)
async def test_refuse_goes_by_what_the_ca_would_see(
    world: World, caa: Any, records: dict[str, Any], is_refused: bool
) -> None:
    """Our account there, the way in which it validates us, and no answer is no."""
    rule(world, "refuse")
    caa.records = records
    client = await world.client()
    order = await client.ready(NAME)
    if not is_refused:
        assert (await client.finalize(order)).status is OrderStatus.VALID
        return
    with pytest.raises(Problem) as caught:
        await client.finalize(order)
    assert caught.value.type is ProblemType.CAA


async def test_refuse_without_an_identity_refuses_what_is_restricted(
    world: World, caa: Any
) -> None:
    """No record can mean a CA that nobody can name."""
    rule(world, "refuse")
    caa.identities.clear()
    client = await world.client()
    with pytest.raises(Problem):
        await client.finalize(await client.ready(OTHER))
    assert (await client.issue("free.example.com")).status is OrderStatus.VALID


async def test_refuse_waits_for_the_identity_of_the_ca(world: World, caa: Any) -> None:
    """While it cannot be had, nothing is finalized."""
    rule(world, "refuse")
    caa.is_away = True
    client = await world.client()
    order = await client.ready(OTHER)
    with pytest.raises(Problem, match="the CA is away"):
        await client.finalize(order)
    caa.is_away = False
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_of_the_built_in_ca_the_requester_is_the_account(world: World, caa: Any) -> None:
    """Its account is our account, and what it proved by is the method."""
    world.policies.change("default_profile: server\n", "default_profile: private\ncaa: refuse\n")
    caa.identities["local"] = OURS
    client = await world.client()
    own = f"https://acme.corp.example/account/{client.account.account_id}"
    caa.records = {
        NAME: [f"{OURS}; accounturi={own}; validationmethods=http-01"],
        OTHER: [f"{OURS}; validationmethods=dns-01"],
    }
    assert (await client.issue(NAME)).status is OrderStatus.VALID
    with pytest.raises(Problem, match="validation by dns-01 alone"):
        await client.finalize(await client.ready(OTHER))
    stranger = await world.client()
    with pytest.raises(Problem, match="it allows the account"):
        await stranger.finalize(await stranger.ready(NAME))
