"""The next CA in the list, where the first is away: once, and never a second certificate."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord
from broker.issuance.records import OrderRecord, Suspension, WorkStatus
from broker.issuance.standing import subject_of
from broker.policy.decisions import QuotaPer, UpstreamFacts
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.storage.rows import SUSPENSIONS
from tests.fakes.fake_policies import POLICY
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import World, default_facts, dns, leaf_of
from tests.unit.issuance.test_fulfilment import BY_CHALLENGE, Traveller
from tests.unit.issuance.test_quotas import demand, under

NAME = "www.example.com"
TWO = POLICY.replace("upstreams: [{upstream: ca}]", "upstreams: [{upstream: ca}, {upstream: next}]")
GONE = Unreachable("nobody answers at ca.example", left_nothing=True)


@pytest.fixture
async def world(world: World) -> World:
    """A broker with two CAs, of which the first is preferred."""
    have_two(world)
    return world


def have_two(world: World) -> None:
    """Put a second CA behind the first in the list."""
    world.upstreams["next"] = FakeUpstream(world.clock, "next")
    world.facts["next"] = default_facts("next")
    world.policies.set(TWO)


def second(world: World) -> FakeUpstream:
    """Return the CA that is next in the list."""
    return world.upstreams["next"]


async def leave_alone(world: World, upstream: str = "ca") -> None:
    """Open the circuit breaker of a CA, as whoever asked it in vain does."""
    now = world.clock.now()
    record = BreakerRecord(
        upstream=upstream,
        state=BreakerState.OPEN,
        openings=1,
        since=now,
        until=now + timedelta(seconds=5),
        reason="no answer",
    )
    await world.store.move_breaker(record, expected=None, events=())
    world.upstreams[upstream].is_away = True


async def hold(world: World, length: timedelta, subject: str = "") -> None:
    """Keep that the first CA limits us."""
    now = world.clock.now()
    await world.store.keep_hold(
        HoldRecord(
            upstream="ca", account="", subject=subject, until=now + length, since=now, reason="429"
        )
    )


def issued(world: World) -> tuple[int, int]:
    """Return how many certificates each CA has signed."""
    return len(world.ca.issued), len(second(world).issued)


async def test_first_of_the_list_is_taken_while_it_answers(world: World) -> None:
    """Nothing of failover is seen then."""
    client = await world.client()
    order = await client.issue(NAME)
    assert (order.upstream, issued(world)) == ("ca", (1, 0))
    assert "passed_over" not in order.decision


async def test_new_orders_go_to_the_next_while_the_first_is_away(world: World) -> None:
    """From the start, so that the dead one is not even asked; the decision says why."""
    await leave_alone(world)
    client = await world.client()
    order = await client.issue(NAME)
    assert (order.upstream, issued(world)) == ("next", (0, 1))
    assert list(order.decision["passed_over"]) == ["ca"]  # type: ignore[call-overload]
    assert world.ca.calls == []


async def test_finalized_order_goes_to_the_next_when_its_ca_dies(world: World) -> None:
    """Though the CA's order was open already: no finalize of it was ever sent."""
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    assert len(world.ca.orders) == 1
    world.ca.is_away = True
    order = await client.finalize(order)
    assert order.status is OrderStatus.PROCESSING
    await leave_alone(world)
    done = await world.finish(order)
    assert (done.status, done.upstream, issued(world)) == (OrderStatus.VALID, "next", (0, 1))
    (event,) = await world.events(EventKind.ORDER_MOVED)
    assert (event.data["from"], event.data["to"], event.order_id) == ("ca", "next", order.order_id)
    world.ca.is_away = False
    await world.let_pass(timedelta(hours=2))
    assert issued(world) == (0, 1), "nothing goes on at the CA that was left"


@pytest.mark.parametrize("after", [False, True], ids=["not heard", "heard, answer lost"])
async def test_order_whose_finalize_was_sent_stays(world: World, after: bool) -> None:
    """Its CA may have signed by now: nobody asks another one."""
    client = await world.client()
    world.ca.fail("finalize", Unreachable("cut"), after=after)
    world.ca.fail("read_order", Unreachable("cut"), times=30)
    order = await client.finalize(await client.ready(NAME))
    assert order.status is OrderStatus.PROCESSING
    await leave_alone(world)
    await world.let_pass(timedelta(hours=1))
    assert (await world.load(order)).upstream == "ca"
    assert second(world).calls == []
    world.ca.is_away = False
    done = await world.finish(order)
    assert (done.status, issued(world)) == (OrderStatus.VALID, (1, 0))


