"""From finalize to certificate: whatever happens on the way, one finalize and one certificate."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from broker.issuance.dispatcher import Postponed
from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import Job, JobKind, OrderRecord, WorkStatus
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.upstreams.authority import IssuerSet, PermittedNames
from tests.fakes.builtin_ca import make_ca, make_world
from tests.fakes.clock import START
from tests.fakes.fake_policies import POLICY
from tests.fakes.fake_upstream import Leaf
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import Client, World, dns, leaf_of, make_csr, new_key

NAME = "www.example.com"
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

BUSY = Unreachable("answered 503")
NONSENSE = Broken("answered with HTML")


async def finalized(world: World, **changes: object) -> OrderRecord:
    """Return an order that was finalized just now, with the CA switched as *changes* say."""
    client = await world.client()
    order = await client.ready(NAME)
    for switch, value in changes.items():
        setattr(world.ca, switch, value)
    return await client.finalize(order)


def has_one_certificate(world: World) -> None:
    """Assert what holds for every order, at the CA: one finalize was taken, one leaf signed."""
    assert (world.ca.accepted, len(world.ca.issued)) == (1, 1)


# ----------------------------------------------------------------------------- no answer, no event


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("after", [False, True], ids=["not heard", "heard, answer lost"])
@pytest.mark.parametrize("outcome", [BUSY, NONSENSE], ids=["unreachable", "broken"])
@pytest.mark.parametrize(
    "method", ["open_order", "authorize", "read_order", "finalize", "download"]
)
async def test_passing_failure_leaves_the_order_processing_and_it_completes_later(
    world: World, method: str, outcome: Exception, after: bool, times: int
) -> None:
    """Each call to the CA, failing before it took effect or after."""
    world.ca.polls = 1
    world.ca.fail(method, outcome, times=times, after=after)
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    assert order.status in (OrderStatus.PROCESSING, OrderStatus.VALID)
    done = await world.finish(order)
    assert done.status is OrderStatus.VALID, done.error
    has_one_certificate(world)
    assert world.ca.unfinalized == []
    await world.let_pass(timedelta(hours=3))
    assert await world.jobs() == 0


async def test_ca_that_is_away_keeps_the_order_processing(world: World) -> None:
    """For hours; when it is back the order completes within a quarter of a minute."""
    world.ca.is_away = True
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    assert order.status is OrderStatus.PROCESSING
    await world.let_pass(timedelta(hours=3))
    assert (await client.read(order)).status is OrderStatus.PROCESSING
    world.ca.is_away = False
    back_at = world.clock.now()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.clock.now() - back_at <= 15 * SECOND
    has_one_certificate(world)


async def test_processing_never_expires(world: World) -> None:
    """The CA may have issued already: only its answer ends the order."""
    order = await finalized(world, holds_back=True)
    await world.let_pass(timedelta(hours=9))
    assert await world.orders.expire_due() == 0
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID


# ----------------------------------------------------------------------------------------- polling


async def test_order_is_polled_until_it_is_valid(world: World) -> None:
    """With growing pauses, and finalized once."""
    order = await finalized(world, polls=5)
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("finalize") == 1
    assert world.clock.now() - START <= 3 * SECOND


async def test_pauses_are_at_least_what_the_ca_named(world: World) -> None:
    """Retry-After is kept."""
    order = await finalized(world, polls=3, retry_after=20 * SECOND)
    await world.finish(order)
    assert world.clock.now() - START >= 40 * SECOND
    assert world.ca.count("read_order") == 3, "all of them after finalize"


async def test_order_that_takes_days_is_looked_at_every_few_minutes(world: World) -> None:
    """A person at the CA may have to look at it; each run makes room for others."""
    order = await finalized(world, holds_back=True)
    await world.let_pass(timedelta(hours=3))
    before = world.ca.count("read_order")
    await world.let_pass(timedelta(hours=1))
    assert 100 <= world.ca.count("read_order") - before <= 600
    (job,) = await world.store.due_jobs(world.clock.now() + DAY, 10)
    assert job.kind is JobKind.FULFIL
    assert "still processing" in str(job.note)
    world.ca.issue_held()
    await world.finish(order)


@pytest.mark.parametrize("attempts", [0, 1, 1023, 1024, 100_000])
async def test_attempts_may_grow_without_bound(world: World, attempts: int) -> None:
    """An order that was looked at for a month is looked at again."""
    order = await finalized(world, holds_back=True)
    again = replace(world.settings, poll_deadline=timedelta(0))
    world.fulfilment._settings = again
    job = Job(kind=JobKind.FULFIL, subject=order.order_id, due_at=START, attempts=attempts)
    with pytest.raises(Postponed) as postponed:
        await world.fulfilment.fulfil(job)
    wait = postponed.value.due_at - world.clock.now()
    assert SECOND <= wait <= timedelta(minutes=5)


@pytest.mark.parametrize("attempts", [0, 1024])
async def test_waiting_for_another_order_may_take_long(world: World, attempts: int) -> None:
    """It is asked for again once a minute at least."""
    world.ca.is_coalescing = True
    first, second = await world.client(), await world.client()
    orders = [await first.ready(NAME), await second.ready(NAME)]
    world.ca.stall("finalize")
    await first.finalize(orders[0])
    await second.finalize(orders[1])
    job = Job(kind=JobKind.FULFIL, subject=orders[1].order_id, due_at=START, attempts=attempts)
    with pytest.raises(Postponed) as postponed:
        await world.drive(_run(world, job))
    assert timedelta(0) <= postponed.value.due_at - world.clock.now() <= timedelta(minutes=1)


async def _run(world: World, job: Job) -> None:
    await world.fulfilment.fulfil(job)


# ------------------------------------------------------------------------------ quirks of finalize


async def test_ca_that_shows_ready_after_finalize_is_not_asked_twice(world: World) -> None:
    """It is polled as if it said processing."""
    order = await finalized(world, shows_ready=True, holds_back=True)
    await world.let_pass(timedelta(minutes=5))
    await world.restart()
    await world.let_pass(timedelta(minutes=5))
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("finalize") == 1


@pytest.mark.parametrize("polls", [1, 4])
async def test_ca_that_shows_ready_after_a_finalize_whose_answer_was_lost(
    world: World, polls: int
) -> None:
    """It refuses the second one, which is no refusal to issue; the order completes."""
    world.ca.lose_answer("finalize")
    order = await finalized(world, shows_ready=True, polls=polls)
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)


async def test_finalize_that_is_refused_though_it_was_done(world: World) -> None:
    """The CA says orderNotReady of an order that is valid already: it is read first."""
    not_ready = Refused(Problem(ProblemType.ORDER_NOT_READY, "order is valid"))
    world.ca.fail("finalize", not_ready, after=True)
    order = await finalized(world)
    assert order.status is OrderStatus.VALID
    has_one_certificate(world)


async def test_order_that_cannot_be_read_after_a_refusal_stays_processing(world: World) -> None:
    """Whether the finalize was taken is unknown until the CA shows the order."""
    world.ca.fail("finalize", Refused(Problem(ProblemType.MALFORMED, "no")), after=True)
    client = await world.client()
    order = await client.ready(NAME)
    stall = world.ca.stall("finalize", after=True)
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    world.ca.fail("read_order", BUSY, times=2)
    stall.release()
    await finalizing
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)


async def test_order_that_is_gone_after_a_refusal_stays_processing(world: World) -> None:
    """The CA refuses the finalize and knows no such order: what became of it is unknown."""
    gone = Refused(Problem(ProblemType.MALFORMED, "no such order", status=404))
    client = await world.client()
    order = await client.ready(NAME)
    stall = world.ca.stall("finalize", after=True)
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    world.ca.fail("read_order", gone, times=6)
    stall.fail_with(gone)
    assert (await finalizing).status is OrderStatus.PROCESSING
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)


async def test_order_that_the_ca_forgets_for_a_moment_is_not_given_up(world: World) -> None:
    """A poll that finds no order, from a replica that lags behind: no event either."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.polls = 2
    gone = Refused(Problem(ProblemType.MALFORMED, "no such order", status=404))
    stall = world.ca.stall("finalize", after=True)
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    world.ca.fail("read_order", gone)
    stall.release()
    await finalizing
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)


