"""The claim of a finalize and the end of an order: one caller wins, all or nothing."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached, Store
from broker.issuance.records import AccountRecord, JobKind, OrderRecord, WorkRecord, WorkStatus
from broker.protocol.resources import OrderStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def free(store: Store, url: str | None = None, **changes: Any) -> WorkRecord:
    """Keep free work and return it; with a *url* it is open."""
    # Under a key of its own at first, since an order does not attach what is there already.
    made = given.work(**changes)
    await given.has_order(store, attached=Attached(work=made))
    if url is None:
        return made
    return await store.record_opened(made.work_id, url, given.event(), durable=True)


async def test_claim_writes_all_that_finalize_settled(store: Store) -> None:
    """The order is processing, with the CSR and the decision it runs under from now on."""
    before = await given.has_order(store, status=OrderStatus.READY)
    job = given.job(JobKind.FULFIL, subject=before.order_id)
    claim = given.claim(
        before, attached=Attached(jobs=(job,), events=(given.event(EventKind.ORDER_FINALIZED),))
    )
    after, work = await store.claim_finalize(claim)
    assert after == replace(
        before,
        status=OrderStatus.PROCESSING,
        csr_der=claim.csr_der,
        csr_sha256=claim.csr_sha256,
        finalized_at=claim.at,
        decision=claim.decision,
        upstream="other-ca",
        upstream_profile="short",
        cap_seconds=3600,
        ask_not_after=False,
    )
    assert await store.load_order(before.order_id) == after
    assert work == replace(claim.new_work, taken_by=before.order_id)
    assert await store.work_of_order(before.order_id) == work
    assert await store.due_jobs(NOW, 10) == [job]


async def test_eight_claims_at_once_have_one_winner(store: Store) -> None:
    """One caller gets the order, seven a conflict; one work, one job, one event come of it."""
    order = await given.has_order(store, status=OrderStatus.READY)
    before = await store.read_events(after=0, limit=100, order_id=None)

    def claim() -> Any:
        event = given.event(EventKind.ORDER_FINALIZED, order_id=order.order_id)
        return store.claim_finalize(
            given.claim(order, attached=Attached(jobs=(given.job(),), events=(event,)))
        )

    got = await asyncio.gather(*(claim() for _ in range(8)), return_exceptions=True)
    losers = [one for one in got if isinstance(one, Conflict)]
    assert len(losers) == 7
    assert "is processing, expected ready" in str(losers[0])
    assert (await store.outcome_counts())["work_intended"] == 1
    assert len(await store.due_jobs(NOW, 10)) == 1
    after = await store.read_events(after=0, limit=100, order_id=None)
    assert len(after) == len(before) + 1


async def test_claim_of_an_unknown_order_is_a_conflict(store: Store) -> None:
    """Nothing is claimed, and the new work is not kept."""
    claim = given.claim(given.order(given.account()))
    with pytest.raises(Conflict, match="unknown"):
        await store.claim_finalize(claim)
    assert await store.load_work(claim.new_work.work_id) is None


async def test_claim_takes_open_work_before_intended(store: Store) -> None:
    """What is further along is taken first, though it is older; then the other; then new work."""
    opened = await free(store, "https://ca.example/order/1", created_at=NOW - HOUR)
    await store.change_work(opened.work_id, expected=[WorkStatus.OPENED], status=WorkStatus.OPENED)
    other = await given.has_order(store, status=OrderStatus.READY)
    _, blocker = await store.claim_finalize(given.claim(other))
    assert blocker.work_id == opened.work_id
    intended = await free(store)
    taken = []
    for _ in range(2):
        order = await given.has_order(store, status=OrderStatus.READY)
        claim = given.claim(order)
        _, work = await store.claim_finalize(claim)
        taken.append((work.work_id, work.taken_by == order.order_id))
    assert taken == [(intended.work_id, True), (claim.new_work.work_id, True)]


async def test_of_several_free_the_open_one_is_taken(store: Store) -> None:
    """Open work goes before intended work of the same key, whichever is younger."""
    opened = await free(store, "https://ca.example/order/1", created_at=NOW - HOUR)
    order = await given.has_order(store, status=OrderStatus.READY)
    # A replacement brings a second free record of the key into being.
    spare = given.work()
    await store.change_work(
        opened.work_id,
        expected=[WorkStatus.OPENED],
        status=WorkStatus.OPENED,
        replacement=spare,
    )
    _, work = await store.claim_finalize(given.claim(order))
    assert work.work_id == opened.work_id
    assert await store.load_work(spare.work_id) == spare


@pytest.mark.parametrize(
    ("changes", "since"),
    [
        pytest.param({"work_key": "another"}, None, id="another key"),
        pytest.param({"community": "other"}, None, id="another community"),
        pytest.param({"created_at": NOW - HOUR}, NOW, id="too old"),
    ],
)
async def test_claim_leaves_work_that_is_not_for_it(
    store: Store, changes: dict[str, Any], since: Any
) -> None:
    """Work of another key or community, or from before the limit, stays free."""
    there = await free(store, **changes)
    order = await given.has_order(store, status=OrderStatus.READY)
    claim = given.claim(order, work_since=since)
    _, work = await store.claim_finalize(claim)
    assert work.work_id == claim.new_work.work_id
    assert await store.load_work(there.work_id) == there


async def test_claim_takes_work_that_is_just_young_enough(store: Store) -> None:
    """The twin of the age limit: work of that very moment is taken."""
    there = await free(store, created_at=NOW)
    order = await given.has_order(store, status=OrderStatus.READY)
    _, work = await store.claim_finalize(given.claim(order, work_since=NOW))
    assert work == replace(there, taken_by=order.order_id)


async def test_dead_work_is_never_taken(store: Store) -> None:
    """Work that will give nothing is passed over."""
    there = await free(store)
    await store.change_work(there.work_id, expected=[WorkStatus.INTENDED], status=WorkStatus.DEAD)
    order = await given.has_order(store, status=OrderStatus.READY)
    _, work = await store.claim_finalize(given.claim(order))
    assert work.work_id != there.work_id


async def test_two_orders_at_once_never_share_work(store: Store) -> None:
    """Of eight orders that may take one free work, one does; the others start anew."""
    there = await free(store)
    orders = [await given.has_order(store, status=OrderStatus.READY) for _ in range(8)]
    got = await asyncio.gather(*(store.claim_finalize(given.claim(one)) for one in orders))
    ids = [work.work_id for _, work in got]
    assert len(set(ids)) == 8
    assert ids.count(there.work_id) == 1


async def test_job_of_new_work_that_is_not_needed_is_dropped(store: Store) -> None:
    """A job that would prepare the new work is kept only with it."""
    await free(store)
    order = await given.has_order(store, status=OrderStatus.READY)
    new = given.work()
    fulfil = given.job(JobKind.FULFIL)
    attached = Attached(jobs=(given.job(JobKind.PREPARE, subject=new.work_id), fulfil))
    await store.claim_finalize(given.claim(order, new_work=new, attached=attached))
    assert await store.due_jobs(NOW, 10) == [fulfil]


# --------------------------------------------------------------------------- claims of one CSR


async def ready(store: Store, owner: AccountRecord, order_id: str) -> OrderRecord:
    """Keep an order of *owner* that is ready."""
    made = given.order(owner, order_id=order_id, status=OrderStatus.READY)
    await store.create_order(made, (), Attached())
    return made


async def claim(store: Store, of: OrderRecord, after: timedelta, **changes: Any) -> OrderRecord:
    """Claim it so long after a while; the CSR is the same each time."""
    at = NOW + after
    event = given.event(EventKind.ORDER_FINALIZED, at=at, order_id=of.order_id)
    attached = Attached(events=(event,))
    made = given.claim(of, at=at, work_key=given.name("key"), attached=attached, **changes)
    claimed, _ = await store.claim_finalize(made)
    assert claimed.finalized_at == at, "who waits counts from then"
    return claimed


@pytest.mark.parametrize(
    "times",
    [
        pytest.param((0, 1, 2), id="in order"),
        pytest.param((2, 1, 0), id="in reverse"),
        pytest.param((0, 0, 0), id="at one moment"),
        pytest.param((0, 3600, 1), id="after a jump of the clock"),
    ],
)
@pytest.mark.parametrize("ids", ["abc", "cba"])
async def test_first_of_a_csr_is_whose_claim_was_kept_first(
    store: Store, times: tuple[int, ...], ids: str
) -> None:
    """Whatever the clock said when it was made: each knows all that came before, and none else."""
    owner = await given.has_account(store)
    orders = [await ready(store, owner, f"order-{name}") for name in ids]
    claimed = []
    for order, seconds in zip(orders, times, strict=True):
        claimed.append(await claim(store, order, timedelta(seconds=seconds)))
        before = [one.order_id for one in claimed[:-1]]
        assert await store.sibling_orders(claimed[-1], NOW) == before


async def test_claims_of_one_csr_at_once_make_one_line(store: Store) -> None:
    """Of eight there is one first, one second, and so on."""
    owner = await given.has_account(store)
    orders = [await ready(store, owner, given.name("order")) for _ in range(8)]
    claims = (claim(store, one, timedelta(seconds=-n)) for n, one in enumerate(orders))
    claimed = await asyncio.gather(*claims)
    before = [len(await store.sibling_orders(one, NOW)) for one in claimed]
    assert sorted(before) == list(range(8))


async def test_claims_of_others_have_a_line_of_their_own(store: Store) -> None:
    """Another account with this CSR, and the same account with another, are nobody's siblings."""
    owner = await given.has_account(store)
    await claim(store, await ready(store, owner, "order-a"), HOUR)
    stranger = await ready(store, await given.has_account(store), "order-b")
    other = await ready(store, owner, "order-c")
    for claimed in (
        await claim(store, stranger, timedelta()),
        await claim(store, other, timedelta(), csr_sha256="ef" * 32),
    ):
        assert await store.sibling_orders(claimed, NOW) == []


