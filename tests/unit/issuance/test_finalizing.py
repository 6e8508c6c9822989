"""A finalize is judged afresh: by its CSR, and by the stricter of two versions of the policy."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.issuance.errors import Broken
from broker.issuance.events import EventKind
from broker.issuance.freeze_ports import FreezeKind
from broker.issuance.records import OrderRecord, Suspension, WorkStatus
from broker.policy.decisions import QuotaPer
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.protocol.csr import ParsedCsr, parse_csr
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from broker.storage.rows import SUSPENSIONS
from tests.fakes.clock import START
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import World, always, leaf_of, make_csr, new_key
from tests.unit.issuance.test_failover import TWO, back, have_two, issued, leave_alone, level
from tests.unit.issuance.test_freezes import freeze
from tests.unit.issuance.test_quotas import WEEK, demand, under

NAME = "www.example.com"
DAY = timedelta(days=1)


async def refusal(world: World, csr_der: bytes) -> Problem:
    """Return how a CSR is refused for an order of its name, which stays ready."""
    client = await world.client()
    order = await client.ready(NAME)
    with pytest.raises(Problem) as refused:
        await client.finalize(order, csr_der)
    assert (await client.read(order)).status is OrderStatus.READY
    assert world.ca.count("finalize") == 0
    assert (await client.finalize(order)).status is OrderStatus.VALID
    return refused.value


# ----------------------------------------------------------------------------------------- the CSR


@pytest.mark.parametrize(
    "csr_der",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x03\x02\x01\x00", id="no CSR"),
        pytest.param(make_csr("other.example.com"), id="other name"),
        pytest.param(make_csr(NAME, "other.example.com"), id="one name more"),
        pytest.param(make_csr(NAME, common_name="other.example.com"), id="other common name"),
    ],
)
async def test_bad_csr_leaves_the_order_ready(world: World, csr_der: bytes) -> None:
    """The client may try again with a better one, and that passes."""
    assert (await refusal(world, csr_der)).type is ProblemType.BAD_CSR


async def test_key_of_a_kind_that_policy_does_not_allow_is_refused(world: World) -> None:
    """The sentence names the kinds that are."""
    key = rsa.generate_private_key(65537, 2048)
    problem = await refusal(world, make_csr(NAME, key=key))  # type: ignore[arg-type]
    assert problem.type is ProblemType.BAD_PUBLIC_KEY
    assert "ec-p256" in problem.detail


async def test_weak_key_is_refused(world: World) -> None:
    """With what is known of it."""
    csr = make_csr(NAME)
    world.inspector.weak[parse_csr(csr).spki_sha256] = "it stands in a block list"
    problem = await refusal(world, csr)
    assert problem.type is ProblemType.BAD_PUBLIC_KEY
    assert "block list" in problem.detail


@pytest.mark.parametrize("community", ["default", "lab"])
async def test_account_key_is_no_certificate_key(world: World, community: str) -> None:
    """Neither one's own nor that of another account, in whichever community."""
    other = await world.client(community)
    problem = await refusal(world, make_csr(NAME, key=other.key))
    assert problem.type is ProblemType.BAD_CSR
    assert "account key" in problem.detail


async def test_csr_travels_byte_for_byte(world: World) -> None:
    """What the CA got is what the client sent."""
    client = await world.client()
    csr, key = make_csr(NAME, common_name=NAME), new_key()
    await client.finalize(await client.ready(NAME), csr)
    await client.finalize(await client.ready("b.example.com"), make_csr("b.example.com", key=key))
    assert world.ca.issued[0].csr_der == csr
    (chain,) = [one.chain_pem for one in await world.certificates() if "b." in str(one.identifiers)]
    assert leaf_of(chain).public_key() == key.public_key()