async def test_certificate_that_is_kept_back_is_waited_for(world: World) -> None:
    """A valid order whose download is refused: it was issued, so it is not given up."""
    refusal = Refused(Problem(ProblemType.UNAUTHORIZED, "not yet", status=404))
    world.ca.fail("download", refusal, times=4)
    order = await finalized(world)
    assert order.status is OrderStatus.PROCESSING
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (ProblemType.BAD_CSR, "badCSR"),
        (ProblemType.CAA, "caa"),
        (ProblemType.RATE_LIMITED, "rateLimited"),
        (None, "serverInternal"),
    ],
    ids=str,
)
async def test_refused_finalize_ends_the_order(
    world: World, kind: ProblemType | None, told: str
) -> None:
    """With the CA's type where RFC 8555 knows it, and none of its addresses."""
    detail = "see https://ca.example/acct/1"
    problem = Problem(kind, detail, raw_type="https://ca.example/errors/own")
    world.ca.fail("finalize", Refused(problem))
    order = await finalized(world)
    assert order.status is OrderStatus.INVALID
    assert order.error is not None
    assert str(order.error["type"]).endswith(f":{told}")
    assert "ca.example" not in str(order.error)
    assert world.ca.accepted == 0
    assert await world.jobs() == 0
    (event,) = await world.events(EventKind.ORDER_REFUSED)
    assert event.data["type"] == told


