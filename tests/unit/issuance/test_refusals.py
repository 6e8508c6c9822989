"""What policy refused is kept, with the check and the rule that refused it."""

from datetime import timedelta

import pytest

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.refusals import PER_MINUTE, Refusals
from broker.policy.decisions import Finding, NewOrderDecision, RuleRef
from broker.protocol.problems import ProblemType
from tests.fakes.clock import START
from tests.fakes.world import World, dns

DECISION = NewOrderDecision(
    findings=(
        Finding(
            check="name-denied",
            type=ProblemType.REJECTED_IDENTIFIER,
            sentence="'a.example.com' is denied",
            identifier=dns("a.example.com"),
            rule=RuleRef("default.yaml", 7, "names.deny[0]"),
        ),
        Finding(check="key-weak", type=ProblemType.BAD_PUBLIC_KEY, sentence="key is weak"),
    ),
    checks=("name-denied", "key-weak"),
    policy_sha256="ab" * 32,
)


async def refused(world: World, **where: str) -> Event:
    """Record the decision and return the event."""
    client = await world.client()
    before = world.store.stats().durable_commits
    await Refusals(world.store, world.clock).record(client.account, DECISION, **where)  # type: ignore[arg-type]
    assert world.store.stats().durable_commits == before, "nobody waits for the disk"
    (event,) = await world.events(EventKind.REQUEST_REFUSED)
    assert (event.at, event.community) == (START, "default")
    assert event.actor == Actor(f"account:{client.account.account_id}")
    return event


@pytest.mark.parametrize(
    "where",
    [{"resource": "new-order"}, {"resource": "finalize", "order_id": "o1"}],
    ids=["newOrder", "finalize"],
)
async def test_every_finding_is_kept(world: World, where: dict[str, str]) -> None:
    """By check, type, sentence, name and rule, with the policy that they came from."""
    event = await refused(world, **where)
    assert event.order_id == where.get("order_id")
    assert event.data == {
        "resource": where["resource"],
        "policy_sha256": "ab" * 32,
        "findings": [
            {
                "check": "name-denied",
                "type": "rejectedIdentifier",
                "sentence": "'a.example.com' is denied",
                "identifier": "a.example.com",
                "rule": "default.yaml:7",
            },
            {
                "check": "key-weak",
                "type": "badPublicKey",
                "sentence": "key is weak",
                "identifier": None,
                "rule": None,
            },
        ],
    }


async def test_flood_that_ends_is_told_by_itself(world: World) -> None:
    """Once, and not at all where nothing was left out."""
    client = await world.client()
    refusals = Refusals(world.store, world.clock)
    for _ in range(PER_MINUTE + 7):
        await refusals.record(client.account, DECISION, resource="new-order")
    for _ in range(2):
        await refusals.tell_left_out()
    (told,) = await world.events(EventKind.REFUSALS_LEFT_OUT)
    assert told.data == {"left_out": 7, "by": "policy"}
    world.clock.advance(timedelta(minutes=1))
    await refusals.record(client.account, DECISION, resource="new-order")
    last = (await world.events(EventKind.REQUEST_REFUSED))[-1]
    assert "left_out_before" not in last.data


async def test_flood_of_refusals_does_not_fill_the_store(world: World) -> None:
    """Past a number a minute they are only counted; the next one that is kept tells how many."""
    client = await world.client()
    refusals = Refusals(world.store, world.clock)
    for _ in range(PER_MINUTE + 7):
        await refusals.record(client.account, DECISION, resource="new-order")
    assert await world.count(EventKind.REQUEST_REFUSED) == PER_MINUTE
    world.clock.advance(timedelta(minutes=1))
    await refusals.record(client.account, DECISION, resource="new-order")
    last = (await world.events(EventKind.REQUEST_REFUSED))[-1]
    assert last.data["left_out_before"] == 7
