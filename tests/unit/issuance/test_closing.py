"""An order ends once, with everything that belongs to its end, and tells no address."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.closing import told_to_client
from broker.issuance.events import EventKind
from broker.issuance.records import JobKind, OrderRecord, WorkRecord, WorkStatus
from broker.issuance.release import Received
from broker.policy.decisions import Finding
from broker.protocol.problems import Problem, ProblemType, ReportedIdentifier
from broker.protocol.resources import OrderStatus
from broker.protocol.transitions import IllegalTransition
from tests.fakes.world import World, make_csr

NAME = "www.example.com"


async def processing(world: World) -> tuple[OrderRecord, WorkRecord]:
    """Return an order on its way, with its work, while nothing happens to it."""
    world.ca.holds_back = True
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    return order, work


async def judged(world: World, order: OrderRecord) -> Received:
    """Return a certificate that the CA has issued for *order* by now."""
    world.ca.issue_held()
    return await world.gate.judge(order, world.ca.issued[-1].chain_pem)


# ------------------------------------------------------------------------------------ what is told


@pytest.mark.parametrize(
    "text",
    [
        "https://ca.example/order/1",
        "see HTTPS://CA.EXAMPLE/order/1.",
        "order_https://ca.example/order/1 ended",
        "(<http://ca.example:14000/a?b=c#d>)",
        "//ca.example/order/1",
        "ca.example/order/1",
        "at ca.example:14000/order/1,",
        "acme+tls://ca.example",
        "one https://ca.example/1 two https://ca.example/2",
    ],
    ids=repr,
)
def test_no_address_of_the_upstream_is_told(text: str) -> None:
    """Neither in the problem nor below it, with a scheme or without."""
    problem = Problem(
        ProblemType.CAA,
        f"{text} refused",
        instance="https://ca.example/terms",
        links=(("up", "https://ca.example/up"),),
        location="https://ca.example/location",
        algorithms=("ES256",),
        subproblems=[
            Problem(
                ProblemType.DNS,
                f"because {text}",
                identifier=ReportedIdentifier("https://ca.example/type", text),
            )
        ],
    )
    told = told_to_client("letsencrypt", problem)
    assert "ca.example" not in str(told.to_json()).lower()
    assert (told.instance, told.links, told.location, told.algorithms) == (None, (), None, None)
    assert told.detail.startswith("upstream 'letsencrypt' refused: ")


@pytest.mark.parametrize(
    "text",
    [
        "CAA record for www.example.com prevents issuance",
        "rate limit of 5 certificates per 7 days for {www.example.com}",
        "no TXT record at _acme-challenge.www.example.com",
        "key has 1024 bits, at least 2048 and/or more",
    ],
    ids=repr,
)
def test_the_reason_itself_is_told(text: str) -> None:
    """Names are not addresses: the client reads what it would have read at the CA."""
    assert text in told_to_client("letsencrypt", Problem(ProblemType.CAA, text)).detail


def test_type_is_passed_on_where_it_is_registered() -> None:
    """A client branches on it; what only the CA knows becomes serverInternal."""
    own = Problem(None, "no", raw_type="https://ca.example/errors/own")
    for given, expected in (
        (Problem(ProblemType.RATE_LIMITED, "no"), ProblemType.RATE_LIMITED),
        (own, ProblemType.SERVER_INTERNAL),
    ):
        told = told_to_client("ca", Problem(given.type, "no", raw_type=given.raw_type))
        assert told.type is expected
    nested = told_to_client("ca", Problem(ProblemType.COMPOUND, "no", subproblems=[own]))
    assert nested.subproblems[0].type is ProblemType.SERVER_INTERNAL


def test_identifier_of_a_subproblem_is_told() -> None:
    """The client has to know which of its names it was."""
    below = Problem(ProblemType.CAA, "no", identifier=ReportedIdentifier("dns", NAME))
    told = told_to_client("ca", Problem(ProblemType.COMPOUND, "no", subproblems=[below, below]))
    assert [one.identifier for one in told.subproblems] == [ReportedIdentifier("dns", NAME)] * 2


# ------------------------------------------------------------------------------------------- ends


async def test_issued_order_has_all_of_its_end(world: World) -> None:
    """Certificate, status, spent work, event, and no job, in one transaction."""
    order, work = await processing(world)
    received = await judged(world, order)
    before = world.store.stats().units
    await world.closing.issued(order, work, received, is_local=False)
    assert world.store.stats().units == before + 1
    done = await world.load(order)
    assert (done.status, done.certificate_id) == (
        OrderStatus.VALID,
        received.certificate.certificate_id,
    )
    assert await world.jobs(JobKind.FULFIL) == 0
    spent = await world.store.load_work(work.work_id)
    assert spent is not None
    assert spent.status is WorkStatus.SPENT
    (event,) = await world.events(EventKind.CERTIFICATE_ISSUED)
    assert event.data["fingerprint"] == received.certificate.fingerprint
    assert event.data["identifiers"] == [NAME]


async def test_refused_order_has_all_of_its_end(world: World) -> None:
    """Error, dead work, event, and no job."""
    order, work = await processing(world)
    own = Problem(None, "no", raw_type="https://ca.example/errors/own")
    await world.closing.refused_upstream(order, work, own)
    ended = await world.load(order)
    assert ended.status is OrderStatus.INVALID
    assert await world.jobs(JobKind.FULFIL) == 0
    dead = await world.store.load_work(work.work_id)
    assert dead is not None
    assert dead.status is WorkStatus.DEAD
    (event,) = await world.events(EventKind.ORDER_REFUSED)
    assert event.data["upstream_problem"] == "https://ca.example/errors/own", "for the operator"


async def test_unusable_chain_is_told_without_what_came(world: World) -> None:
    """A CA's text may hold anything."""
    order, work = await processing(world)
    await world.closing.unusable_chain(order, work, "see https://ca.example/order/1")
    ended = await world.load(order)
    assert ended.status is OrderStatus.INVALID
    assert "ca.example" not in str(ended.error)