async def test_order_that_turns_invalid_after_finalize_is_refused(world: World) -> None:
    """With the reason that the CA's order gives; no second one is opened."""
    order = await finalized(world, polls=2, fails_after_finalize=Problem(ProblemType.CAA, "no CAA"))
    ended = await world.finish(order)
    assert ended.status is OrderStatus.INVALID
    assert "no CAA" in str(ended.error)
    assert world.ca.count("open_order") == 1


async def test_order_that_turns_invalid_without_a_reason_is_refused(world: World) -> None:
    """The client is told so."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.holds_back = True
    await client.finalize(order)
    (theirs,) = world.ca.orders.values()
    theirs.status = OrderStatus.INVALID
    ended = await world.finish(order)
    assert "turned invalid after it was finalized" in str(ended.error)


@pytest.mark.parametrize("quietly", [False, True], ids=["refused", "shown by the order alone"])
async def test_names_that_the_ca_cannot_authorize_end_the_order(
    world: World, quietly: bool
) -> None:
    """Prepared in vain; at finalize it is tried once more, and then the reason is told."""
    world.ca.refuses_names = Problem(ProblemType.DNS, "no TXT record found")
    world.ca.refuses_quietly = quietly
    client = await world.client()
    order = await client.ready(NAME)
    world.clock.advance(SECOND)
    ended = await client.finalize(order)
    assert ended.status is OrderStatus.INVALID
    assert "no TXT record found" in str(ended.error)
    assert world.ca.count("open_order") == 2
    assert world.ca.accepted == 0


async def test_prepared_order_that_has_grown_too_old_at_the_ca_is_replaced(world: World) -> None:
    """It ended before we finalized it; the client notices nothing."""
    client = await world.client()
    order = await client.ready(NAME)
    (url,) = world.ca.orders
    world.ca.expire(url)
    world.clock.advance(60 * SECOND)
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert world.ca.count("open_order") == 2
    has_one_certificate(world)


async def test_order_still_pending_after_its_challenges_is_waited_for(world: World) -> None:
    """Nothing is finalized that is not ready."""
    client = await world.client()
    order = await client.ready(NAME)
    (theirs,) = world.ca.orders.values()
    theirs.status = OrderStatus.PENDING
    world.clock.advance(60 * SECOND)
    authorized = world.ca._authorized
    world.ca._authorized = world.ca._read  # type: ignore[method-assign]
    processing = await client.finalize(order)
    assert processing.status is OrderStatus.PROCESSING
    assert world.ca.count("finalize") == 0
    world.ca._authorized = authorized  # type: ignore[method-assign]
    assert (await world.finish(order)).status is OrderStatus.VALID


# --------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("sent", [b"", b"<html>", b"-----BEGIN CERTIFICATE-----\nMAA=\n"], ids=repr)
async def test_chain_that_is_none_is_asked_for_again(world: World, sent: bytes) -> None:
    """Twice; the third answer may still be the right one."""
    order = await finalized(world, sends=[sent, sent])
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("download") == 3


async def test_three_chains_that_are_none_end_the_order(world: World) -> None:
    """The client is told that nothing usable came."""
    order = await finalized(world, sends=[b"<html>"] * 3)
    ended = await world.finish(order)
    assert ended.status is OrderStatus.INVALID
    assert "no usable certificate chain" in str(ended.error)
    assert await world.certificates() == []


# ---------------------------------------------------------------------------------------- breaches


def too_long(leaf: Leaf) -> Leaf:
    """Two minutes past the cap, one past the tolerance."""
    return replace(leaf, not_after=leaf.not_after + timedelta(minutes=2))


def other_key(leaf: Leaf) -> Leaf:
    """For somebody else."""
    return replace(leaf, public_key=new_key().public_key())


def other_names(leaf: Leaf) -> Leaf:
    """Other names."""
    return replace(leaf, names=(dns("evil.example.com"),))


def name_added(leaf: Leaf) -> Leaf:
    """One name more."""
    return replace(leaf, names=(*leaf.names, dns("evil.example.com")))


def ca_true(leaf: Leaf) -> Leaf:
    """A CA."""
    return replace(leaf, is_ca=True)


def extra_usage(leaf: Leaf) -> Leaf:
    """Client authentication as well."""
    return replace(leaf, usages=(*leaf.usages, ExtendedKeyUsageOID.CLIENT_AUTH))


def no_usage(leaf: Leaf) -> Leaf:
    """Good for everything."""
    return replace(leaf, usages=())


BREACHES: dict[Callable[[Leaf], Leaf], str] = {
    too_long: "past the 90d cap of",
    other_key: "certifies another key",
    other_names: "names evil.example.com beyond the order",
    name_added: "names evil.example.com beyond the order",
    ca_true: "is a CA certificate",
    extra_usage: "extended key usages client-auth",
    no_usage: "no extended key usage",
}


@pytest.mark.parametrize("breach", BREACHES, ids=lambda one: one.__name__)
async def test_certificate_that_breaks_a_rule_is_withheld_and_revoked(
    world: World, breach: Callable[[Leaf], Leaf]
) -> None:
    """The order is invalid and names the rule; nobody can download it; the CA has revoked it."""
    order = await finalized(world, misissue=breach)
    assert (order.status, order.certificate_id) == (OrderStatus.INVALID, None)
    assert order.error is not None
    assert BREACHES[breach] in str(order.error["detail"])
    await world.settle()
    (kept,) = await world.certificates()
    assert (kept.is_released, kept.revocation_reason) == (False, 4)
    assert kept.revoked_at == world.clock.now()
    (theirs,) = world.ca.issued
    assert world.ca.revoked == {hashlib.sha256(theirs.leaf_der).hexdigest(): 4}
    assert await world.count(EventKind.CERTIFICATE_WITHHELD) == 1
    assert await world.count(EventKind.CERTIFICATE_ISSUED) == 0
    assert await world.jobs() == 0


@pytest.mark.parametrize("breach", BREACHES, ids=lambda one: one.__name__)
async def test_breach_suspends_until_a_person_resumes(
    world: World, breach: Callable[[Leaf], Leaf]
) -> None:
    """The next order is refused before the CA hears of it; after resume it passes."""
    order = await finalized(world, misissue=breach)
    (suspension,) = await world.store.suspensions()
    assert (suspension.upstream, suspension.upstream_profile) == ("ca", None)
    assert (suspension.order_id, suspension.since) == (order.order_id, world.clock.now())
    assert BREACHES[breach] in suspension.rule
    world.ca.misissue = lambda leaf: leaf
    await world.settle()
    calls = len(world.ca.calls)
    client = await world.client()
    with pytest.raises(Problem, match="is suspended until an operator resumes it"):
        await client.order(NAME)
    assert len(world.ca.calls) == calls
    assert (await client.issue(NAME, profile="other")).status is OrderStatus.VALID
    await resume(world)
    assert (await client.issue(NAME)).status is OrderStatus.VALID


async def resume(world: World) -> None:
    """Lift the suspension, as an operator."""
    event = Event(
        kind=EventKind.UPSTREAM_RESUMED, at=world.clock.now(), actor=Actor("operator:ann")
    )
    await world.store.resume("ca", None, event)


async def test_certificate_that_was_received_before_is_withheld_and_left_alone(
    world: World,
) -> None:
    """It is somebody's: it is not revoked, and its owner keeps it."""
    client, key = await world.client(), new_key()
    csr = make_csr(NAME, key=key)
    first = await client.finalize(await client.ready(NAME), csr)
    world.ca.sends = [world.ca.issued[0].chain_pem]
    second = await client.finalize(await client.ready(NAME), csr)
    assert second.status is OrderStatus.INVALID
    assert "was received once before" in str(second.error)
    assert world.ca.revoked == {}
    assert len(await world.certificates()) == 1
    assert await client.chain(first) == world.ca.issued[0].chain_pem
    assert len(await world.store.suspensions()) == 1


