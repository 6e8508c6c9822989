"""What follows a withdrawal, over a real store and a fake CA."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_ports import ApprovalRecord, ApprovalStatus
from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.records import JobKind
from broker.issuance.withdrawals import PRIVILEGE_WITHDRAWN
from broker.protocol.problems import Problem
from broker.protocol.resources import OrderStatus
from tests.fakes.approving import ANNA, BEN, filed, people_policy, say
from tests.fakes.world import Client, World

HOST = "www.people.example.com"
BOARD = "www.board.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people."""
    async with World(tmp_path) as made:
        made.policies.set(people_policy())
        yield made


async def approved(world: World, client: Client, name: str) -> ApprovalRecord:
    """Have a name approved."""
    request = await filed(client, name)
    for actor in (ANNA, BEN):
        request = await say(world, request, "approve", actor, "ticket=7")
        if request.decided_at is not None:
            break
    return request


async def revoked(world: World) -> set[str]:
    """Return the names that were revoked."""
    return {
        name.value
        for one in await world.certificates()
        if one.revoked_at is not None
        for name in one.identifiers
    }


async def test_certificates_are_revoked_where_policy_says_so(world: World) -> None:
    """All of the approval's, and nobody else's; the events tell why."""
    client, other = await world.client(), await world.client()
    request = await approved(world, client, BOARD)
    await approved(world, other, BOARD)
    for _ in range(3):
        await client.issue(BOARD)
    await client.issue("www.example.com")
    kept = await other.issue(BOARD)
    await say(world, request, "withdraw", BEN)
    await world.settle()
    certificates = await world.certificates()
    living = [one for one in certificates if one.revoked_at is None]
    assert len(certificates) - len(living) == 3
    assert {one.account_id for one in living} >= {kept.account_id}
    assert {one.revocation_reason for one in certificates if one.revoked_at} == {
        PRIVILEGE_WITHDRAWN
    }
    asked = await world.events(EventKind.CERTIFICATE_REVOCATION_REQUESTED)
    assert {one.actor.name for one in asked} == {f"approval:{request.approval_id}"}
    assert await world.count(EventKind.APPROVAL_CLEARED) == 1
    assert await world.jobs(JobKind.WITHDRAW) == 0


async def test_certificates_are_kept_where_policy_says_nothing(world: World) -> None:
    """The orders end all the same."""
    client = await world.client()
    request = await approved(world, client, HOST)
    await client.issue(HOST)
    await say(world, request, "withdraw", BEN)
    await world.settle()
    assert await revoked(world) == set()
    assert await world.jobs(JobKind.WITHDRAW) == 0


async def test_certificate_that_is_on_its_way_is_revoked_when_it_comes(world: World) -> None:
    """Its order was with the CA when the approval was withdrawn."""
    client = await world.client()
    request = await approved(world, client, BOARD)
    order = await client.ready(BOARD)
    world.ca.holds_back = True
    await client.finalize(order)
    assert (await world.load(order)).status is OrderStatus.PROCESSING
    await say(world, request, "withdraw", BEN)
    await world.settle()
    assert await world.jobs(JobKind.WITHDRAW) == 1
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID
    while await world.jobs(JobKind.WITHDRAW):
        world.time.go_to_next()
        await world.settle()
    assert await revoked(world) == {BOARD}


async def test_withdrawal_goes_on_after_a_restart_and_while_a_ca_is_away(world: World) -> None:
    """The CA hears of each certificate, once it can be reached."""
    client = await world.client()
    request = await approved(world, client, BOARD)
    for _ in range(2):
        await client.issue(BOARD)
    world.ca.fail("revoke", Unreachable("no answer"), times=2)
    await say(world, request, "withdraw", BEN)
    await world.restart()
    await world.settle()
    while await world.jobs(JobKind.REVOKE):
        world.time.go_to_next()
        await world.settle()
    certificates = await world.certificates()
    assert all(one.revoked_at is not None for one in certificates)
    assert await world.count(EventKind.CERTIFICATE_REVOCATION_REQUESTED) == 2
    assert await world.count(EventKind.CERTIFICATE_REVOKED) == 2


EXEMPT = (
    'names: ["**.board.example.com"]',
    'renewals: exempt\n    names: ["**.board.example.com"]',
)


async def test_renewals_that_were_exempt_are_revoked_with_what_they_go_back_to(
    world: World,
) -> None:
    """Nobody approved them, and all of them came of the approval, which has ended by then."""
    world.policies.set(people_policy(*EXEMPT))
    client, other = await world.client(), await world.client()
    request = await approved(world, client, BOARD)
    await approved(world, other, BOARD)
    kept = await other.issue(BOARD)
    for _ in range(5):
        await client.issue(BOARD)
        world.clock.advance(timedelta(days=70))
    ended = await world.authority.read(request.approval_id)
    assert ended.status is ApprovalStatus.EXPIRED
    await client.issue(BOARD)
    living = [one for one in await world.certificates() if one.not_after > world.clock.now()]
    assert len(living) == 2
    await say(world, request, "withdraw", BEN)
    await world.settle()
    after = {one.certificate_id: one for one in await world.certificates()}
    assert all(after[one.certificate_id].revoked_at is not None for one in living)
    assert after[kept.certificate_id or ""].revoked_at is None
    with pytest.raises(Problem, match="has to be approved by a person"):
        await client.order(BOARD)


async def test_withdrawal_of_what_has_ended_revokes_what_rests_on_it(world: World) -> None:
    """A certificate outlives the time in which its approval opened names."""
    world.policies.set(people_policy("holds: 30d", "holds: 30d\n      on_withdrawal: revoke"))
    client = await world.client()
    request = await approved(world, client, HOST)
    await client.issue(HOST)
    world.clock.advance(timedelta(days=31))
    assert (await world.authority.read(request.approval_id)).status is ApprovalStatus.EXPIRED
    await say(world, request, "withdraw", BEN)
    await world.settle()
    assert await revoked(world) == {HOST}


async def test_request_that_nobody_answered_cannot_be_withdrawn(world: World) -> None:
    """Nothing rests on it; while it waits, whoever asked can be spared the answer."""
    client = await world.client()
    request = await filed(client, HOST)
    world.clock.advance(timedelta(days=8))
    with pytest.raises(Problem, match="was never given, so that nothing rests on it"):
        await say(world, request, "withdraw", BEN)
    again = await say(world, await filed(client, HOST), "withdraw", BEN)
    assert again.status is ApprovalStatus.WITHDRAWN
