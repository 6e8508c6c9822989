"""The same CSR again while its certificate is young: that certificate, and none more at the CA."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Refused, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.records import OrderRecord, WorkStatus
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World, leaf_of, make_csr, new_key
from tests.unit.issuance.test_failover import TWO, back, have_two, issued, leave_alone
from tests.unit.issuance.test_freezes import JANE, freeze

NAME = "www.example.com"


def young_of(policy: str) -> str:
    """Return *policy* with a profile that answers the same CSR again for two hours."""
    before = "description: TLS servers\n"
    return policy.replace(before, f"{before}    same_csr_within: 2h\n")


YOUNG = young_of(POLICY)


LONGEST_PAUSE = timedelta(minutes=6)
"""Longer than the longest pause of an order that its CA has in processing."""


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


def finalizing(client: Client, order: OrderRecord, csr_der: bytes) -> asyncio.Task[OrderRecord]:
    """Begin to finalize."""
    finalize = client.world.orders.finalize
    return asyncio.create_task(finalize(client.account, order.order_id, csr_der))


@pytest.mark.parametrize("seconds", [0, 1], ids=["at one moment", "later"])
async def test_claim_that_is_kept_late_waits_though_it_was_made_early(
    world: World, seconds: int
) -> None:
    """By their clocks it would be the first, and the other was the first when it looked."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(2)]
    late, early = sorted(made, key=lambda one: one.order_id)
    writing = world.traffic.stall("store.claim_finalize")
    slow = finalizing(client, late, csr_der)
    await writing.reached.wait()
    world.clock.advance(timedelta(seconds=seconds))
    signing = world.ca.stall("finalize")
    fast = finalizing(client, early, csr_der)
    await signing.reached.wait()
    writing.release()
    await world.settle()
    signing.release()
    for one in (slow, fast):
        await world.drive(asyncio.wait_for(one, None))
    done = [await world.finish(one) for one in made]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


async def test_those_who_wait_keep_nobody_else_waiting(world: World) -> None:
    """However many of them there are, other orders have their turn at once."""
    world.concurrency = 2
    await world.restart()
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(5)]
    signing = world.ca.stall("finalize")
    tasks = [finalizing(client, one, csr_der) for one in made]
    await signing.reached.wait()
    await world.settle()
    begun = world.clock.now()
    await client.issue("other.example.com")
    assert world.clock.now() == begun
    signing.release()
    for one in tasks:
        await world.drive(asyncio.wait_for(one, None))
    done = [await world.finish(one) for one in made]
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 2