async def test_end_within_the_tolerance_is_no_breach(world: World) -> None:
    """A CA that counts from its own clock is off by seconds."""
    order = await finalized(
        world, misissue=lambda leaf: replace(leaf, not_after=leaf.not_after + 60 * SECOND)
    )
    assert order.status is OrderStatus.VALID


async def test_breach_is_revoked_even_where_the_ca_is_away_then(world: World) -> None:
    """The job goes on until the CA has heard of it, over a restart too."""
    stall = world.ca.stall("revoke")
    await finalized(world, misissue=too_long)
    await stall.reached.wait()
    world.ca.is_away = True
    await world.restart()
    await world.let_pass(timedelta(hours=1))
    assert world.ca.revoked == {}
    world.ca.is_away = False
    await world.let_pass(15 * SECOND)
    assert list(world.ca.revoked.values()) == [4]
    (kept,) = await world.certificates()
    assert kept.revoked_at is not None


async def test_orders_under_way_wait_while_their_upstream_is_suspended(world: World) -> None:
    """They neither finalize nor end; when a person has resumed it they go on."""
    first, second = await world.client(), await world.client()
    waiting = await second.ready("b.example.com")
    breaking = await first.ready(NAME)
    world.clock.advance(6 * SECOND)
    world.ca.misissue = too_long
    stall = world.ca.stall("read_order")
    finalizing = asyncio.create_task(
        world.orders.finalize(second.account, waiting.order_id, make_csr("b.example.com"))
    )
    await stall.reached.wait()
    assert (await first.finalize(breaking)).status is OrderStatus.INVALID
    world.ca.misissue = lambda leaf: leaf
    stall.fail_with(BUSY)
    await world.let_pass(timedelta(minutes=10))
    assert (await finalizing).status is OrderStatus.PROCESSING
    accepted = world.ca.accepted
    assert accepted == 1
    await resume(world)
    assert (await world.finish(waiting)).status is OrderStatus.VALID