async def test_after_a_restart_an_open_order_stays(world: World) -> None:
    """A power cut may have lost the word that it was finalized; one never opened may go."""
    client = await world.client()
    world.ca.fail("finalize", GONE, times=1)
    world.ca.is_away = False
    order = await client.ready(NAME)
    await world.settle()
    world.ca.is_away = True
    order = await client.finalize(order)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    assert work.status is WorkStatus.OPENED
    await leave_alone(world)
    world.clock.advance(timedelta(seconds=20))
    await world.restart()
    await world.let_pass(timedelta(minutes=5))
    assert (await world.load(order)).upstream == "ca"
    world.ca.is_away = False
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert issued(world) == (1, 0)


@pytest.mark.parametrize("days", [0, 1, -1], ids=["right", "ahead", "behind"])
async def test_power_cut_leaves_an_open_order_where_it_is_whatever_the_clock_said(
    tmp_path: Path, days: int
) -> None:
    """It was finalized, the word of it is lost, and no time tells in which process that was."""
    world = World(tmp_path)
    world.keeps_snapshots = True
    have_two(world)
    async with world:
        world.clock.advance(timedelta(days=days))
        client = await world.client()
        order = await client.ready(NAME)
        await world.settle()
        world.ca.fail("finalize", Unreachable("cut"), after=True)
        world.ca.fail("read_order", Unreachable("cut"), times=500)
        await client.finalize(order)
        assert issued(world) == (1, 0)
        world.clock.advance(timedelta(days=-days))
        await world.restart(power_cut=True)
        work = await world.store.work_of_order(order.order_id)
        assert work is not None
        assert work.status is WorkStatus.OPENED
        await leave_alone(world)
        await world.let_pass(timedelta(hours=30))
        await world.dispatcher.run_due()
        await world.let_pass(timedelta(hours=1))
        assert (await world.load(order)).upstream == "ca"
        assert issued(world) == (1, 0)


async def test_in_the_next_turn_an_open_order_goes_all_the_same(world: World) -> None:
    """A configuration that is taken up in place ends no process: nothing was lost."""
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    world.ca.is_away = True
    order = await client.finalize(order)
    await leave_alone(world)
    world.clock.advance(timedelta(seconds=20))
    await world.restart(is_turn=True)
    done = await world.finish(order)
    assert (done.status, done.upstream, issued(world)) == (OrderStatus.VALID, "next", (0, 1))


async def test_order_that_no_ca_has_heard_of_goes_after_a_restart_too(world: World) -> None:
    """Its URL is on the disk before it is finalized, and it has none."""
    client = await world.client()
    world.ca.is_away = True
    order = await client.finalize(await client.ready(NAME))
    await leave_alone(world)
    world.clock.advance(timedelta(seconds=20))
    await world.restart()
    done = await world.finish(order)
    assert (done.status, done.upstream, issued(world)) == (OrderStatus.VALID, "next", (0, 1))


@pytest.mark.parametrize(
    "refusal",
    [
        Problem(ProblemType.REJECTED_IDENTIFIER, "that name is not for you"),
        Problem(ProblemType.CAA, "keeps us out"),
        Problem(ProblemType.UNAUTHORIZED, "challenge failed"),
        Problem(ProblemType.BAD_CSR, "weak key"),
    ],
    ids=lambda problem: problem.token,
)
async def test_refusal_for_our_reasons_goes_nowhere_else(world: World, refusal: Problem) -> None:
    """Shopping for a CA that says yes is what policy forbids."""
    client = await world.client()
    world.ca.refuses_names = refusal
    order = await world.finish(await client.finalize(await client.ready(NAME)))
    assert order.status is OrderStatus.INVALID
    assert second(world).calls == []


@pytest.mark.parametrize(
    ("length", "subject", "upstream"),
    [
        pytest.param(timedelta(seconds=20), "", "ca", id="short: waited for"),
        pytest.param(timedelta(hours=1), "", "next", id="long"),
        pytest.param(timedelta(hours=1), subject_of([dns(NAME)]), "next", id="about these names"),
        pytest.param(timedelta(hours=1), "x.example.com", "ca", id="about others"),
    ],
)
async def test_limit_of_the_ca_sends_orders_to_the_next(
    world: World, length: timedelta, subject: str, upstream: str
) -> None:
    """A long one, and those that it is about."""
    await hold(world, length, subject)
    client = await world.client()
    assert (await client.order(NAME)).upstream == upstream