async def test_when_the_first_is_refused_the_next_is_issued_for_all(world: World) -> None:
    """Nobody waits for ever, and nobody is issued beside it."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(4)]
    signing = world.ca.stall("finalize")
    first = finalizing(client, made[0], csr_der)
    await signing.reached.wait()
    others = [finalizing(client, one, csr_der) for one in made[1:]]
    await world.settle()
    signing.fail_with(Refused(Problem(ProblemType.BAD_CSR, "not this one")))
    for one in (first, *others):
        await world.drive(asyncio.wait_for(one, None))
    done = [await world.finish(one) for one in made]
    assert [one.status for one in done] == [OrderStatus.INVALID] + [OrderStatus.VALID] * 3
    assert len(world.ca.issued) == 1


async def stuck(world: World, client: Client, csr_der: bytes) -> OrderRecord:
    """Return an order whose CA has heard its finalize and is gone since."""
    world.ca.fail("finalize", Unreachable("cut"), after=True)
    world.ca.fail("read_order", Unreachable("cut"), times=500)
    order = await client.finalize(await client.ready(NAME), csr_der)
    await leave_alone(world)
    return order


async def test_order_for_another_ca_does_not_wait_for_one_that_is_stuck(world: World) -> None:
    """It does for two minutes: the first CA may be gone for days with what it has heard."""
    have_two(world)
    world.policies.set(young_of(TWO))
    client, csr_der = await world.client(), make_csr(NAME)
    first = await stuck(world, client, csr_der)
    begun = world.clock.now()
    again = await world.finish(await client.finalize(await client.ready(NAME), csr_der))
    assert (again.status, again.upstream) == (OrderStatus.VALID, "next")
    waited = world.clock.now() - begun
    assert timedelta(seconds=110) < waited < timedelta(minutes=3)
    assert (await world.load(first)).status is OrderStatus.PROCESSING
    third = await world.finish(await client.finalize(await client.ready(NAME), csr_der))
    assert third.certificate_id == again.certificate_id
    assert issued(world) == (1, 1)


async def test_those_who_wait_leave_a_ca_that_dies(world: World) -> None:
    """What it has heard stays there; of the others one is issued by the next CA, for all."""
    have_two(world)
    world.policies.set(young_of(TWO))
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(3)]
    signing = world.ca.stall("finalize", after=True)
    first = finalizing(client, made[0], csr_der)
    await signing.reached.wait()
    others = [finalizing(client, one, csr_der) for one in made[1:]]
    await world.settle()
    await leave_alone(world)
    signing.fail_with(Unreachable("cut"))
    for one in (first, *others):
        await world.drive(asyncio.wait_for(one, None))
    done = [await world.finish(one) for one in made[1:]]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert issued(world) == (1, 1)
    await back(world, "ca")
    assert (await world.finish(made[0])).status is OrderStatus.VALID
    assert issued(world) == (1, 1)


async def test_outage_that_is_longer_than_young_brings_one_certificate(world: World) -> None:
    """A client that comes every hour with the same CSR has as many orders when the CA is back."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(5)]
    await world.settle()
    world.ca.is_away = True
    for one in made:
        await client.finalize(one, csr_der)
        await world.let_pass(timedelta(hours=1))
    world.ca.is_away = False
    done = [await world.finish(one) for one in made]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


async def test_nobody_waits_for_longer_than_a_day(world: World) -> None:
    """For one that its CA never comes to an end with, which a person has to see to."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.holds_back = True
    made = [await client.ready(NAME) for _ in range(2)]
    for one in made:
        await client.finalize(one, csr_der)
    await world.let_pass(timedelta(hours=23))
    assert world.ca.count("finalize") == 1
    await world.let_pass(timedelta(hours=2))
    assert world.ca.count("finalize") == 2
    world.ca.holds_back = False
    world.ca.issue_held()
    assert {(await world.finish(one)).status for one in made} == {OrderStatus.VALID}


async def test_outage_that_is_longer_than_a_day_brings_one_certificate(world: World) -> None:
    """Whom the CA has not even opened an order for has nothing to lose by waiting on."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.is_away = True
    made = []
    for _ in range(4):
        made.append(await client.ready(NAME))
        await client.finalize(made[-1], csr_der)
        world.clock.advance(timedelta(hours=10))
        await world.let_pass(timedelta(minutes=2))
    world.ca.is_away, world.ca.holds_back = False, True
    await world.let_pass(timedelta(minutes=5))
    assert world.ca.count("finalize") == 1
    world.ca.holds_back = False
    world.ca.issue_held()
    done = [await world.finish(one) for one in made]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


async def prepared(world: World, client: Client, csr_der: bytes, number: int) -> list[OrderRecord]:
    """Return so many orders of one CSR, of which the CA has heard the first one's finalize, and
    has opened its orders for the others."""
    world.ca.holds_back = True
    made = []
    for _ in range(number):
        made.append(await client.ready(NAME))
        await world.settle()
        await client.finalize(made[-1], csr_der)
    assert (world.ca.count("finalize"), len(world.ca.orders)) == (1, number)
    return made


async def pass_days(world: World, days: float) -> None:
    """Let a long time go by, with a look at everything every few hours."""
    for _ in range(round(days * 4)):
        world.clock.advance(timedelta(hours=6))
        await world.let_pass(timedelta(minutes=2))


async def issue_late(world: World) -> None:
    """Have the CA be back for some minutes before it signs what it was told to."""
    world.ca.is_away = False
    await world.let_pass(timedelta(minutes=8))
    assert world.ca.accepted == 1
    world.ca.holds_back = False
    world.ca.issue_held()


async def one_for_all(world: World, made: list[OrderRecord]) -> None:
    """Have every order answered with the one certificate that there is."""
    done = [await world.finish(one) for one in made]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