async def test_preparations_wait_while_their_upstream_is_suspended(world: World) -> None:
    """Nothing is opened there ahead of anything."""
    client = await world.client()
    world.ca.is_away = True
    waiting = await client.ready("b.example.com")
    await world.let_pass(timedelta(minutes=1))
    world.ca.is_away = False
    opened = world.ca.count("open_order")
    await finalized(world, misissue=too_long)
    world.ca.misissue = lambda leaf: leaf
    await world.let_pass(timedelta(minutes=5))
    assert world.ca.count("open_order") == opened + 1, "that of the order with the breach"
    await resume(world)
    await world.let_pass(timedelta(minutes=1))
    assert world.ca.count("open_order") == opened + 2
    assert (await client.finalize(waiting)).status is OrderStatus.VALID


async def test_policy_that_changed_meanwhile_withholds_and_suspends_nobody(world: World) -> None:
    """The profile is gone: the certificate is withheld and revoked, and the CA did no wrong."""
    order = await finalized(world, holds_back=True)
    changed = POLICY.replace("  server:\n", "  servers:\n").replace("[server, ", "[")
    world.policies.set(changed.replace("default_profile: server", "default_profile: servers"))
    world.ca.issue_held()
    ended = await world.finish(order)
    assert ended.status is OrderStatus.INVALID
    assert "'server' is not offered" in str(ended.error)
    await world.settle()
    assert list(world.ca.revoked.values()) == [4]
    assert await world.store.suspensions() == []
    assert await world.count(EventKind.UPSTREAM_SUSPENDED) == 0


async def test_usages_that_a_rule_took_out_meanwhile_suspend_nobody(world: World) -> None:
    """The CA gave what the order was finalized with; what it adds itself stays its breach."""
    order = await finalized(world, holds_back=True)
    both = POLICY.replace("usages: [server-auth]", "usages: [server-auth, client-auth]")
    rule = "rules: [{name: clients, because: test, usages: [client-auth]}]\n"
    world.policies.set(both + rule)
    world.ca.issue_held()
    ended = await world.finish(order)
    assert ended.status is OrderStatus.INVALID
    assert "has the extended key usages server-auth" in str(ended.error)
    await world.settle()
    assert list(world.ca.revoked.values()) == [4]
    assert await world.store.suspensions() == []


# ------------------------------------------------------------------------------------- preparation


async def test_upstream_half_is_ready_before_finalize(world: World) -> None:
    """Its challenges are over: finalize needs a finalize and a download."""
    client = await world.client()
    order = await client.ready(NAME)
    assert world.ca.calls == ["open_order", "authorize"]
    (theirs,) = world.ca.orders.values()
    assert theirs.status is OrderStatus.READY
    await client.finalize(order)
    assert world.ca.calls[2:] == ["finalize", "download", "download_alternates"]


@pytest.mark.parametrize(
    ("later", "calls"),
    [
        pytest.param(timedelta(seconds=4), ["finalize"], id="moments-later"),
        pytest.param(timedelta(seconds=5), ["read_order", "finalize"], id="later"),
    ],
)
async def test_what_the_ca_showed_is_believed_for_moments_only(
    world: World, later: timedelta, calls: list[str]
) -> None:
    """A ready order that was seen just now is not read again; one that was seen earlier is."""
    client = await world.client()
    order = await client.ready(NAME)
    world.clock.advance(later)
    await client.finalize(order)
    assert world.ca.calls[2 : 2 + len(calls)] == calls


async def test_what_the_ca_showed_is_forgotten_with_the_process(world: World) -> None:
    """After a restart the CA is asked, since time has passed that nobody measured."""
    client = await world.client()
    order = await client.ready(NAME)
    await world.restart()
    await client.finalize(order)
    assert world.ca.calls[2:] == ["read_order", "finalize", "download", "download_alternates"]


async def test_order_that_ended_after_it_was_seen_ready_is_replaced(world: World) -> None:
    """The CA dropped it in those moments and refuses its finalize: another one is opened."""
    client = await world.client()
    order = await client.ready(NAME)
    (url,) = world.ca.orders
    world.ca.expire(url)
    world.clock.advance(SECOND)
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert world.ca.calls[2:5] == ["finalize", "read_order", "open_order"]
    assert world.ca.orders[url].accepted == 0
    has_one_certificate(world)


async def test_order_that_its_finalize_ended_is_not_replaced(world: World) -> None:
    """The twin: refused for a reason of its own, it may not be tried again by another."""
    world.ca.fail("finalize", Refused(Problem(ProblemType.BAD_CSR, "weak key")))
    client = await world.client()
    order = await client.ready(NAME)
    (url,) = world.ca.orders
    world.ca.expire(url)
    world.clock.advance(SECOND)
    assert (await client.finalize(order)).status is OrderStatus.INVALID
    assert world.ca.count("open_order") == 1