async def test_limit_that_meets_the_finalize_sends_the_order_to_the_next(world: World) -> None:
    """The CA has looked at nothing: it says that this order has to wait for hours."""
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    (url,) = world.ca.orders
    limit = Unreachable("429", retry_at=world.clock.now() + timedelta(hours=9), left_nothing=True)
    world.ca.fail("finalize", limit, times=9)
    await hold(world, timedelta(hours=9), url)
    begun = world.clock.now()
    done = await world.finish(await client.finalize(order))
    assert world.clock.now() - begun < timedelta(minutes=1), "nobody waits for the CA's time"
    assert (done.status, done.upstream, issued(world)) == (OrderStatus.VALID, "next", (0, 1))


async def test_order_waits_where_no_other_ca_will_do(world: World) -> None:
    """Nobody is refused because a CA is away."""
    world.policies.set(POLICY)
    await leave_alone(world)
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    assert (order.status, order.upstream) == (OrderStatus.PROCESSING, "ca")
    world.ca.is_away = False
    assert (await world.finish(order)).status is OrderStatus.VALID


async def test_order_waits_where_all_of_the_list_are_away(world: World) -> None:
    """For the first of them, and goes to whichever is back."""
    await leave_alone(world)
    await leave_alone(world, "next")
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    assert order.upstream == "ca"
    await back(world, "next")
    done = await world.finish(order)
    assert (done.status, done.upstream) == (OrderStatus.VALID, "next")


async def back(world: World, upstream: str) -> None:
    """Close the breaker of a CA that answers again."""
    (record,) = [one for one in await world.store.breakers() if one.upstream == upstream]
    closed = BreakerRecord(
        upstream=upstream,
        state=BreakerState.CLOSED,
        openings=0,
        since=record.since,
        until=world.clock.now(),
        reason="",
    )
    await world.store.move_breaker(closed, expected=record, events=())
    world.upstreams[upstream].is_away = False


async def test_order_that_was_made_for_the_next_stays_there(world: World) -> None:
    """Though the first is back at finalize: what was begun is not begun again elsewhere."""
    await leave_alone(world)
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    await back(world, "ca")
    done = await world.finish(await client.finalize(order))
    assert (done.upstream, issued(world)) == ("next", (0, 1))
    assert len(second(world).orders) == 1


async def test_private_name_never_moves_to_a_ca_that_logs_publicly(world: World) -> None:
    """The rule is asked again for the CA that would be next; the order waits instead."""
    logs = TWO.replace("trusted:", "ct:\n  private_names: ['**.secret.example.com']\ntrusted:")
    world.policies.set(logs)
    world.facts["next"] = replace_facts(world, is_ct_logged=True)
    client = await world.client()
    order = await client.ready("a.secret.example.com")
    open_one = await client.ready("a.example.com")
    world.ca.is_away = True
    private = await client.finalize(order)
    public = await client.finalize(open_one)
    await leave_alone(world)
    assert (await world.finish(public)).upstream == "next"
    await world.let_pass(timedelta(hours=1))
    assert (await world.load(private)).upstream == "ca"
    later = await client.order("b.secret.example.com")
    assert later.upstream == "ca"
    shown = [str(one) for made in second(world).orders.values() for one in made.request.identifiers]
    assert shown == ["a.example.com"]


def replace_facts(world: World, **changes: object) -> UpstreamFacts:
    """Return the facts of the second CA with some of them changed."""
    return replace(world.facts["next"], **changes)  # type: ignore[arg-type]


async def test_ca_that_cannot_hold_the_cap_is_not_gone_to(world: World) -> None:
    """A failure makes no certificate longer."""
    world.facts["next"] = replace_facts(
        world, honours_not_after=False, default_lifetimes=world.facts["next"].profiles["short"]
    )
    world.policies.set(TWO.replace("cap: 90d", "cap: 5d"))
    await leave_alone(world)
    client = await world.client()
    assert (await client.order(NAME)).upstream == "ca"