@pytest.mark.parametrize("is_begun_anew", [False, True], ids=["same process", "next process"])
async def test_outage_after_the_ca_has_opened_its_orders_brings_one_certificate(
    world: World, is_begun_anew: bool
) -> None:
    """The day of each is over when the CA is back, and the first still has its turn."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = await prepared(world, client, csr_der, 4)
    world.ca.is_away = True
    await pass_days(world, 3)
    if is_begun_anew:
        await world.restart()
        await world.let_pass(LONGEST_PAUSE)
        await world.dispatcher.run_due()
    assert world.ca.count("finalize") == 1
    await issue_late(world)
    await one_for_all(world, made)


async def test_broker_that_was_off_for_days_brings_one_certificate(world: World) -> None:
    """As an outage of the CA does."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = await prepared(world, client, csr_der, 3)
    await world.stop()
    world.clock.advance(timedelta(days=3))
    await world.start()
    await world.dispatcher.run_due()
    await issue_late(world)
    await one_for_all(world, made)


async def test_freeze_of_days_brings_one_certificate(world: World) -> None:
    """All go on at the moment at which it is lifted."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.fail("finalize", Unreachable("cut", left_nothing=True), times=99)
    made = []
    for _ in range(3):
        made.append(await client.ready(NAME))
        await world.settle()
        await client.finalize(made[-1], csr_der)
    assert len(world.ca.orders) == 3
    place = await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    await pass_days(world, 2)
    world.ca.mend()
    world.ca.holds_back = True
    await world.freezes.unfreeze(place, JANE)
    await world.let_pass(timedelta(minutes=8))
    assert world.ca.accepted == 1
    world.ca.holds_back = False
    world.ca.issue_held()
    await one_for_all(world, made)


async def test_work_that_was_opened_after_the_wait_is_looked_at_again(world: World) -> None:
    """Of the others the CA has heard nothing: what came of the first meanwhile is theirs too."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(3)]
    await world.settle()
    assert len(world.ca.orders) == 1
    world.ca.is_away = True
    for one in made:
        await client.finalize(one, csr_der)
    await pass_days(world, 3)
    world.ca.holds_back = True
    await issue_late(world)
    await one_for_all(world, made)


async def test_ca_that_goes_away_again_ends_no_turn(world: World) -> None:
    """Minutes in which it answers count, and not the hours between them."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = await prepared(world, client, csr_der, 3)
    for _ in range(3):
        world.ca.is_away = True
        await pass_days(world, 1)
        world.ca.is_away = False
        await world.let_pass(timedelta(minutes=1))
    assert world.ca.count("finalize") == 1
    world.ca.holds_back = False
    world.ca.issue_held()
    await one_for_all(world, made)


async def test_turns_are_in_the_order_of_the_claims(world: World) -> None:
    """The twin: behind one that never ends the next goes on, alone, and after it the one behind."""
    client, csr_der = await world.client(), make_csr(NAME)
    await prepared(world, client, csr_der, 4)
    world.clock.advance(timedelta(days=1))
    await world.let_pass(timedelta(minutes=10))
    for number in (1, 2, 3, 4):
        assert world.ca.count("finalize") == number
        await world.let_pass(timedelta(minutes=22))


@pytest.mark.parametrize("is_turn", [False, True], ids=["process", "turn"])
@pytest.mark.parametrize("is_prepared", [False, True], ids=["intended", "opened"])
async def test_those_who_wait_go_on_waiting_in_the_next(
    world: World, is_turn: bool, is_prepared: bool
) -> None:
    """Which issues for nobody who waited; the one certificate is for all of them."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.holds_back = True
    made = []
    for _ in range(3):
        made.append(await client.ready(NAME))
        if is_prepared:
            await world.settle()
        await client.finalize(made[-1], csr_der)
    await world.let_pass(timedelta(minutes=5))
    await world.restart(is_turn=is_turn)
    await world.let_pass(LONGEST_PAUSE)
    await world.dispatcher.run_due()
    await world.let_pass(timedelta(minutes=5))
    assert world.ca.count("finalize") == 1
    world.ca.holds_back = False
    world.ca.issue_held()
    done = [await world.finish(one) for one in made]
    assert len({one.certificate_id for one in done}) == 1
    assert len(world.ca.issued) == 1