async def test_order_that_is_gone_since_it_was_seen_ready_is_found_again(world: World) -> None:
    """Its finalize was refused by a CA that knows no such order now: that is no end of it."""
    client = await world.client()
    order = await client.ready(NAME)
    ((url, forgotten),) = world.ca.orders.items()
    world.ca.forget(url)
    gone = Refused(Problem(ProblemType.MALFORMED, "no such order", status=404))
    world.ca.fail("finalize", gone)
    assert (await client.finalize(order)).status is OrderStatus.PROCESSING
    world.ca.orders[url] = forgotten
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("open_order") == 1
    has_one_certificate(world)


async def test_authorizations_that_are_valid_already_need_no_challenge(world: World) -> None:
    """The CA's order is ready at once."""
    world.ca.opens_ready = True
    client = await world.client()
    await client.issue(NAME)
    assert "authorize" not in world.ca.calls


async def test_finalize_waits_for_preparations_that_are_under_way(world: World) -> None:
    """One of the two answers the challenges, not both."""
    stall = world.ca.stall("authorize")
    client = await world.client()
    order = await client.ready(NAME)
    await stall.reached.wait()
    processing = await client.finalize(order)
    assert processing.status is OrderStatus.PROCESSING
    assert world.ca.calls == ["open_order", "authorize"]
    stall.release()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.count("authorize") == 1


@pytest.mark.parametrize("method", ["open_order", "authorize"])
async def test_preparations_that_fail_do_not_stand_in_the_way(world: World, method: str) -> None:
    """Finalize does what is left to do."""
    world.ca.fail(method, BUSY, times=5)
    client = await world.client()
    order = await client.ready(NAME)
    assert await world.jobs(JobKind.PREPARE) == 1
    await client.finalize(order)
    assert (await world.finish(order)).status is OrderStatus.VALID
    has_one_certificate(world)
    await world.let_pass(timedelta(minutes=5))
    assert await world.jobs() == 0


async def test_restart_with_little_room_does_not_lock_itself_up(world: World) -> None:
    """Orders that wait for their preparations leave these the room to end."""
    world.ca.is_away = True
    clients = [await world.client() for _ in range(4)]
    orders = [await c.ready(f"n{n}.example.com") for n, c in enumerate(clients)]
    for client, order in zip(clients, orders, strict=True):
        await client.finalize(order)
    await world.let_pass(timedelta(minutes=1))
    world.concurrency = 1
    world.clock.advance(timedelta(minutes=1))
    world.ca.is_away = False
    await world.restart()
    for order in orders:
        assert (await world.finish(order)).status is OrderStatus.VALID


async def shorten_orders(world: World) -> None:
    """Let an order live for ten minutes."""
    world.settings = replace(world.settings, order_lifetime=timedelta(minutes=10))
    await world.restart()


async def test_preparations_for_an_order_that_is_long_gone_are_given_up(world: World) -> None:
    """A CA that was away all day is not asked for what nobody waits for."""
    await shorten_orders(world)
    world.ca.is_away = True
    client = await world.client()
    await client.ready(NAME)
    await world.let_pass(timedelta(minutes=11))
    assert await world.jobs(JobKind.PREPARE) == 0
    world.ca.is_away = False
    await world.let_pass(timedelta(hours=1))
    assert world.ca.orders == {}
    assert (await world.store.outcome_counts())["work_dead"] == 1


async def test_lost_preparation_that_is_given_up_is_counted(world: World) -> None:
    """An order may have been left at the CA."""
    await shorten_orders(world)
    world.ca.lose_answer("open_order")
    client = await world.client()
    await client.ready(NAME)
    world.ca.is_away = True
    await world.let_pass(timedelta(minutes=11))
    assert len(world.ca.unfinalized) == 1
    assert await world.count(EventKind.UPSTREAM_ORDER_LOST) == 1


@pytest.mark.parametrize("kind", [JobKind.PREPARE, JobKind.FULFIL])
async def test_job_whose_subject_is_gone_is_over(world: World, kind: JobKind) -> None:
    """Nothing is done, and nothing goes wrong."""
    run = world.fulfilment.prepare if kind is JobKind.PREPARE else world.fulfilment.fulfil
    await run(Job(kind=kind, subject="nothing", due_at=START))
    assert world.ca.calls == []


async def test_order_in_processing_without_work_is_broken(world: World) -> None:
    """It cannot be; a person is told."""
    order = await finalized(world, holds_back=True)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    await world.store.change_work(
        work.work_id, expected=[WorkStatus.ACCEPTED], status=WorkStatus.DEAD
    )
    with capture_logs() as lines:
        await world.let_pass(timedelta(hours=1))
    assert any("without upstream work" in str(line.get("reason")) for line in lines)


# ----------------------------------------------------------------------------------- interruptions

