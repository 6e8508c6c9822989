"""What a client sees of its orders, and that nobody sees those of another."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.records import JobKind, OrderRecord, Proof
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import Revocation
from broker.protocol.resources import AuthorizationStatus, OrderStatus
from tests.fakes.clock import START
from tests.fakes.world import Client, World, dns, make_csr, new_key

NAME = "www.example.com"
HOUR = timedelta(hours=1)


# ---------------------------------------------------------------------------------------- newOrder


async def test_new_order_is_pending_with_an_authorization_for_each_name(world: World) -> None:
    """It runs under the decision of now, for eight hours."""
    client = await world.client()
    order = await client.order("b.example.com", "a.example.com")
    assert order.status is OrderStatus.PENDING
    assert order.identifiers == (dns("b.example.com"), dns("a.example.com"))
    assert order.expires_at == START + 8 * HOUR
    assert (order.upstream, order.cap_seconds, order.ask_not_after) == ("ca", 90 * 86400, True)
    assert (order.profile, order.is_profile_asked) == ("server", False)
    authorizations = await client.authorizations(order)
    assert [one.identifier for one in authorizations] == list(order.identifiers)
    assert {one.status for one in authorizations} == {AuthorizationStatus.PENDING}
    tokens = {c.token for one in authorizations for c in one.challenges}
    assert len(tokens) == 4
    assert await client.read(order) == order
    assert world.ca.calls == []


async def test_trusted_requester_starts_with_valid_authorizations(world: World) -> None:
    """Its order is ready at once, its names are granted and not proved."""
    robot = await world.robot()
    order = await robot.order("r1.robots.example.com", "*.robots.example.com")
    assert order.status is OrderStatus.READY
    for authorization in await robot.authorizations(order):
        assert authorization.status is AuthorizationStatus.VALID
        assert authorization.proof is Proof.POLICY
    done = await robot.finalize(order)
    assert done.status is OrderStatus.VALID
    assert world.validator.asked == []


async def test_trust_is_for_the_names_that_were_granted(world: World) -> None:
    """One other name in the order has to be proved, and the order waits for it."""
    robot = await world.robot()
    order = await robot.order("r1.robots.example.com", NAME)
    assert order.status is OrderStatus.PENDING
    granted, other = await robot.authorizations(order)
    assert (granted.proof, other.proof) == (Proof.POLICY, None)
    await robot.respond(other)
    await world.settle()
    assert (await robot.read(order)).status is OrderStatus.READY


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param(("denied.example.com",), "denied by policy", id="denied"),
        pytest.param(("www.example.org",), "allowed by no rule", id="not allowed"),
        pytest.param(("*.co.example.com",), "public suffix", id="public suffix"),
    ],
)
async def test_refused_order_leaves_only_its_refusal(
    world: World, names: tuple[str, ...], words: str
) -> None:
    """Nothing is half made; the event tells the check and the rule."""
    client = await world.client()
    before = world.dump()
    with pytest.raises(Problem, match=words) as refused:
        await client.order(*names)
    assert refused.value.type is ProblemType.REJECTED_IDENTIFIER
    (event,) = await world.events(EventKind.REQUEST_REFUSED)
    assert event.data["resource"] == "new-order"
    assert event.account_id == client.account.account_id
    after = world.dump()
    assert {**after, "events": ()} == {**before, "events": ()}


async def test_several_refused_names_are_told_each(world: World) -> None:
    """One subproblem a name."""
    client = await world.client()
    with pytest.raises(Problem) as refused:
        await client.order(NAME, "denied.example.com", "www.example.org")
    told = {str(one.identifier) for one in refused.value.subproblems}
    assert told == {"denied.example.com", "www.example.org"}


async def test_end_that_cannot_be_met_is_refused_before_anything_is_ordered(world: World) -> None:
    """An error, never a silent change."""
    client = await world.client()
    with pytest.raises(Problem, match="past the 90d cap"):
        await client.order(NAME, not_after=START + timedelta(days=91))
    world.facts["ca"] = replace(world.facts["ca"], honours_not_after=False)
    with pytest.raises(Problem, match="does not honour notAfter"):
        await client.order(NAME, not_after=START + timedelta(days=30))
    assert world.ca.calls == []


async def test_end_that_was_asked_for_is_kept(world: World) -> None:
    """The certificate ends when the client said."""
    client = await world.client()
    end = START + timedelta(days=30)
    order = await client.finalize(await client.ready(NAME, not_after=end))
    assert order.status is OrderStatus.VALID
    (certificate,) = await world.certificates()
    assert certificate.not_after == end


# ------------------------------------------------------------------------------------------ expiry


@pytest.mark.parametrize("is_ready", [False, True], ids=["pending", "ready"])
async def test_order_expires(world: World, is_ready: bool) -> None:
    """At its time it is invalid, says so, and cannot be finalized."""
    client = await world.client()
    order = await client.order(NAME)
    if is_ready:
        order = await client.prove(order)
    world.clock.advance(8 * HOUR)
    with pytest.raises(Problem) as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.ORDER_NOT_READY
    ended = await client.read(order)
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert "expired" in str(ended.error["detail"])
    assert await world.count(EventKind.ORDER_EXPIRED) == 1


async def test_sweep_closes_what_has_expired(world: World) -> None:
    """Whether a client looks or not; what is on its way or over is left alone."""
    client = await world.client()
    old = [await client.order(NAME), await client.ready("b.example.com")]
    done = await client.issue("c.example.com")
    world.ca.holds_back = True
    processing = await client.finalize(await client.ready("d.example.com"))
    assert await world.orders.expire_due() == 0
    world.clock.advance(8 * HOUR)
    fresh = await client.order("e.example.com")
    assert await world.orders.expire_due() == 2
    statuses = [(await world.load(one)).status for one in (*old, done, processing, fresh)]
    assert statuses == [
        OrderStatus.INVALID,
        OrderStatus.INVALID,
        OrderStatus.VALID,
        OrderStatus.PROCESSING,
        OrderStatus.PENDING,
    ]
    assert await world.orders.expire_due() == 0


async def test_expiry_and_finalize_at_once_have_one_winner(world: World) -> None:
    """The finalize that lost is told that the order is not ready, not that another CSR won."""
    client = await world.client()
    order = await client.ready(NAME)
    claim = world.traffic.stall("store.claim_finalize")
    finalizing = asyncio.create_task(client.finalize(order))
    await claim.reached.wait()
    world.clock.advance(8 * HOUR)
    assert await world.orders.expire_due() == 1
    claim.release()
    with pytest.raises(Problem, match="order is invalid; finalize wants it ready"):
        await finalizing


# ---------------------------------------------------------------------------------------- finalize


async def test_eight_finalizes_at_once_give_one_certificate(world: World) -> None:
    """The same CSR eight times: each is answered with the one order."""
    client = await world.client()
    order, csr = await client.ready(NAME), make_csr(NAME)
    answers = await asyncio.gather(*(client.finalize(order, csr) for _ in range(8)))
    assert {answer.status for answer in answers} == {OrderStatus.VALID}
    assert len({answer.certificate_id for answer in answers}) == 1
    assert (world.ca.accepted, len(world.ca.issued), len(world.ca.orders)) == (1, 1, 1)
    assert len(await world.certificates()) == 1
    assert await world.count(EventKind.ORDER_FINALIZED) == 1


async def test_eight_finalizes_at_once_with_eight_csrs_give_one_certificate(world: World) -> None:
    """One wins, the others are told so; the certificate is for the winner's key."""
    client = await world.client()
    order = await client.ready(NAME)
    csrs = [make_csr(NAME) for _ in range(8)]
    answers = await asyncio.gather(
        *(client.finalize(order, csr) for csr in csrs), return_exceptions=True
    )
    won = [n for n, answer in enumerate(answers) if isinstance(answer, OrderRecord)]
    lost = [answer for answer in answers if isinstance(answer, Problem)]
    assert (len(won), len(lost)) == (1, 7)
    assert {(one.type, one.detail) for one in lost} == {
        (ProblemType.ORDER_NOT_READY, "this order was finalized with another CSR already")
    }
    assert (world.ca.accepted, len(world.ca.issued), len(world.ca.orders)) == (1, 1, 1)
    assert world.ca.issued[0].csr_der == csrs[won[0]]