async def test_suspended_ca_is_left_for_the_next(world: World) -> None:
    """It broke a rule with another order; this one has done nothing."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.is_away = True
    order = await client.finalize(order)
    now = world.clock.now()
    row = Suspension(
        upstream="ca", upstream_profile=None, since=now, order_id=order.order_id, rule="x"
    )
    await world.store._database.write(
        lambda transaction: transaction.change(SUSPENSIONS.insert, *SUSPENSIONS.values(row))
    )
    assert (await world.finish(order)).upstream == "next"


async def test_account_that_is_lost_sends_orders_to_the_next(world: World) -> None:
    """Where policy has one; the account is recovered meanwhile."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.fail("open_order", Broken("account is gone", left_nothing=True), times=50)
    world.ca.is_away = True
    order = await client.finalize(order)
    del world.facts["ca"]
    assert (await world.finish(order)).upstream == "next"


async def test_limits_of_the_ca_that_is_left_get_their_tokens_back(world: World) -> None:
    """And those of the next are asked: where they leave no room, the order waits."""
    one = PublishedLimit(per=LimitPer.NAMES, rate=Rate(1, timedelta(days=7)))
    world.limits = {"ca": (one,), "next": (one,)}
    client = await world.client()
    order: OrderRecord = await client.ready(NAME)
    world.ca.is_away = True
    order = await client.finalize(order)
    await leave_alone(world)
    assert (await world.finish(order)).upstream == "next"
    assert await level(world, f"ca|ca|names|{NAME}") == 1
    assert await level(world, f"ca|next|names|{NAME}") == 0
    await back(world, "ca")
    other = await client.ready(NAME)
    world.ca.is_away = True
    other = await client.finalize(other)
    await leave_alone(world)
    await world.let_pass(timedelta(hours=1))
    assert (await world.load(other)).upstream == "ca"


async def test_order_that_the_ca_heard_of_stays_counted_there(world: World) -> None:
    """A CA counts the orders that it is asked for, though they end elsewhere."""
    five = PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(5, timedelta(days=7)))
    world.limits = {"ca": (five,)}
    client = await world.client()
    order: OrderRecord = await client.ready(NAME)
    await world.settle()
    assert len(world.ca.orders) == 1
    world.ca.is_away = True
    order = await client.finalize(order)
    await leave_alone(world)
    assert (await world.finish(order)).upstream == "next"
    assert await level(world, "ca|ca|account|default") == 4


async def level(world: World, bucket: str, full: int = 1) -> float:
    """Return what is left, in whole tokens; *full* where nothing is kept."""
    found = await world.store.read_bucket(bucket)
    return full if found is None else round(found.level)


@pytest.mark.parametrize(
    ("upstreams", "before", "after"),
    [
        pytest.param(["next"], 5, 4, id="of the next: taken"),
        pytest.param(["ca"], 4, 5, id="of the one that is left: comes back"),
        pytest.param(["ca", "next"], 4, 4, id="of both: taken once"),
        pytest.param(["other"], 5, 5, id="of neither"),
        pytest.param(None, 4, 4, id="of the asking: stays"),
    ],
)
async def test_quota_counts_where_the_order_goes(
    world: World, upstreams: list[str] | None, before: int, after: int
) -> None:
    """One that names upstreams counts what goes there alone, whenever it goes there."""
    named = None if upstreams is None else frozenset(upstreams)
    under(world, demand(QuotaPer.COMMUNITY, 5, upstreams=named))
    bucket = "policy|default|few|community|default"
    client = await world.client()
    order = await client.ready(NAME)
    assert await level(world, bucket, full=5) == before
    world.ca.is_away = True
    order = await client.finalize(order)
    await leave_alone(world)
    assert (await world.finish(order)).upstream == "next"
    assert await level(world, bucket, full=5) == after


async def test_quota_per_upstream_goes_with_the_order(world: World) -> None:
    """Each CA has its own count."""
    under(world, demand(QuotaPer.UPSTREAM, 5))
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.is_away = True
    order = await client.finalize(order)
    assert await level(world, "policy|default|few|upstream|ca", full=5) == 4
    await leave_alone(world)
    assert (await world.finish(order)).upstream == "next"
    assert await level(world, "policy|default|few|upstream|ca", full=5) == 5
    assert await level(world, "policy|default|few|upstream|next", full=5) == 4