BY_CHALLENGE = (
    "store.create_order",
    "store.change_challenge",
    "store.change_challenge",
    "store.mark_sent",
    "ca.open_order",
    "store.record_opened",
    "ca.authorize",
    "store.finish_job",
    "store.claim_finalize",
    "store.change_work",
    "ca.finalize",
    "store.change_work",
    "ca.read_order",
    "ca.download",
    "ca.download_alternates",
    "store.close_order",
)
"""What is written and asked for one name, proved by a challenge, at a CA elsewhere."""

GRANTED = (
    "store.create_order",
    "store.mark_sent",
    "ca.open_order",
    "store.record_opened",
    "ca.authorize",
    "store.finish_job",
    "store.claim_finalize",
    "store.change_work",
    "ca.finalize",
    "store.change_work",
    "ca.read_order",
    "ca.download",
    "ca.download_alternates",
    "store.close_order",
)
"""The same for a name that policy grants."""

LOCAL = (
    "store.create_order",
    "store.change_challenge",
    "store.change_challenge",
    "store.claim_finalize",
    "local.open_order",
    "store.record_opened",
    "local.finalize",
    "local.read_order",
    "local.download",
    "store.close_order",
)
"""The same for one name, proved by a challenge, from a CA of our own."""

JOURNEYS = {"by challenge": BY_CHALLENGE, "granted": GRANTED, "local": LOCAL}


def cuttings() -> list[object]:
    """Return every place at which a journey can be cut off."""
    made: list[object] = []
    for journey, steps in JOURNEYS.items():
        for place, step in enumerate(steps):
            occurrence = steps[: place + 1].count(step)
            for side in Cut:
                cutting = Cutting(step, occurrence, side)
                made.append(pytest.param(journey, cutting, id=f"{journey}, {cutting}"))
    return made


class Traveller:
    """A client that goes on from what it knows until it has its certificate."""

    def __init__(self, world: World, client: Client, journey: str) -> None:
        self.world = world
        self.client = client
        self.key = new_key()
        self.name = "r1.robots.example.com" if journey == "granted" else NAME
        self.profile = "private" if journey == "local" else None
        self.csr = make_csr(self.name, key=self.key)
        self.known: OrderRecord | None = None
        self.upstream = world.local if journey == "local" else world.ca
        self.upstream.polls = 1
        # Counted from here on: making the account is no part of the journey.
        world.traffic.steps.clear()
        world.traffic._seen.clear()

    async def go(self) -> OrderRecord:
        """Do what a client does, the same after an interruption as before."""
        if self.known is None:
            self.known = await self.client.order(self.name, profile=self.profile)
        order = await self.client.read(self.known)
        if order.status is OrderStatus.PENDING:
            order = await self.client.prove(order)
        await self.world.settle()
        await self.client.finalize(order, self.csr)
        return await self.world.finish(order)

    async def go_until_cut_off(self) -> None:
        """Go, and vanish when the broker does."""
        going = asyncio.create_task(self.go())
        cut = asyncio.create_task(self.world.traffic.is_cut.wait())
        await asyncio.wait({going, cut}, return_when=asyncio.FIRST_COMPLETED)
        assert cut.done(), "the journey never came by the place where it was to be cut off"
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


async def traveller(world: World, journey: str) -> Traveller:
    """Return a client at the beginning of *journey*."""
    client = await (world.robot() if journey == "granted" else world.client())
    return Traveller(world, client, journey)


def is_step(step: str) -> bool:
    """Tell whether a step writes, or speaks to a CA."""
    reads = ("load_", "find_", "is_", "list_", "suspensions", "work_of", "due_", "known_", "proved")
    reads += ("standing", "sibling_", "has_")
    room, _, method = step.partition(".")
    return room != "store" or not method.startswith(reads)


@pytest.mark.parametrize("journey", JOURNEYS)
async def test_journey_has_the_steps_that_are_cut_below(world: World, journey: str) -> None:
    """No write and no call to a CA is left out."""
    going = await traveller(world, journey)
    assert (await going.go()).status is OrderStatus.VALID
    await world.settle()
    assert tuple(filter(is_step, world.traffic.steps)) == JOURNEYS[journey]


