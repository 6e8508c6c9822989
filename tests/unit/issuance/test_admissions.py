"""Accounts that people let in, over a real store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.issuance.approval_gate import LIMITS
from broker.issuance.approval_ports import (
    AnswerWord,
    ApprovalKind,
    ApprovalRecord,
    ApprovalStatus,
)
from broker.issuance.events import EventKind
from broker.issuance.minting import Minting
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.records import AccountRecord
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewAccount
from tests.fakes.approving import ANNA, BEN, CARL, say, waiting
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World, jwk_of, new_key

ACCOUNTS = """\
accounts:
  approval:
    holds: 30d
    answer_within: 7d
"""
HERE = Origin(address="192.0.2.7")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people for accounts."""
    async with World(tmp_path) as made:
        made.policies.set(POLICY + ACCOUNTS)
        yield made


async def register(
    world: World, key: ec.EllipticCurvePrivateKey, origin: Origin = HERE
) -> AccountRecord:
    """Register without a binding."""
    request = NewAccount(contacts=("mailto:ben@corp.example",))
    account, _ = await world.accounts.register("default", jwk_of(key), request, None, origin=origin)
    return account


async def asked(world: World, key: ec.EllipticCurvePrivateKey) -> ApprovalRecord:
    """Ask for an account, and return the request."""
    with pytest.raises(Problem) as refused:
        await register(world, key)
    assert refused.value.type is ProblemType.USER_ACTION_REQUIRED
    assert refused.value.instance is not None
    return await world.authority.read(refused.value.instance.rpartition("/")[2])


async def approved(world: World, request: ApprovalRecord) -> Minting:
    """Have the account approved, and return what minted its key."""
    minting = Minting(world.enrollment, names=("**.example.com",), profiles=("server",))
    answer = world.authority.answer
    await answer(request.approval_id, AnswerWord.APPROVE, actor=ANNA, also=minting)
    return minting


async def test_key_without_a_binding_asks_and_is_let_in_after_the_approval(world: World) -> None:
    """By the same newAccount; the account is bound to the key that the approval minted."""
    key = new_key()
    request = await asked(world, key)
    assert (request.kind, request.identifiers) == (ApprovalKind.ACCOUNT, ())
    assert request.asked_by["address"] == "192.0.2.7"
    assert (await asked(world, key)).approval_id == request.approval_id
    assert await world.count(EventKind.ACCOUNT_CREATED) == 0
    minting = await approved(world, request)
    assert minting.key is not None
    account = await register(world, key)
    assert account.eab_key_id == minting.key.key_id
    client = Client(world, account, key)
    order = await client.issue("www.example.com")
    assert order.decision["approvals"] == [request.approval_id]
    with pytest.raises(Problem, match="is outside the profiles of EAB key"):
        await client.order("www.example.com", profile="private")


async def test_another_key_is_let_in_with_the_binding_alone(world: World) -> None:
    """What clients do that make a new key for each attempt; the binding is good for one."""
    first, other = new_key(), new_key()
    minting = await approved(world, await asked(world, first))
    assert minting.key is not None
    client = await world.client(binding=(minting.key.key_id, minting.key.mac_key), key=other)
    await client.issue("www.example.com")
    with pytest.raises(Problem, match="binding"):
        await register(world, first)


async def test_account_with_a_binding_asks_nobody(world: World) -> None:
    """As before."""
    await world.robot()
    assert not await waiting(world)


async def test_account_that_is_there_stays(world: World) -> None:
    """A rule that comes later strands nobody."""
    world.policies.set(POLICY)
    key = new_key()
    account = await register(world, key)
    world.policies.set(POLICY + ACCOUNTS)
    assert await register(world, key) == account


async def test_denied_key_is_told_so(world: World) -> None:
    """And asks for nothing more until its time."""
    key = new_key()
    request = await asked(world, key)
    await say(world, request, "deny", ANNA)
    with pytest.raises(Problem, match="was not approved") as refused:
        await register(world, key)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    assert not await waiting(world)


async def test_whoever_asks_does_not_decide(world: World) -> None:
    """As far as the contacts tell."""
    request = await asked(world, new_key())
    with pytest.raises(Problem, match="operator:ben answers for this request"):
        await say(world, request, "approve", BEN)


async def test_account_is_held_up_with_its_approval(world: World) -> None:
    """Suspended, withdrawn, or past its time, which a renewal mends."""
    key = new_key()
    request = await asked(world, key)
    await approved(world, request)
    client = Client(world, await register(world, key), key)
    order = await client.ready("www.example.com")
    await say(world, request, "suspend", ANNA)
    for doing in (client.order("www.example.com"), client.finalize(order)):
        with pytest.raises(Problem, match="the account was approved, and the approval is susp"):
            await doing
    await say(world, request, "resume", ANNA)
    await client.finalize(order)
    world.clock.advance(timedelta(days=31))
    with pytest.raises(Problem, match="its evidence has to be shown anew"):
        await client.order("www.example.com")
    found = await world.authority.read(request.approval_id)
    assert found.status is ApprovalStatus.DUE
    await say(world, request, "renew", ANNA)
    await client.issue("www.example.com")
    await say(world, request, "withdraw", ANNA)
    with pytest.raises(Problem, match="the approval was withdrawn"):
        await client.order("www.example.com")


async def test_flood_from_one_address_is_bounded(world: World) -> None:
    """Keys cost nothing; another address is heard, and all whose address is unknown are one."""
    for _ in range(LIMITS.of_asker):
        await asked(world, new_key())
    with pytest.raises(Problem, match="20 requests of this requester wait") as refused:
        await register(world, new_key())
    assert refused.value.type is ProblemType.RATE_LIMITED
    for origin in (Origin(address="192.0.2.8"), NOWHERE):
        with pytest.raises(Problem, match="has to be approved by a person"):
            await register(world, new_key(), origin)


async def test_policy_that_asks_for_more_is_not_answered_by_less(world: World) -> None:
    """One person's yes lets nobody in any more where policy wants two by now."""
    key = new_key()
    request = await asked(world, key)
    await approved(world, request)
    world.policies.set(POLICY + ACCOUNTS + "    people: 2\n")
    with pytest.raises(Problem, match="has to be shown anew"):
        await register(world, key)
    assert await world.count(EventKind.ACCOUNT_CREATED) == 0
    for person in (ANNA, CARL):
        await say(world, request, "renew", person)
    await register(world, key)


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        pytest.param("2001:db8::1", "2001:db8::ffff:2", True, id="one network"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two networks"),
        pytest.param("192.0.2.7", "192.0.2.8", False, id="two hosts"),
    ],
)
async def test_host_with_many_addresses_is_one_asker(
    world: World, first: str, second: str, is_one: bool
) -> None:
    """Else one stranger fills the list of everybody."""
    for address in (first, second):
        with pytest.raises(Problem):
            await register(world, new_key(), Origin(address=address))
    assert (len({one.asker for one in await waiting(world)}) == 1) is is_one