async def test_siblings_are_the_valid_ones_and_those_before(store: Store) -> None:
    """Of one profile, and one for each certificate that is not too old: the last that it was given
    to."""
    owner = await given.has_account(store)
    orders = [await ready(store, owner, f"order-{name}") for name in "abcdef"]
    made = [await claim(store, one, timedelta(minutes=n)) for n, one in enumerate(orders)]
    certificate = given.certificate(made[0], received_at=NOW + HOUR)
    await store.close_order(given.closing(made[0], certificate=certificate))
    for again in (made[4], made[1]):
        await store.close_order(
            given.closing(again, certificate=None, again=certificate.certificate_id)
        )
    refused = given.closing(made[2], status=OrderStatus.INVALID, certificate=None)
    await store.close_order(refused)
    ask = store.sibling_orders
    assert await ask(made[5], NOW + HOUR) == ["order-e", "order-d"]
    assert await ask(made[3], NOW + HOUR) == ["order-e"]
    assert await ask(made[5], NOW + HOUR + timedelta(seconds=1)) == ["order-d"]
    assert await ask(replace(made[5], profile="another"), NOW) == []
    assert await ask(orders[5], NOW) == [], "it is not finalized"


# ---------------------------------------------------------------------------------- the end


async def test_valid_closing_keeps_all_in_one(store: Store) -> None:
    """Certificate, order, work, jobs and event change together."""
    order, work = await given.has_claimed(
        store, attached=Attached(jobs=(given.job(subject="the-order"),))
    )
    certificate = given.certificate(order)
    closed = await store.close_order(
        given.closing(
            order,
            certificate=certificate,
            work_id=work.work_id,
            work_status=WorkStatus.SPENT,
            attached=Attached(
                events=(given.event(EventKind.CERTIFICATE_ISSUED),),
                done=((JobKind.FULFIL, "the-order"), (JobKind.PREPARE, "not-there")),
            ),
        )
    )
    assert closed == replace(
        order, status=OrderStatus.VALID, certificate_id=certificate.certificate_id
    )
    assert await store.load_order(order.order_id) == closed
    assert await store.find_certificate(certificate.certificate_id) == certificate
    assert await store.work_of_order(order.order_id) == replace(work, status=WorkStatus.SPENT)
    assert await store.due_jobs(NOW, 10) == []
    events = await store.read_events(after=0, limit=100, order_id=None)
    assert events[-1][1].kind is EventKind.CERTIFICATE_ISSUED