@pytest.mark.parametrize(
    "lists_orders",
    [
        pytest.param(True, id="lists orders"),
        # 4 s of the minute that make check has; make test plays both.
        pytest.param(False, id="lists none", marks=pytest.mark.e2e),
    ],
)
@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize(("journey", "cutting"), cuttings())
async def test_interrupted_anywhere_one_finalize_one_certificate_none_lost(
    tmp_path: Path, journey: str, cutting: Cutting, power_cut: bool, lists_orders: bool
) -> None:
    """The client comes back and gets its certificate; the CA counted one of everything.

    At most one unfinalized order is left there, and then an event tells of it; after a power
    cut the note that it was asked for may be lost with the power.
    """
    with memory_folder(tmp_path) as folder:
        world = World(folder)
        world.keeps_snapshots = power_cut
        async with world:
            going = await traveller(world, journey)
            going.upstream.lists_orders = lists_orders
            world.traffic.cutting = cutting
            await going.go_until_cut_off()
            await world.restart(power_cut=power_cut)
            done = await going.go()
            assert done.status is OrderStatus.VALID, done.error
            leaf = leaf_of(await going.client.chain(done))
            assert leaf.public_key() == going.key.public_key()
            upstream = going.upstream
            assert (upstream.accepted, len(upstream.issued)) == (1, 1)
            assert upstream.revoked == {}
            left = len(upstream.unfinalized)
            lost = await world.count(EventKind.UPSTREAM_ORDER_LOST)
            assert left <= (0 if lists_orders and not power_cut else 1)
            assert left <= lost or power_cut
            assert len(await world.certificates()) == 1
            assert await world.store.suspensions() == []
            await world.let_pass(timedelta(minutes=1))
            assert await world.jobs() == 0


async def test_restart_after_restart_comes_to_the_same_end(world: World) -> None:
    """Cut off at every step of one journey, one after the other."""
    going = await traveller(world, "by challenge")
    for place, step in enumerate(BY_CHALLENGE):
        world.traffic._seen.clear()
        world.traffic.cutting = Cutting(step, 1, Cut.AFTER if place % 2 else Cut.BEFORE)
        task = asyncio.create_task(going.go())
        cut = asyncio.create_task(world.traffic.is_cut.wait())
        await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, cut):
            one.cancel()
        await asyncio.gather(task, cut, return_exceptions=True)
        await world.restart()
    assert (await going.go()).status is OrderStatus.VALID
    has_one_certificate(world)


# --------------------------------------------------------------------------------- durable commits


@pytest.mark.parametrize(
    ("journey", "names", "most"),
    [
        pytest.param("by challenge", 1, 5, id="one name by challenge"),
        pytest.param("by challenge", 5, 5, id="five names by challenge"),
        pytest.param("by challenge", 100, 5, id="a hundred names by challenge"),
        pytest.param("granted", 1, 4, id="one name granted"),
        pytest.param("local", 1, 4, id="one name from a CA of our own"),
        pytest.param("local", 5, 4, id="five names from a CA of our own"),
    ],
)
async def test_order_takes_few_durable_commits(
    world: World, journey: str, names: int, most: int
) -> None:
    """At most five, however many names there are."""
    going = await traveller(world, journey)
    before = world.store.stats().durable_commits
    host = going.name
    listed = [host, *(f"n{n}.{host}" for n in range(names - 1))]
    order = await going.client.order(*listed, profile=going.profile)
    for authorization in await going.client.authorizations(order):
        if authorization.proof is None:
            await going.client.respond(authorization)
            await world.settle()
    await going.client.finalize(await going.client.read(order))
    assert (await world.finish(order)).status is OrderStatus.VALID
    await world.settle()
    # Two that meet in the writer share one commit, on a busy machine.
    assert most - 1 <= world.store.stats().durable_commits - before <= most


async def use_built_in_ca(world: World) -> None:
    """Put the built-in CA, over the same store, in the place of the local upstream."""
    made = await make_world(permitted=PermittedNames(("example.com",)))
    store = world.traffic.watch(world.store, "store", counts=True)
    ca = make_ca(made.signer, world.clock, store, IssuerSet(made.issuing))
    world.upstreams["local"] = ca  # type: ignore[assignment]
    world.facts["local"] = ca.facts()


@pytest.mark.parametrize("names", [1, 5])
async def test_built_in_ca_takes_few_durable_commits(world: World, names: int) -> None:
    """At most five as well: it keeps its certificate in a ledger of its own before it is sent."""
    await use_built_in_ca(world)
    client = await world.client()
    listed = [f"n{n}.example.com" for n in range(names)]
    before = world.store.stats().durable_commits
    order = await client.finalize(await client.ready(*listed, profile="private"))
    assert order.status is OrderStatus.VALID, order.error
    await world.settle()
    assert 4 <= world.store.stats().durable_commits - before <= 5
    (kept,) = await world.certificates()
    assert kept.not_after == START + 90 * DAY


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        pytest.param(Broken("lost", left_nothing=True), WorkStatus.OPENED, id="account-lost"),
        pytest.param(
            Unreachable("away", left_nothing=True), WorkStatus.OPENED, id="never-connected"
        ),
        pytest.param(Broken("nonsense"), WorkStatus.FINALIZING, id="nonsense"),
        pytest.param(Unreachable("no answer"), WorkStatus.FINALIZING, id="no-answer"),
    ],
)
async def test_finalize_that_left_nothing_leaves_no_mark(
    world: World, outcome: Exception, status: WorkStatus
) -> None:
    """The order can still be begun anew then; where it may have got through it cannot."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.fail("finalize", outcome, times=1000)
    await client.finalize(order)
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    assert work.status is status
    world.ca.mend()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.accepted == 1
