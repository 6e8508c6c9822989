"""The same CSR again while its certificate is young: that certificate, and none more at the CA."""

import asyncio
from datetime import timedelta

import pytest

from broker.issuance.events import EventKind
from broker.issuance.records import OrderRecord
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World, leaf_of, make_csr, new_key

NAME = "www.example.com"
YOUNG = POLICY.replace(
    "description: TLS servers\n", "description: TLS servers\n    same_csr_within: 2h\n"
)


@pytest.fixture
async def world(world: World) -> World:
    """A broker whose policy answers the same CSR again for two hours."""
    world.policies.set(YOUNG)
    return world


async def issue(client: Client, csr_der: bytes, *names: str) -> OrderRecord:
    """Have a certificate for this CSR."""
    order = await client.ready(*(names or (NAME,)))
    return await client.world.finish(await client.finalize(order, csr_der))


async def test_same_csr_gets_the_same_certificate(world: World) -> None:
    """The CA signs once; the order is valid at once, and says so in the trail."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.clock.advance(timedelta(hours=1))
    again = await issue(client, csr_der)
    assert again.order_id != first.order_id
    assert (again.status, again.certificate_id) == (OrderStatus.VALID, first.certificate_id)
    assert await client.chain(again) == await client.chain(first)
    assert (len(world.ca.issued), len(world.ca.orders)) == (1, 1)
    (event,) = await world.events(EventKind.ORDER_ANSWERED_AGAIN)
    assert event.order_id == again.order_id
    assert event.data["certificate_id"] == first.certificate_id
    await world.let_pass(timedelta(hours=3))
    assert await world.jobs() == 0


async def test_many_at_once_get_one_certificate(world: World) -> None:
    """Those that come while the first is under way wait for it."""
    client, csr_der = await world.client(), make_csr(NAME)
    orders = [await client.ready(NAME) for _ in range(4)]
    world.ca.polls = 2
    made = await asyncio.gather(*(client.finalize(one, csr_der) for one in orders))
    done = [await world.finish(one) for one in made]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


async def test_order_behind_one_that_fails_goes_its_own_way(world: World) -> None:
    """What the first was refused is not the second's answer."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.fails_after_finalize = Problem(ProblemType.SERVER_INTERNAL, "broken")
    failed = await issue(client, csr_der)
    assert failed.status is OrderStatus.INVALID
    world.ca.fails_after_finalize = None
    assert (await issue(client, csr_der)).status is OrderStatus.VALID


async def test_it_is_young_no_longer_than_policy_says(world: World) -> None:
    """Then the same CSR brings another certificate."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.clock.advance(timedelta(hours=2, seconds=1))
    assert (await issue(client, csr_der)).certificate_id != first.certificate_id
    assert len(world.ca.issued) == 2


async def test_tenth_of_its_lifetime_is_all_that_it_is_young_for(world: World) -> None:
    """Whatever policy says: who gets it again loses no more of it than that."""
    world.policies.set(YOUNG.replace("cap: 90d", "cap: 10h"))
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.clock.advance(timedelta(minutes=50))
    assert (await issue(client, csr_der)).certificate_id == first.certificate_id
    world.clock.advance(timedelta(minutes=20))
    assert (await issue(client, csr_der)).certificate_id != first.certificate_id


async def test_nobody_else_gets_it(world: World) -> None:
    """Another account has its own order, though it sends the very CSR."""
    client, other, csr_der = await world.client(), await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    theirs = await issue(other, csr_der)
    assert theirs.certificate_id != first.certificate_id
    assert len(world.ca.issued) == 2


async def test_new_key_brings_a_new_certificate(world: World) -> None:
    """For the same names, at once."""
    client = await world.client()
    first = await issue(client, make_csr(NAME))
    second = await issue(client, make_csr(NAME))
    assert first.certificate_id != second.certificate_id


async def test_policy_that_says_nothing_answers_nothing_again(world: World) -> None:
    """As before there was such a rule."""
    world.policies.set(POLICY)
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    assert (await issue(client, csr_der)).certificate_id != first.certificate_id


async def test_revoked_certificate_is_not_handed_out_again(world: World) -> None:
    """Nor one whose revocation is under way."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    await client.revoke(await client.leaf_der(first))
    again = await issue(client, csr_der)
    assert again.certificate_id != first.certificate_id
    assert len(world.ca.issued) == 2


async def test_order_that_replaces_it_gets_another(world: World) -> None:
    """A renewal is wanted then, though its key and its CSR are kept."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    (kept,) = await world.certificates()
    order = await client.order(NAME, replaces=kept.cert_id)
    order = await client.prove(order)
    again = await world.finish(await client.finalize(order, csr_der))
    assert again.certificate_id != first.certificate_id


async def test_end_that_was_asked_for_is_honoured(world: World) -> None:
    """An order that names an end gets a certificate with that end."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    end = world.clock.now() + timedelta(days=3)
    order = await client.prove(await client.order(NAME, not_after=end))
    again = await world.finish(await client.finalize(order, csr_der))
    assert again.certificate_id != first.certificate_id
    assert leaf_of(await client.chain(again)).not_valid_after_utc == end


async def test_tighter_cap_of_today_is_not_passed(world: World) -> None:
    """A certificate that ends past it was right yesterday."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.policies.set(YOUNG.replace("cap: 90d", "cap: 10d"))
    again = await issue(client, csr_der)
    assert again.certificate_id != first.certificate_id


async def test_other_profile_brings_another_certificate(world: World) -> None:
    """It may be for something else."""
    client, key = await world.client(), new_key()
    csr_der = make_csr(NAME, key=key)
    first = await issue(client, csr_der)
    order = await client.prove(await client.order(NAME, profile="other"))
    again = await world.finish(await client.finalize(order, csr_der))
    assert again.certificate_id != first.certificate_id


async def test_it_outlives_a_restart(world: World) -> None:
    """Who asks again is answered by whichever process is there."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    await world.restart()
    assert (await issue(client, csr_der)).certificate_id == first.certificate_id


async def test_certificate_of_another_policy_is_not_handed_out(world: World) -> None:
    """Its CA, or what it may be used for, may have been forbidden since."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.policies.set(YOUNG.replace("usages: [server-auth]", "usages: [server-auth, client-auth]"))
    again = await issue(client, csr_der)
    assert again.certificate_id != first.certificate_id
    assert (await issue(client, csr_der)).certificate_id == again.certificate_id