async def test_finalize_waits_for_a_fast_upstream(world: World) -> None:
    """The answer to finalize has the certificate already; no time has passed."""
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    assert order.status is OrderStatus.VALID
    assert world.clock.now() == START


async def test_finalize_says_processing_after_a_few_seconds(world: World) -> None:
    """A slow CA keeps no client waiting for longer than configured."""
    client = await world.client()
    world.ca.holds_back = True
    order = await client.finalize(await client.ready(NAME))
    assert order.status is OrderStatus.PROCESSING
    assert world.clock.now() - START == world.settings.finalize_wait
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID


async def test_same_csr_again_is_answered_with_the_order(world: World) -> None:
    """While it is processing, when it is valid and when it is invalid."""
    client = await world.client()
    order, csr = await client.ready(NAME), make_csr(NAME)
    world.ca.holds_back = True
    for _ in range(2):
        assert (await client.finalize(order, csr)).status is OrderStatus.PROCESSING
    world.ca.issue_held()
    await world.finish(order)
    assert (await client.finalize(order, csr)).status is OrderStatus.VALID
    world.ca.holds_back = False
    world.ca.fails_after_finalize = Problem(ProblemType.CAA, "forbidden")
    failing, csr = await client.ready("b.example.com"), make_csr("b.example.com")
    for _ in range(2):
        assert (await client.finalize(failing, csr)).status is OrderStatus.INVALID
    assert world.ca.accepted == 2