async def test_certificate_that_came_between_two_processes_is_for_who_waited(
    world: World,
) -> None:
    """The CA shows that the other was never finalized, whatever the earlier process did."""
    client, csr_der = await world.client(), make_csr(NAME)
    made = [await client.ready(NAME) for _ in range(2)]
    await world.settle()
    signing = world.ca.stall("finalize", after=True)
    tasks = [finalizing(client, one, csr_der) for one in made]
    await signing.reached.wait()
    await world.settle()
    await world.restart()
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await world.let_pass(timedelta(minutes=5))
    await world.dispatcher.run_due()
    done = [await world.finish(one) for one in made]
    assert len({one.certificate_id for one in done}) == 1
    assert (len(world.ca.issued), world.ca.count("finalize")) == (1, 1)


async def test_power_cut_leaves_a_finalized_order_to_its_own_certificate(tmp_path: Path) -> None:
    """What says that its finalize was sent is lost: it takes nobody else's while the CA has one."""
    world = World(tmp_path)
    world.keeps_snapshots = True
    world.policies.set(YOUNG)
    async with world:
        client, csr_der = await world.client(), make_csr(NAME)
        order = await client.ready(NAME)
        await world.settle()
        world.ca.holds_back = True
        await client.finalize(order, csr_der)
        await world.restart(power_cut=True)
        work = await world.store.work_of_order(order.order_id)
        assert work is not None
        assert work.status is WorkStatus.OPENED, "the word of it is lost"
        other = await client.ready(NAME)
        await client.finalize(other, csr_der)
        await world.let_pass(timedelta(minutes=5))
        assert world.ca.count("finalize") == 1
        world.ca.holds_back = False
        world.ca.issue_held()
        done = [await world.finish(one) for one in (order, other)]
        assert len({one.certificate_id for one in done}) == 1
        assert len(world.ca.issued) == 1


async def test_who_may_have_a_certificate_at_its_ca_is_given_no_other(tmp_path: Path) -> None:
    """After a power cut only the CA can tell whether it has; until then it is left open."""
    world = World(tmp_path)
    world.keeps_snapshots = True
    have_two(world)
    world.policies.set(young_of(TWO))
    async with world:
        client, csr_der = await world.client(), make_csr(NAME)
        order = await client.ready(NAME)
        await world.settle()
        world.ca.holds_back = True
        await client.finalize(order, csr_der)
        world.ca.is_away = True
        await world.restart(power_cut=True)
        await leave_alone(world)
        other = await world.finish(await client.finalize(await client.ready(NAME), csr_der))
        assert (other.status, other.upstream) == (OrderStatus.VALID, "next")
        await world.dispatcher.run_due()
        await world.let_pass(timedelta(minutes=5))
        assert (await world.load(order)).status is OrderStatus.PROCESSING
        world.ca.holds_back = False
        world.ca.issue_held()
        await back(world, "ca")
        done = await world.finish(order)
        assert done.status is OrderStatus.VALID
        assert done.certificate_id != other.certificate_id
        assert issued(world) == (1, 1)


@pytest.mark.parametrize("honours_not_after", [True, False], ids=["told an end", "told none"])
async def test_ca_that_hands_out_one_order_twice_serves_who_is_first(
    world: World, honours_not_after: bool
) -> None:
    """The second has the CA's order already, and waits for the first: it gives it up."""
    world.facts["ca"] = replace(world.facts["ca"], honours_not_after=honours_not_after)
    world.ca.is_coalescing = True
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.is_away = True
    first = await client.finalize(await client.ready(NAME), csr_der)
    await world.let_pass(timedelta(minutes=2))
    world.ca.is_away = False
    second = await client.ready(NAME)
    await world.settle()
    assert len(world.ca.orders) == 1
    begun = world.clock.now()
    await client.finalize(second, csr_der)
    done = [await world.finish(one) for one in (first, second)]
    assert world.clock.now() - begun < timedelta(minutes=2)
    assert len({one.certificate_id for one in done}) == 1
    assert (len(world.ca.issued), len(world.ca.orders)) == (1, 1)
    (event,) = await world.events(EventKind.ORDER_ANSWERED_AGAIN)
    assert event.order_id == second.order_id