async def test_second_end_changes_nothing(world: World) -> None:
    """Another run was faster; what it kept stands."""
    order, work = await processing(world)
    received = await judged(world, order)
    await world.closing.issued(order, work, received, is_local=False)
    before = world.dump()
    await world.closing.issued(order, work, received, is_local=False)
    await world.closing.refused_upstream(order, work, Problem(ProblemType.CAA, "no"))
    await world.closing.withheld(order, work, received)
    await world.settle()
    assert world.dump() == before
    assert world.ca.revoked == {}


async def test_order_that_is_not_processing_is_not_closed(world: World) -> None:
    """It would be a fault of ours, and the table of transitions says so."""
    order, work = await processing(world)
    received = await judged(world, order)
    with pytest.raises(IllegalTransition):
        await world.closing.issued(
            replace(order, status=OrderStatus.READY), work, received, is_local=False
        )


async def test_certificate_that_another_order_kept_a_moment_before_is_judged_again(
    world: World,
) -> None:
    """Two orders get one certificate and neither knew it: one keeps it, the other says why not."""
    world.ca.opens_ready = True
    client = await world.client()
    csr = make_csr(NAME)
    first, second = await client.ready(NAME), await client.ready(NAME)
    close = world.traffic.stall("store.close_order")
    finalizing = asyncio.create_task(world.orders.finalize(client.account, first.order_id, csr))
    await close.reached.wait()
    world.ca.sends = [world.ca.issued[0].chain_pem]
    await world.orders.finalize(client.account, second.order_id, csr)
    assert (await world.load(second)).status is OrderStatus.VALID
    close.release()
    world.ca.sends = []
    answer = await world.drive(asyncio.wait_for(finalizing, None))
    ended = await world.finish(answer)
    assert ended.status is OrderStatus.INVALID
    assert "was received once before" in str(ended.error)
    assert world.ca.revoked == {}
    assert len(await world.certificates()) == 1
    assert await world.jobs() == 0


# --------------------------------------------------------------------------------------- breaches


def found(check: str) -> Finding:
    """Return a finding of *check*."""
    return Finding(check=check, type=ProblemType.SERVER_INTERNAL, sentence=f"{check} is wrong")


@pytest.mark.parametrize(
    ("checks", "rule"),
    [
        pytest.param(("issued-end",), "issued-end is wrong", id="the upstream's"),
        pytest.param(("profile-offered",), None, id="policy's"),
        pytest.param(("profile-offered", "issued-key"), "issued-key is wrong", id="both"),
    ],
)
async def test_upstream_is_suspended_for_its_own_faults_alone(
    world: World, checks: tuple[str, ...], rule: str | None
) -> None:
    """Whoever is at fault, the certificate is withheld and revoked."""
    order, work = await processing(world)
    received = replace(await judged(world, order), findings=tuple(found(check) for check in checks))
    await world.closing.withheld(order, work, received)
    await world.settle()
    assert [one.rule for one in await world.store.suspensions()] == ([rule] if rule else [])
    assert await world.count(EventKind.UPSTREAM_SUSPENDED) == bool(rule)
    assert list(world.ca.revoked.values()) == [4]
    ended = await world.load(order)
    assert all(f"{check} is wrong" in str(ended.error) for check in checks)


async def test_lost_upstream_order_is_counted(world: World) -> None:
    """With the work it was for."""
    _, work = await processing(world)
    await world.closing.count_lost(work)
    (event,) = await world.events(EventKind.UPSTREAM_ORDER_LOST)
    assert (event.upstream, event.data["work_id"]) == ("ca", work.work_id)


async def test_replacement_is_the_same_request_anew(world: World) -> None:
    """Taken by the order, and not sent yet."""
    order, work = await processing(world)
    world.clock.advance(timedelta(seconds=1))
    anew = world.closing.replacement(order, work)
    assert anew.work_id != work.work_id
    assert (anew.status, anew.order_url, anew.is_sent) == (WorkStatus.INTENDED, None, False)
    assert (anew.taken_by, anew.created_at) == (order.order_id, world.clock.now())
    assert (anew.work_key, anew.identifiers, anew.not_after) == (
        work.work_key,
        work.identifiers,
        work.not_after,
    )


@pytest.mark.parametrize("passed", [timedelta(minutes=1), timedelta(hours=-1)], ids=str)
async def test_work_that_is_begun_anew_is_no_older_than_its_finalize(
    world: World, passed: timedelta
) -> None:
    """Or its refusal would never be one, and another would be begun, as long as the clock is
    behind."""
    order, work = await processing(world)
    world.clock.advance(passed)
    assert order.finalized_at is not None
    anew = world.closing.replacement(order, work)
    assert anew.created_at == max(world.clock.now(), order.finalized_at)
    assert (anew.status, anew.taken_by) == (WorkStatus.INTENDED, order.order_id)