async def test_withheld_certificate_is_kept_and_leads_nowhere(store: Store) -> None:
    """A breach keeps the certificate for its revocation, suspends the pair, names no certificate
    on the order."""
    order, work = await given.has_claimed(store)
    certificate = given.certificate(order, is_released=False, revocation_reason=4)
    revoke = given.job(JobKind.REVOKE, subject=certificate.certificate_id)
    suspension = given.suspension(order)
    closed = await store.close_order(
        given.closing(
            order,
            status=OrderStatus.INVALID,
            error={"detail": "41 days past the cap"},
            certificate=certificate,
            suspension=suspension,
            work_id=work.work_id,
            work_status=WorkStatus.SPENT,
            attached=Attached(jobs=(revoke,)),
        )
    )
    assert (closed.status, closed.certificate_id) == (OrderStatus.INVALID, None)
    assert closed.error == {"detail": "41 days past the cap"}
    assert await store.find_certificate(certificate.certificate_id) == certificate
    assert await store.suspensions() == [suspension]
    assert await store.due_jobs(NOW, 10) == [revoke]


async def test_second_breach_keeps_the_first_suspension(store: Store) -> None:
    """A pair is suspended once, whether its profile is named or is the default."""
    for profile in (None, "short"):
        kept = []
        for _ in range(2):
            order, _ = await given.has_claimed(store)
            suspension = given.suspension(order, upstream_profile=profile)
            kept.append(suspension)
            await store.close_order(
                given.closing(order, status=OrderStatus.INVALID, suspension=suspension)
            )
        found = [one for one in await store.suspensions() if one.upstream_profile == profile]
        assert found == kept[:1]