async def test_ca_that_hands_out_one_order_twice_has_others_wait_as_ever(world: World) -> None:
    """Who waits for nobody gives nothing up: another CSR is another wish."""
    world.ca.is_coalescing = True
    client = await world.client()
    world.ca.is_away = True
    first = await client.finalize(await client.ready(NAME), make_csr(NAME))
    await world.let_pass(timedelta(minutes=2))
    world.ca.is_away = False
    second = await client.finalize(await client.ready(NAME), make_csr(NAME))
    done = [await world.finish(one) for one in (first, second)]
    assert {one.status for one in done} == {OrderStatus.VALID}
    assert len(world.ca.issued) == 2


async def test_order_that_replaces_waits_for_nobody(world: World) -> None:
    """It would not be answered with what it waits for."""
    client, csr_der = await world.client(), make_csr(NAME)
    await issue(client, make_csr(NAME))
    (kept,) = await world.certificates()
    world.ca.holds_back = True
    await client.finalize(await client.ready(NAME), csr_der)
    order = await client.prove(await client.order(NAME, replaces=kept.cert_id))
    await client.finalize(order, csr_der)
    assert world.ca.count("finalize") == 3


async def test_order_under_another_policy_waits_for_nobody(world: World) -> None:
    """What comes of the first may not be right for it."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.holds_back = True
    await client.finalize(await client.ready(NAME), csr_der)
    await client.finalize(await client.ready(NAME), csr_der)
    assert world.ca.count("finalize") == 1
    world.policies.set(YOUNG.replace("usages: [server-auth]", "usages: [server-auth, client-auth]"))
    await client.finalize(await client.ready(NAME), csr_der)
    assert world.ca.count("finalize") == 2


@pytest.mark.parametrize("days", [-10, 10])
async def test_clock_that_jumps_keeps_nobody_waiting_for_longer(world: World, days: int) -> None:
    """An earlier order with this CSR may have been made under a clock that was wrong."""
    client, csr_der = await world.client(), make_csr(NAME)
    world.ca.fail("finalize", Refused(Problem(ProblemType.BAD_CSR, "no")))
    world.clock.advance(timedelta(days=days))
    assert (await issue(client, csr_der)).status is OrderStatus.INVALID
    world.clock.advance(timedelta(days=-days))
    world.ca.holds_back = True
    for _ in range(2):
        await client.finalize(await client.ready(NAME), csr_der)
    await world.let_pass(timedelta(hours=23))
    assert world.ca.count("finalize") == 2
    await world.let_pass(timedelta(hours=2))
    assert world.ca.count("finalize") == 3


async def test_end_that_another_order_asked_for_is_not_handed_out(world: World) -> None:
    """Who asked for none gets what the CA gives."""
    client, csr_der = await world.client(), make_csr(NAME)
    end = world.clock.now() + timedelta(days=3)
    order = await client.prove(await client.order(NAME, not_after=end))
    first = await world.finish(await client.finalize(order, csr_der))
    other = await issue(client, csr_der)
    assert other.certificate_id != first.certificate_id
    assert leaf_of(await client.chain(other)).not_valid_after_utc > end
    assert (await issue(client, csr_der)).certificate_id == other.certificate_id


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


async def test_change_elsewhere_in_the_set_changes_nothing(world: World) -> None:
    """A rule of another community is no rule of its own, nor is a comment about some CA."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.policies.set_sha256 = "ab" * 32
    assert (await issue(client, csr_der)).certificate_id == first.certificate_id


async def test_certificate_of_another_policy_is_not_handed_out(world: World) -> None:
    """Its CA, or what it may be used for, may have been forbidden since."""
    client, csr_der = await world.client(), make_csr(NAME)
    first = await issue(client, csr_der)
    world.policies.set(YOUNG.replace("usages: [server-auth]", "usages: [server-auth, client-auth]"))
    again = await issue(client, csr_der)
    assert again.certificate_id != first.certificate_id
    assert (await issue(client, csr_der)).certificate_id == again.certificate_id