# ------------------------------------------------------------------------------ policy that changed


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        pytest.param("deny: [", f"deny: [{NAME}, ", "denied by policy", id="name denied"),
        pytest.param(
            'allow: ["**.example.com"]', 'allow: ["**.corp.example"]', "no rule", id="names"
        ),
        pytest.param("allow: [ec-p256]", "allow: [rsa-2048]", "rsa-2048", id="keys"),
        pytest.param("  server:\n", "  servers:\n", "not offered", id="profile gone"),
    ],
)
async def test_policy_that_was_tightened_after_new_order_is_applied(
    world: World, before: str, after: str, words: str
) -> None:
    """The order stays ready: the rule may be taken back, and then it passes."""
    client = await world.client()
    order = await client.ready(NAME)
    text = POLICY.replace(before, after)
    if after == "  servers:\n":
        text = text.replace("[server, private]", "[servers, private]")
        text = text.replace("default_profile: server", "default_profile: servers")
    world.policies.set(text)
    with pytest.raises(Problem, match=words):
        await client.finalize(order)
    assert (await client.read(order)).status is OrderStatus.READY
    assert world.ca.count("finalize") == 0
    event = (await world.events(EventKind.REQUEST_REFUSED))[-1]
    assert (event.data["resource"], event.order_id) == ("finalize", order.order_id)
    world.policies.set(POLICY)
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_finalize_is_judged_by_one_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that comes into force in the middle of it counts for the next one."""
    client = await world.client()
    order = await client.ready(NAME)
    inspect = world.inspector.inspect

    async def meanwhile(csr: ParsedCsr) -> Sequence[str]:
        world.policies.change("allow: [ec-p256]", "allow: [rsa-2048]")
        return await inspect(csr)

    monkeypatch.setattr(world.inspector, "inspect", meanwhile)
    assert (await client.finalize(order)).status is OrderStatus.VALID
    with pytest.raises(Problem, match="rsa-2048"):
        await client.finalize(await client.ready(f"two.{NAME}"))


async def test_grant_that_was_withdrawn_is_no_longer_worth_anything(world: World) -> None:
    """Nobody proved the name, so without the rule nothing speaks for it."""
    robot = await world.robot()
    order = await robot.order("r1.robots.example.com")
    assert order.status is OrderStatus.READY
    world.policies.change('["**.robots.example.com"]', '["**.other.example.com"]')
    with pytest.raises(Problem, match="granted without a challenge") as refused:
        await robot.finalize(order)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    world.policies.set(POLICY)
    assert (await robot.finalize(order)).status is OrderStatus.VALID


async def test_name_that_was_proved_needs_no_grant(world: World) -> None:
    """The same rule gone, and the order passes: it had shown control."""
    client = await world.client()
    order = await client.ready("r1.robots.example.com")
    world.policies.change('["**.robots.example.com"]', '["**.other.example.com"]')
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_cap_that_was_tightened_holds(world: World) -> None:
    """What was prepared under the longer cap is not used for this order."""
    client = await world.client()
    order = await client.ready(NAME)
    world.policies.change("cap: 90d", "cap: 30d")
    done = await client.finalize(order)
    assert done.status is OrderStatus.VALID
    assert (done.cap_seconds, done.decision["cap"]) == (30 * 86400, "30d")
    (certificate,) = await world.certificates()
    assert certificate.not_after == START + 30 * DAY
    assert [one.request.not_after for one in world.ca.unfinalized] == [START + 90 * DAY]


async def test_cap_that_was_loosened_does_not_grow(world: World) -> None:
    """The order keeps the cap that it was made under, and asks the CA for that; no breach."""
    client = await world.client()
    order = await client.ready(NAME)
    world.policies.change("cap: 90d", "cap: 300d")
    done = await client.finalize(order)
    assert done.status is OrderStatus.VALID, done.error
    assert (done.cap_seconds, done.decision["cap"]) == (90 * 86400, "90d")
    assert done.decision["cap_rule"] == order.decision["cap_rule"]
    (certificate,) = await world.certificates()
    assert certificate.not_after == START + 90 * DAY
    assert len(world.ca.orders) == 1, "the work that was prepared is taken"
    assert await world.store.suspensions() == []


async def test_choice_that_only_a_looser_cap_allows_is_not_taken(world: World) -> None:
    """The preferred upstream was too long at newOrder, and is too long for this order still."""
    client = await world.client()
    for name, lifetime in (("ca", 300 * DAY), ("local", 30 * DAY)):
        world.facts[name] = replace(
            world.facts[name], honours_not_after=False, default_lifetimes=(always(lifetime),)
        )
    world.ca.honours_not_after = world.local.honours_not_after = False
    world.ca.lifetime, world.local.lifetime = 300 * DAY, 30 * DAY
    both = "upstreams: [{upstream: ca}, {upstream: local}]"
    world.policies.change("upstreams: [{upstream: ca}]", both)
    order = await client.ready(NAME)
    assert order.upstream == "local"
    looser = POLICY.replace("upstreams: [{upstream: ca}]", both).replace("cap: 90d", "cap: 400d")
    world.policies.set(looser)
    done = await client.finalize(order)
    assert (done.status, done.upstream) == (OrderStatus.VALID, "local")
    assert done.decision["lever"] == "profile"
    assert world.ca.calls == []


@pytest.mark.parametrize("tightened", ["kept out by a rule", "no longer in the profile"])
async def test_tighter_cap_of_before_opens_no_upstream_that_is_closed_now(
    world: World, tightened: str
) -> None:
    """A cap was loosened and the CA forbidden: the order keeps the cap, and goes elsewhere."""
    client = await world.client()
    both = "upstreams: [{upstream: ca}, {upstream: local}]"
    world.policies.change("upstreams: [{upstream: ca}]", both)
    order = await client.ready(NAME)
    assert order.upstream == "ca"
    text = POLICY.replace("cap: 90d", "cap: 300d")
    if tightened == "kept out by a rule":
        rule = "rules: [{name: inside, because: test, upstreams: [local]}]\n"
        text = text.replace("upstreams: [{upstream: ca}]", both) + rule
    else:
        text = text.replace("upstreams: [{upstream: ca}]", "upstreams: [{upstream: local}]")
    world.policies.set(text)
    done = await client.finalize(order)
    assert (done.status, done.upstream) == (OrderStatus.VALID, "local"), done.error
    assert (done.cap_seconds, done.decision["cap"]) == (90 * 86400, "90d")
    assert world.ca.accepted == 0
    (certificate,) = await world.certificates()
    assert certificate.not_after == START + 90 * DAY


async def test_finalize_goes_to_the_upstream_that_is_chosen_now(world: World) -> None:
    """Suspended or gone since newOrder: the next choice is taken, and the order says so."""
    client = await world.client()
    both = "upstreams: [{upstream: ca}, {upstream: local}]"
    world.policies.change("upstreams: [{upstream: ca}]", both)
    order = await client.ready(NAME)
    assert order.upstream == "ca"
    del world.facts["ca"]
    done = await client.finalize(order)
    assert (done.status, done.upstream) == (OrderStatus.VALID, "local")
    (event,) = await world.events(EventKind.ORDER_FINALIZED)
    assert event.upstream == "local"
    assert world.ca.accepted == 0


async def test_no_upstream_to_go_to_leaves_the_order_ready(world: World) -> None:
    """It passes once the upstream is back."""
    client = await world.client()
    order = await client.ready(NAME)
    facts = world.facts.pop("ca")
    with pytest.raises(Problem, match="is not ready") as refused:
        await client.finalize(order)
    assert refused.value.type is ProblemType.SERVER_INTERNAL
    world.facts["ca"] = facts
    assert (await client.finalize(order)).status is OrderStatus.VALID


async def test_order_for_a_lost_account_waits_as_processing(world: World) -> None:
    """Its account is recovered by a person: the client is not sent away with an error."""
    client = await world.client()
    order = await client.ready(NAME)
    facts = world.facts.pop("ca")
    world.waiting["ca"] = facts
    world.ca.fail("finalize", Broken("our account is lost", left_nothing=True))
    accepted = await client.finalize(order)
    assert accepted.upstream == "ca"
    assert (await world.finish(order)).status is OrderStatus.VALID


async def test_other_upstream_comes_before_waiting(world: World) -> None:
    """Where another may take the order, nobody waits."""
    client = await world.client()
    both = "upstreams: [{upstream: ca}, {upstream: local}]"
    world.policies.change("upstreams: [{upstream: ca}]", both)
    order = await client.ready(NAME)
    world.waiting["ca"] = world.facts.pop("ca")
    done = await client.finalize(order)
    assert (done.status, done.upstream) == (OrderStatus.VALID, "local")


# --------------------------------------------------------------------------------------- the claim


async def test_first_to_finalize_takes_the_work_that_was_prepared(world: World) -> None:
    """One upstream order for it, opened before; the second order gets one of its own."""
    first, second = await world.client(), await world.client()
    orders = [await first.ready(NAME), await second.ready(NAME)]
    assert len(world.ca.orders) == 1, "one for both, until somebody takes it"
    (prepared,) = world.ca.orders
    done = await second.finalize(orders[1])
    work = await world.store.work_of_order(done.order_id)
    assert work is not None
    assert (work.order_url, work.status) == (prepared, WorkStatus.SPENT)
    assert len(world.ca.orders) == 1
    assert (await first.finalize(orders[0])).status is OrderStatus.VALID
    assert (len(world.ca.orders), world.ca.accepted) == (2, 2)


async def test_work_that_has_grown_stale_is_not_taken(world: World) -> None:
    """Its end was counted from too long ago; the certificate gets its full length."""
    first, second = await world.client(), await world.client()
    await first.ready(NAME)
    world.clock.advance(10 * DAY)
    order = await second.ready(NAME)
    await second.finalize(order)
    (certificate,) = await world.certificates()
    assert certificate.not_after == START + 100 * DAY


async def test_abandoned_order_blocks_nobody(world: World) -> None:
    """It was ready and its owner went away; the next one takes what was prepared for it."""
    gone, here = await world.client(), await world.client()
    await gone.ready(NAME)
    assert (await here.issue(NAME)).status is OrderStatus.VALID
    assert len(world.ca.orders) == 1


async def test_local_upstream_is_asked_for_nothing_before_finalize(world: World) -> None:
    """Nothing is opened, and finalize needs nothing that was."""
    client = await world.client()
    order = await client.ready(NAME, profile="private")
    assert world.local.calls == []
    assert (await client.finalize(order)).status is OrderStatus.VALID
    assert world.ca.calls == []


async def test_a_rule_that_warns_about_the_key_is_told_at_finalize(world: World) -> None:
    """The order passes, and the event names the rule; what newOrder told is not told again."""
    rule = {
        "name": "rsa-soon",
        "because": "the fleet moves",
        "mode": "warn",
        "keys": ["rsa-2048"],
    }
    world.policies.set(
        POLICY.replace("[ec-p256]", "[ec-p256, rsa-2048]") + f"rules: [{json.dumps(rule)}]\n"
    )
    client = await world.client()
    await client.issue(NAME)
    (event,) = await world.events(EventKind.RULE_WARNED)
    assert event.data["resource"] == "finalize"
    assert "rule 'rsa-soon'" in str(event.data["warnings"])


async def test_a_rule_that_came_between_holds_with_what_was_left_before(world: World) -> None:
    """Keys that newOrder left stay the only ones, though the rule is gone by finalize."""
    rule = {"name": "only-rsa", "because": "for a while", "keys": ["rsa-2048"]}
    both = POLICY.replace("[ec-p256]", "[ec-p256, rsa-2048]")
    world.policies.set(both + f"rules: [{json.dumps(rule)}]\n")
    client = await world.client()
    order = await client.ready(NAME)
    world.policies.set(both)
    with pytest.raises(Problem, match="when the order was made rsa-2048 was allowed"):
        await client.finalize(order)


# ------------------------------------------------------------------------------ quotas by CA


@pytest.mark.parametrize("per", [QuotaPer.REQUESTER, QuotaPer.WORKLOAD, QuotaPer.UPSTREAM])
async def test_quota_of_the_ca_that_it_goes_to_is_taken_at_finalize(
    world: World, per: QuotaPer
) -> None:
    """And that of the CA it was made for comes back; with no room the order waits for its own."""
    have_two(world)
    by_ca = [
        demand(per, 5, name="left", upstreams=frozenset({"ca"})),
        demand(per, 1, name="there", upstreams=frozenset({"next"})),
    ]
    under(world, *by_ca)
    client = await world.client()
    made = [await client.ready(name) for name in (NAME, "b.example.com")]
    rows = {one.bucket for one in await world.store.list_buckets("policy|", 9)}
    (left,) = rows
    assert await level(world, left) == 3
    await leave_alone(world)
    assert (await client.finalize(made[0])).upstream == "next"
    assert await level(world, left) == 4
    kept = await client.finalize(made[1])
    assert (kept.status, kept.upstream) == (OrderStatus.PROCESSING, "ca")
    assert await level(world, left) == 4, "it was taken when the order was made, and once"
    passed_over = kept.decision["passed_over"]
    assert isinstance(passed_over, dict)
    assert "under rule 'there' are limited to 1/7d" in passed_over["next"]
    assert await world.events(EventKind.QUOTA_EXCEEDED) == []
    await world.let_pass(timedelta(minutes=10))
    assert (await world.load(kept)).status is OrderStatus.PROCESSING
    await back(world, "ca")
    assert (await world.finish(kept)).status is OrderStatus.VALID
    assert issued(world) == (1, 1)


async def test_quota_of_both_cas_is_taken_once(world: World) -> None:
    """The twin: where it counts the same, going elsewhere costs nothing."""
    have_two(world)
    under(world, demand(QuotaPer.REQUESTER, 1, upstreams=frozenset({"ca", "next"})))
    client = await world.client()
    order = await client.ready(NAME)
    await leave_alone(world)
    order = await client.finalize(order)
    assert (order.status, order.upstream) == (OrderStatus.VALID, "next")


async def test_ca_that_heard_of_the_order_ahead_of_finalize_stays_counted(world: World) -> None:
    """It counts orders when it is asked for them; what it counts by certificate comes back."""
    have_two(world)
    week = Rate(5, WEEK)
    world.limits["ca"] = tuple(
        PublishedLimit(per=per, rate=week) for per in (LimitPer.ACCOUNT, LimitPer.NAMES)
    )
    client = await world.client()
    order = await client.ready(NAME)
    await world.settle()
    assert len(world.ca.orders) == 1
    await leave_alone(world)
    assert (await client.finalize(order)).upstream == "next"
    assert await level(world, "ca|ca|account|default") == 4
    assert await level(world, f"ca|ca|names|{NAME}", full=5) == 5


async def without_room(world: World, **limits: tuple[PublishedLimit, ...]) -> OrderRecord:
    """Return an order that is ready, made for a CA that is away by now; the next has no room."""
    world.limits |= limits
    under(world, demand(QuotaPer.COMMUNITY, 1, name="there", upstreams=frozenset({"next"})))
    client = await world.client()
    order, other = [await client.ready(name) for name in (NAME, "b.example.com")]
    await leave_alone(world)
    assert (await client.finalize(other)).upstream == "next"
    return order


async def finalize(world: World, order: OrderRecord) -> OrderRecord:
    """Have the owner of *order* finalize it."""
    account = await world.store.find_account(order.account_id)
    assert account is not None
    return await world.drive(world.orders.finalize(account, order.order_id, make_csr(NAME)))


async def close_by(world: World, how: str, order: OrderRecord) -> None:
    """Close the CA that *order* was made for, other than by its being away."""
    if how == "suspended":
        row = Suspension(
            upstream="ca", upstream_profile=None, since=START, order_id=order.order_id, rule="x"
        )
        insert = SUSPENSIONS.insert, *SUSPENSIONS.values(row)
        await world.store._database.write(lambda transaction: transaction.change(*insert))
    elif how == "frozen":
        await freeze(world, FreezeKind.UPSTREAM, "ca")
    elif how == "rule":
        world.policies.set(TWO + "rules: [{name: x, because: test, upstreams: [next]}]\n")
    elif how == "profile":
        world.policies.set(POLICY.replace("[{upstream: ca}]", "[{upstream: next}]"))
    elif how == "cap":
        shortest = replace(world.facts["ca"], min_lifetime=200 * DAY)
        world.facts["ca"] = replace(shortest, default_lifetimes=(always(200 * DAY),))
    elif how == "caa":
        world.policies.set(TWO.replace("default_profile: ", "caa: refuse\ndefault_profile: "))
        world.caa.identities |= {"ca": "first.example.net", "next": "next.example.net"}
        world.caa.records[NAME] = ["next.example.net"]
    else:
        del world.facts["ca"]


CLOSED = ["suspended", "frozen", "rule", "profile", "cap", "caa", "gone"]


@pytest.mark.parametrize("how", CLOSED)
async def test_order_whose_ca_is_closed_to_it_is_told_of_the_limit_of_the_next(
    world: World, how: str
) -> None:
    """Nobody can wait for such a CA: the client is told when the next has room."""
    have_two(world)
    order = await without_room(world)
    await close_by(world, how, order)
    with pytest.raises(Problem, match="under rule 'there' are limited to 1/7d") as refused:
        await finalize(world, order)
    assert refused.value.type is ProblemType.RATE_LIMITED
    assert refused.value.retry_after == WEEK
    assert (await world.load(order)).status is OrderStatus.READY
    (told,) = await world.events(EventKind.QUOTA_EXCEEDED)
    assert (told.order_id, told.upstream) == (order.order_id, "next")
    world.clock.advance(timedelta(hours=1))
    assert issued(world) == (0, 1)


async def test_order_waits_for_its_own_ca_whose_account_is_recovered(world: World) -> None:
    """The twin: that CA is away too, for as long as a person needs."""
    have_two(world)
    order = await without_room(world)
    await back(world, "ca")
    world.waiting["ca"] = world.facts.pop("ca")
    lost = Broken("our account is lost", left_nothing=True)
    world.ca.fail("finalize", lost, times=9)
    kept = await finalize(world, order)
    assert (kept.status, kept.upstream) == (OrderStatus.PROCESSING, "ca")
    world.facts["ca"] = world.waiting.pop("ca")
    assert (await world.finish(kept)).status is OrderStatus.VALID
    assert issued(world) == (1, 1)


async def test_order_that_waits_for_its_own_ca_moves_once_the_next_has_room(
    world: World,
) -> None:
    """As any that was finalized before its CA was away; what it took of its own comes back."""
    have_two(world)
    names = PublishedLimit(per=LimitPer.NAMES, rate=Rate(5, 10 * WEEK))
    order = await without_room(world, ca=(names,))
    bucket = f"ca|ca|names|{NAME}"
    assert await level(world, bucket, full=5) == 4
    kept = await finalize(world, order)
    assert (kept.upstream, await level(world, bucket, full=5)) == ("ca", 4)
    world.clock.advance(WEEK)
    done = await world.finish(kept)
    assert (done.status, done.upstream, issued(world)) == (OrderStatus.VALID, "next", (0, 2))
    assert await level(world, bucket, full=5) == 5
    await back(world, "ca")
    await world.let_pass(timedelta(hours=2))
    assert issued(world) == (0, 2)


@pytest.mark.parametrize(("cap", "days"), [("30d", 30), ("300d", 90)], ids=["tighter", "looser"])
async def test_order_that_waits_for_its_own_ca_holds_the_tighter_cap(
    world: World, cap: str, days: int
) -> None:
    """Of newOrder's and of now's, as wherever it goes."""
    have_two(world)
    order = await without_room(world)
    world.policies.set(TWO.replace("cap: 90d", f"cap: {cap}"))
    kept = await finalize(world, order)
    assert (kept.upstream, kept.cap_seconds) == ("ca", days * 86400)
    await back(world, "ca")
    assert (await world.finish(kept)).status is OrderStatus.VALID
    (certificate,) = [one for one in await world.certificates() if one.upstream == "ca"]
    assert certificate.not_after <= world.clock.now() + days * DAY


async def test_order_that_waits_for_its_own_ca_heeds_caa(world: World) -> None:
    """It is looked at for the CA that it waits for, and told so."""
    have_two(world)
    order = await without_room(world)
    await close_by(world, "caa", order)
    world.caa.records[NAME] = ["next.example.net", "first.example.net"]
    assert (await finalize(world, order)).upstream == "ca"
    looked = [one for one in await world.events(EventKind.CAA_LOOKED_AT) if one.upstream == "ca"]
    assert [one.order_id for one in looked] == [order.order_id]