async def test_refusal_closes_without_certificate(store: Store) -> None:
    """An order that the upstream refused is invalid with its reason; its work is dead."""
    order, work = await given.has_claimed(store)
    closed = await store.close_order(
        given.closing(
            order,
            status=OrderStatus.INVALID,
            certificate=None,
            error={"detail": "refused"},
            work_id=work.work_id,
            work_status=WorkStatus.DEAD,
        )
    )
    assert closed.error == {"detail": "refused"}
    assert await store.work_of_order(order.order_id) is None


async def test_order_is_closed_once(store: Store) -> None:
    """Of eight closings at once one stands; the certificates of the others are not kept."""
    order, _ = await given.has_claimed(store)
    closings = [given.closing(order) for _ in range(8)]
    got = await asyncio.gather(
        *(store.close_order(one) for one in closings), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in got) == 7
    assert len(await store.list_certificates(community=None, after=None, limit=10)) == 1


async def test_order_that_moved_on_is_not_closed(store: Store) -> None:
    """An order that was finalized meanwhile does not expire; nothing of the closing is kept."""
    order, work = await given.has_claimed(store)
    expiry = given.closing(
        order,
        expected=OrderStatus.READY,
        status=OrderStatus.INVALID,
        certificate=None,
        error={"detail": "expired"},
        work_id=work.work_id,
        work_status=WorkStatus.DEAD,
        attached=Attached(jobs=(given.job(),), events=(given.event(EventKind.ORDER_EXPIRED),)),
    )
    for closing, sentence in (
        (expiry, "is processing, expected ready"),
        (replace(expiry, order_id="nothing"), "unknown"),
    ):
        with pytest.raises(Conflict, match=sentence):
            await store.close_order(closing)
    assert await store.load_order(order.order_id) == order
    assert await store.work_of_order(order.order_id) == work
    assert await store.due_jobs(NOW, 10) == []


@pytest.mark.parametrize("named", ["work_id", "work_status"])
async def test_work_changes_only_with_its_id_and_its_status(store: Store, named: str) -> None:
    """A closing that names one of the two leaves the work as it is."""
    order, work = await given.has_claimed(store)
    value: Any = {"work_id": work.work_id, "work_status": WorkStatus.DEAD}[named]
    await store.close_order(given.closing(order, **{named: value}))
    assert await store.work_of_order(order.order_id) == work


async def test_same_certificate_for_two_orders_is_a_conflict(store: Store) -> None:
    """A certificate belongs to one order; the other order stays as it was, to be judged anew."""
    first = await given.has_certificate(store)
    order, work = await given.has_claimed(store)
    twin = given.certificate(order, fingerprint=first.fingerprint)
    with pytest.raises(Conflict, match="fingerprint"):
        await store.close_order(
            given.closing(
                order,
                certificate=twin,
                work_id=work.work_id,
                work_status=WorkStatus.SPENT,
                attached=Attached(events=(given.event(EventKind.CERTIFICATE_ISSUED),)),
            )
        )
    assert await store.load_order(order.order_id) == order
    assert await store.work_of_order(order.order_id) == work
    events = await store.read_events(after=0, limit=100, order_id=None)
    assert EventKind.CERTIFICATE_ISSUED not in [one.kind for _, one in events]


async def test_closing_of_unknown_work_is_refused_whole(store: Store) -> None:
    """Work that is not there cannot be spent, so the order is not closed either."""
    order, _ = await given.has_claimed(store)
    with pytest.raises(Conflict, match="unknown"):
        await store.close_order(
            given.closing(order, work_id="nothing", work_status=WorkStatus.SPENT)
        )
    assert await store.load_order(order.order_id) == order