async def test_other_csr_is_refused_once_one_was_accepted(world: World) -> None:
    """Whatever became of the order, it has one CSR for good."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.holds_back = True
    await client.finalize(order)
    for _ in range(2):
        with pytest.raises(Problem, match="another CSR already") as refused:
            await client.finalize(order, make_csr(NAME))
        assert refused.value.type is ProblemType.ORDER_NOT_READY
        world.ca.issue_held()
        await world.finish(order)
    assert world.ca.accepted == 1


async def test_order_that_is_not_ready_cannot_be_finalized(world: World) -> None:
    """A pending order says so and stays pending."""
    client = await world.client()
    order = await client.order(NAME)
    with pytest.raises(Problem, match="order is pending; finalize wants it ready") as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.ORDER_NOT_READY
    assert (await client.read(order)).status is OrderStatus.PENDING


async def test_finalize_that_the_store_did_not_take_can_be_repeated(world: World) -> None:
    """Nothing was claimed, so nothing is lost."""
    client = await world.client()
    order = await client.ready(NAME)
    claim, csr = world.traffic.stall("store.claim_finalize"), make_csr(NAME)
    claim.fail_with(Unreachable("store has no space left on its disk"))
    with pytest.raises(Unreachable):
        await client.finalize(order, csr)
    assert (await client.finalize(order, csr)).status is OrderStatus.VALID


async def test_account_that_is_deactivated_while_its_order_is_processing(world: World) -> None:
    """What the CA was asked for comes and is kept; nothing is left hanging."""
    client = await world.client()
    world.ca.holds_back = True
    order = await client.finalize(await client.ready(NAME))
    await world.accounts.deactivate(client.account, Actor("operator:ann"))
    world.ca.issue_held()
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert await world.jobs() == 0


# ----------------------------------------------------------------------------------------- accounts


@dataclass
class Estate:
    """What one account has: one object of each kind, in each state that matters."""

    owner: Client
    pending: OrderRecord
    ready: OrderRecord
    valid: OrderRecord
    ids: dict[str, str]
    certificate_der: bytes


async def estate_of(owner: Client) -> Estate:
    """Let *owner* have one of everything."""
    pending = await owner.order("pending.example.com")
    ready = await owner.ready("ready.example.com")
    valid = await owner.issue("valid.example.com")
    (authorization,) = await owner.authorizations(pending)
    (proved,) = await owner.authorizations(ready)
    assert valid.certificate_id is not None
    ids = {
        "pending order": pending.order_id,
        "ready order": ready.order_id,
        "valid order": valid.order_id,
        "authorization": authorization.authorization_id,
        "proved authorization": proved.authorization_id,
        "challenge": authorization.challenges[0].challenge_id,
        "certificate": valid.certificate_id,
    }
    return Estate(owner, pending, ready, valid, ids, await owner.leaf_der(valid))


Verb = Callable[[Client, Estate, str], Awaitable[object]]


async def read_order(who: Client, estate: Estate, id_: str) -> object:
    """Read as an order."""
    return await who.world.orders.read(who.account, id_)


async def finalize(who: Client, estate: Estate, id_: str) -> object:
    """Finalize as an order."""
    csr = make_csr("ready.example.com")
    return await who.world.drive(who.world.orders.finalize(who.account, id_, csr))


async def read_authorization(who: Client, estate: Estate, id_: str) -> object:
    """Read as an authorization."""
    return await who.world.authorizations.read(who.account, id_)


async def respond(who: Client, estate: Estate, id_: str) -> object:
    """Respond to the known challenge of what is taken for an authorization."""
    return await who.world.authorizations.respond(who.account, id_, estate.ids["challenge"])


async def respond_from_own(who: Client, estate: Estate, id_: str) -> object:
    """Respond to what is taken for a challenge, by way of an authorization of one's own."""
    if who is estate.owner:
        own = estate.ids["authorization"]
    else:
        own = (
            await who.world.store.list_orders(
                community=None,
                account_id=who.account.account_id,
                status=None,
                after=None,
                limit=1,
            )
        )[0].authorization_ids[0]
    return await who.world.authorizations.respond(who.account, own, id_)


async def deactivate(who: Client, estate: Estate, id_: str) -> object:
    """Deactivate as an authorization."""
    return await who.world.authorizations.deactivate(who.account, id_)


async def download(who: Client, estate: Estate, id_: str) -> object:
    """Download as a certificate."""
    return await who.world.renewing.handover.certificate(who.account, id_)