@pytest.mark.parametrize("enforced", [True, False], ids=["enforced", "only warned of"])
async def test_quota_of_the_next_ca_that_is_spent_keeps_the_order_where_it_is(
    world: World, enforced: bool
) -> None:
    """As a limit of that CA's own does; one that only warns is told and keeps nobody."""
    quota = demand(QuotaPer.COMMUNITY, 1, upstreams=frozenset({"next"}), is_enforced=enforced)
    under(world, quota)
    client = await world.client()
    made = [await client.ready(name) for name in (NAME, "b.example.com")]
    world.ca.is_away = True
    made = [await client.finalize(one) for one in made]
    await leave_alone(world)
    await world.let_pass(timedelta(minutes=10))
    seen = [await world.load(one) for one in made]
    moved = [one for one in seen if one.upstream == "next"]
    told = await world.events(EventKind.QUOTA_EXCEEDED)
    assert {one.status for one in moved} == {OrderStatus.VALID}
    if enforced:
        # Which of the two is first nobody says: each waits for a time of its own.
        (kept,) = [one for one in seen if one.upstream == "ca"]
        assert kept.status is OrderStatus.PROCESSING
        assert told == []
        await back(world, "ca")
        assert (await world.finish(kept)).status is OrderStatus.VALID
        assert issued(world) == (1, 1)
    else:
        assert len(moved) == 2
        assert len(told) == 1
        assert told[0].order_id in {one.order_id for one in moved}


async def test_order_of_the_built_in_ca_stays(world: World) -> None:
    """Nobody writes down how far one got there: it may have signed before a crash."""
    client = await world.robot()
    world.policies.set(
        TWO.replace(
            "upstreams: [{upstream: local}]", "upstreams: [{upstream: local}, {upstream: next}]"
        )
    )
    order = await client.order("a.robots.example.com", profile="private")
    world.local.fail("finalize", Unreachable("cut"), after=True, times=3)
    order = await client.finalize(order)
    row = Suspension(
        upstream="local",
        upstream_profile=None,
        since=order.created_at,
        order_id=order.order_id,
        rule="x",
    )
    await world.store._database.write(
        lambda transaction: transaction.change(SUSPENSIONS.insert, *SUSPENSIONS.values(row))
    )
    await world.let_pass(timedelta(minutes=5))
    assert (await world.load(order)).upstream == "local"
    assert second(world).calls == []


# ----------------------------------------------------------------------------------- interruptions


def cuttings() -> list[object]:
    """Return every place at which an order can be cut off, on its way through its first CA."""
    return [
        pytest.param(cutting, id=str(cutting))
        for place, step in enumerate(BY_CHALLENGE)
        for side in Cut
        for cutting in [Cutting(step, BY_CHALLENGE[: place + 1].count(step), side)]
    ]


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("cutting", cuttings())
async def test_cut_off_anywhere_with_its_ca_gone_it_has_one_certificate_of_one_ca(
    tmp_path: Path, cutting: Cutting, power_cut: bool
) -> None:
    """The CA is away when the broker is back, and returns later: between them they sign once."""
    with memory_folder(tmp_path) as folder:
        world = World(folder)
        world.keeps_snapshots = power_cut
        async with world:
            have_two(world)
            going = Traveller(world, await world.client(), "by challenge")
            world.traffic.cutting = cutting
            await going.go_until_cut_off()
            world.ca.is_away = True
            world.clock.advance(timedelta(seconds=20))
            await world.restart(power_cut=power_cut)
            await leave_alone(world)
            order = await come_back(going)
            await world.let_pass(timedelta(minutes=2))
            await back(world, "ca")
            done = await world.finish(order)
            assert done.status is OrderStatus.VALID, done.error
            leaf = leaf_of(await going.client.chain(done))
            assert leaf.public_key() == going.key.public_key()
            assert sorted(issued(world)) == [0, 1]
            await world.let_pass(timedelta(hours=9))
            assert sorted(issued(world)) == [0, 1]
            assert len(await world.certificates()) == 1
            assert await world.jobs() == 0


async def come_back(going: Traveller) -> OrderRecord:
    """Do what a client does that was cut off, up to its finalize."""
    if going.known is None:
        going.known = await going.client.order(going.name)
    order = await going.client.read(going.known)
    if order.status is OrderStatus.PENDING:
        order = await going.client.prove(order)
    await going.world.settle()
    return await going.client.finalize(order, going.csr)