async def revoke(who: Client, estate: Estate, id_: str) -> object:
    """Revoke the certificate; it goes by itself and by no id."""
    asked = Revocation(estate.certificate_der, 0)
    revoking = who.world.revocations.revoke(
        who.account.community, asked, account=who.account, key=None
    )
    return await who.world.drive(revoking)


FITTING: dict[Verb, set[str]] = {
    read_order: {"pending order", "ready order", "valid order"},
    finalize: {"ready order"},
    read_authorization: {"authorization", "proved authorization"},
    respond: {"authorization"},
    respond_from_own: {"challenge"},
    deactivate: {"authorization", "proved authorization"},
    download: {"certificate"},
    revoke: {"certificate"},
}
"""Verb → the kinds of object that it is for."""

KINDS = [
    "pending order",
    "ready order",
    "valid order",
    "authorization",
    "proved authorization",
    "challenge",
    "certificate",
]

PAIRS = [
    pytest.param(verb, kind, id=f"{verb.__name__} {kind}")
    for verb in FITTING
    for kind in KINDS
    if verb is not revoke or kind == "certificate"
]


async def same_community(world: World, owner: Client) -> Client:
    """Return a stranger in the owner's community."""
    return await world.client()


async def other_community(world: World, owner: Client) -> Client:
    """Return a stranger elsewhere."""
    return await world.client("lab")


async def same_key_elsewhere(world: World, owner: Client) -> Client:
    """Return the owner's own key, which in another community is another account."""
    return await world.client("lab", key=owner.key)


@pytest.mark.parametrize(
    "stranger", [same_community, other_community, same_key_elsewhere], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("verb", FITTING, ids=lambda one: one.__name__)
async def test_no_account_can_do_anything_to_another_ones(
    world: World, verb: Verb, stranger: Callable[[World, Client], Awaitable[Client]]
) -> None:
    """For each kind it gets 404 or 403, as for what does not exist, and not a row changes."""
    estate = await estate_of(await world.client())
    foreign = await stranger(world, estate.owner)
    await foreign.order("mine.example.com")
    await world.settle()
    before, calls = world.dump(), len(world.ca.calls)
    for kind in KINDS:
        with pytest.raises(Problem) as refused:
            await verb(foreign, estate, estate.ids[kind])
        assert refused.value.status in (403, 404), kind
        assert "example" not in refused.value.detail, kind
        await world.settle()
        assert world.dump() == before, kind
    assert len(world.ca.calls) == calls


@pytest.mark.parametrize(("verb", "kind"), PAIRS)
async def test_account_can_do_to_its_own_what_fits(world: World, verb: Verb, kind: str) -> None:
    """The same calls pass for the owner, where verb and kind go together, and only there."""
    estate = await estate_of(await world.client())
    if kind in FITTING[verb]:
        await verb(estate.owner, estate, estate.ids[kind])
        return
    with pytest.raises(Problem) as refused:
        await verb(estate.owner, estate, estate.ids[kind])
    assert refused.value.status in (403, 404)


async def test_withheld_certificate_cannot_be_downloaded(world: World) -> None:
    """Not even by the account that it was issued for."""
    client = await world.client()
    world.ca.misissue = lambda leaf: replace(leaf, public_key=new_key().public_key())
    order = await client.finalize(await client.ready(NAME))
    assert (order.status, order.certificate_id) == (OrderStatus.INVALID, None)
    (kept,) = await world.certificates()
    with pytest.raises(Problem) as refused:
        await world.renewing.handover.certificate(client.account, kept.certificate_id)
    assert refused.value.status == 404


async def test_nothing_of_the_upstream_is_in_what_a_client_is_told(world: World) -> None:
    """No URL of the CA's, whatever it refuses with."""
    client = await world.client()
    told: list[Any] = []
    url = "https://ca.example/order/1"
    world.ca.fails_after_finalize = Problem(
        ProblemType.CAA,
        f"see {url} or ca.example/acct/7 <{url}>, order_{url}",
        instance=url,
        subproblems=[Problem(ProblemType.CAA, f"at {url}", identifier=dns(NAME))],
    )
    told.append(await client.finalize(await client.ready(NAME)))
    world.ca.fails_after_finalize = None
    done = await client.issue("b.example.com")
    told += [done, await client.authorizations(done), await client.chain(done)]
    assert "ca.example" not in repr([one for one in told if not isinstance(one, bytes)])
    assert told[0].error is not None
    assert told[0].error["subproblems"][0]["identifier"]["value"] == NAME


async def test_no_job_is_left_behind_a_finished_order(world: World) -> None:
    """Neither of validation nor of either half."""
    client = await world.client()
    await client.issue(NAME, "b.example.com")
    for kind in JobKind:
        assert await world.jobs(kind) == 0
