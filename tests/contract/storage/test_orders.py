"""Orders and their authorizations: kept whole, changed by compare-and-set."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.errors import Broken, Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached, ChallengeChange, Store
from broker.issuance.records import AuthorizationRecord, JobKind, OrderRecord, Proof
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def load(store: Store, part: AuthorizationRecord) -> AuthorizationRecord:
    """Return the authorization as it is kept now."""
    found = await store.load_authorization(part.authorization_id)
    assert found is not None
    return found


async def order_of(store: Store, part: AuthorizationRecord) -> OrderRecord:
    """Return the order of an authorization as it is kept now."""
    found = await store.load_order(part.order_id)
    assert found is not None
    return found


async def kinds(store: Store) -> list[EventKind]:
    """Return the kinds of the events kept so far."""
    return [one.kind for _, one in await store.read_events(after=0, limit=100, order_id=None)]


async def test_order_comes_back_whole(store: Store) -> None:
    """An order, its authorizations and their challenges are what they were, in their order."""
    order = given.order(await given.has_account(store))
    parts = [given.authorization(order), given.authorization(order, is_wildcard=True)]
    order = replace(order, authorization_ids=tuple(one.authorization_id for one in parts))
    job = given.job()
    attached = Attached(events=(given.event(EventKind.ORDER_CREATED),), jobs=(job,))
    await store.create_order(order, parts, attached)
    assert await store.load_order(order.order_id) == order
    assert [await load(store, one) for one in parts] == parts
    assert await store.due_jobs(NOW, 10) == [job]
    assert (await kinds(store))[-1] is EventKind.ORDER_CREATED


async def test_unknown_order_is_none(store: Store) -> None:
    """What was never kept is not found."""
    assert await store.load_order("nothing") is None
    assert await store.load_authorization("nothing") is None


async def test_order_of_nobody_is_refused_whole(store: Store) -> None:
    """An order belongs to an account that exists, or nothing of it is kept."""
    order = given.order(given.account())
    attached = Attached(events=(given.event(),), jobs=(given.job(),), work=given.work())
    with pytest.raises(Broken):
        await store.create_order(order, [given.authorization(order)], attached)
    assert await store.load_order(order.order_id) is None
    assert await store.due_jobs(NOW, 10) == []
    assert await kinds(store) == []


# ----------------------------------------------------------------------- upstream work attached


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [
        pytest.param({}, False, id="free work of the same key"),
        pytest.param({"work_key": "another"}, True, id="free work of another key"),
        pytest.param({"community": "other"}, True, id="free work of another community"),
    ],
)
async def test_attached_work_is_kept_unless_there_is_free_work(
    store: Store, changes: dict[str, Any], *, is_kept: bool
) -> None:
    """Work is prepared once for those who may share it; its job goes the way of the work."""
    there = given.work(**changes)
    await given.has_order(store, attached=Attached(work=there))
    mine = given.work()
    jobs = (given.job(JobKind.PREPARE, subject=mine.work_id), given.job(JobKind.VALIDATE))
    await given.has_order(store, attached=Attached(work=mine, jobs=jobs))
    assert await store.load_work(mine.work_id) == (mine if is_kept else None)
    due = await store.due_jobs(NOW, 10)
    assert [one.kind for one in due] == ([JobKind.PREPARE] if is_kept else []) + [JobKind.VALIDATE]


async def test_attached_work_is_kept_when_the_other_is_taken_or_dead(store: Store) -> None:
    """Only what is still free and living stands in for new work."""
    for status in ("taken", "dead"):
        there = given.work(work_key=status)
        order = await given.has_order(
            store, status=OrderStatus.READY, attached=Attached(work=there)
        )
        if status == "taken":
            await store.claim_finalize(given.claim(order, work_key=status))
        else:
            await store.change_work(
                there.work_id, expected=[there.status], status=type(there.status).DEAD
            )
        mine = given.work(work_key=status)
        await given.has_order(store, attached=Attached(work=mine))
        assert await store.load_work(mine.work_id) == mine


# --------------------------------------------------------------------------------- challenges


async def test_response_changes_the_challenge_alone(store: Store) -> None:
    """A challenge that is being looked at leaves its authorization and order as they are."""
    (part,) = await given.has_authorizations(store, 1)
    first = replace(part.challenges[0], status=ChallengeStatus.PROCESSING)
    job = given.job(JobKind.VALIDATE)
    is_ready = await store.change_challenge(
        ChallengeChange(
            authorization_id=part.authorization_id,
            challenge=first,
            expected=ChallengeStatus.PENDING,
            authorization_status=part.status,
            authorization_expected=part.status,
            attached=Attached(jobs=(job,), events=(given.event(EventKind.CHALLENGE_RESPONDED),)),
        ),
        durable=False,
    )
    assert not is_ready
    assert await load(store, part) == replace(part, challenges=(first, part.challenges[1]))
    assert (await order_of(store, part)).status is OrderStatus.PENDING
    assert await store.due_jobs(NOW, 10) == [job]
    assert (await kinds(store))[-1] is EventKind.CHALLENGE_RESPONDED


async def test_last_valid_authorization_makes_the_order_ready(store: Store) -> None:
    """Only the last of three makes the order ready, and only then its attachment rides along."""
    parts = await given.has_authorizations(store, 3)
    work = given.work()
    for n, part in enumerate(parts):
        change = given.validated(
            part,
            attached=Attached(events=(given.event(EventKind.CHALLENGE_VALID),)),
            attached_when_ready=Attached(
                events=(given.event(EventKind.ORDER_READY),),
                work=work,
                jobs=(given.job(JobKind.PREPARE, subject=work.work_id),),
            ),
        )
        is_ready = await store.change_challenge(change, durable=False)
        assert is_ready is (n == 2)
        assert (await store.load_work(work.work_id) is not None) is is_ready
        assert (await order_of(store, part)).status is (
            OrderStatus.READY if is_ready else OrderStatus.PENDING
        )
    after = await load(store, parts[0])
    assert (after.status, after.proof) == (AuthorizationStatus.VALID, Proof.CHALLENGE)
    assert after.challenges[0].validated_at == NOW
    assert (await kinds(store)).count(EventKind.ORDER_READY) == 1
    assert len(await store.due_jobs(NOW, 10)) == 1


async def test_two_authorizations_valid_at_once_make_the_order_ready_once(store: Store) -> None:
    """Of changes that race, exactly the last one finds the order ready."""
    parts = await given.has_authorizations(store, 8)
    got = await asyncio.gather(
        *(store.change_challenge(given.validated(part), durable=False) for part in parts)
    )
    assert sorted(got) == [False] * 7 + [True]


async def test_failed_challenge_ends_the_order(store: Store) -> None:
    """The failure is kept on the challenge, the authorization and the order."""
    (part, other) = await given.has_authorizations(store, 2)
    error = {"type": "urn:x", "detail": "no answer from 192.0.2.1", "status": 400}
    change = given.validated(
        part,
        challenge=replace(part.challenges[0], status=ChallengeStatus.INVALID, error=error),
        authorization_status=AuthorizationStatus.INVALID,
        authorization_proof=None,
        when_all_valid=None,
        when_failed=OrderStatus.INVALID,
        order_error={"detail": "an authorization failed"},
    )
    assert not await store.change_challenge(change, durable=True)
    after = await load(store, part)
    assert (after.status, after.proof) == (AuthorizationStatus.INVALID, None)
    assert after.challenges[0].error == error
    order = await order_of(store, part)
    assert (order.status, order.error) == (
        OrderStatus.INVALID,
        {"detail": "an authorization failed"},
    )
    # The order is invalid now, so the other authorization does not make it ready any more.
    assert not await store.change_challenge(given.validated(other), durable=True)
    assert (await order_of(store, other)).status is OrderStatus.INVALID


async def test_challenge_that_moved_on_is_a_conflict(store: Store) -> None:
    """Of two verdicts on one challenge the first stands, and the second leaves nothing."""
    (part,) = await given.has_authorizations(store, 1)
    events = Attached(events=(given.event(EventKind.CHALLENGE_VALID),))
    change = given.validated(part, attached=events)
    got = await asyncio.gather(
        *(store.change_challenge(change, durable=False) for _ in range(8)), return_exceptions=True
    )
    assert got.count(True) == 1
    assert sum(isinstance(one, Conflict) for one in got) == 7
    assert (await kinds(store)).count(EventKind.CHALLENGE_VALID) == 1


async def test_authorization_that_moved_on_is_a_conflict(store: Store) -> None:
    """A second challenge of an authorization that is valid already changes nothing."""
    (part,) = await given.has_authorizations(store, 1)
    await store.change_challenge(given.validated(part), durable=True)
    second = replace(part.challenges[1], status=ChallengeStatus.VALID)
    with pytest.raises(Conflict, match="is valid, expected pending"):
        await store.change_challenge(given.validated(part, challenge=second), durable=True)
    assert (await load(store, part)).challenges[1] == part.challenges[1]


async def test_unknown_challenge_is_a_conflict(store: Store) -> None:
    """A challenge belongs to its own authorization; under another it does not exist."""
    (part, other) = await given.has_authorizations(store, 2)
    with pytest.raises(Conflict, match="unknown"):
        await store.change_challenge(
            given.validated(part, challenge=other.challenges[0]), durable=True
        )
    assert await load(store, other) == other


# ----------------------------------------------------------------------------- authorizations


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OrderStatus.PENDING, OrderStatus.INVALID),
        (OrderStatus.READY, OrderStatus.INVALID),
        (OrderStatus.PROCESSING, OrderStatus.PROCESSING),
    ],
    ids=["pending", "ready", "processing"],
)
async def test_deactivation_ends_an_order_that_stands_on_it(
    store: Store, before: OrderStatus, after: OrderStatus
) -> None:
    """An order that is not finalized yet ends with its authorization; a later one goes on."""
    order = given.order(await given.has_account(store), status=before)
    part = given.authorization(order)
    await store.create_order(order, [part], Attached())
    await store.change_authorization(
        part.authorization_id,
        expected=AuthorizationStatus.PENDING,
        status=AuthorizationStatus.DEACTIVATED,
        order_expected=(OrderStatus.PENDING, OrderStatus.READY),
        order_status=OrderStatus.INVALID,
        order_error={"detail": "deactivated"},
        events=(given.event(EventKind.AUTHORIZATION_DEACTIVATED),),
    )
    assert await load(store, part) == replace(part, status=AuthorizationStatus.DEACTIVATED)
    found = await order_of(store, part)
    assert found.status is after
    assert found.error == ({"detail": "deactivated"} if after is OrderStatus.INVALID else None)
    assert (await kinds(store))[-1] is EventKind.AUTHORIZATION_DEACTIVATED


async def test_deactivation_can_leave_the_order_alone(store: Store) -> None:
    """Without a status for the order only the authorization changes."""
    (part,) = await given.has_authorizations(store, 1)
    await store.change_authorization(
        part.authorization_id,
        expected=AuthorizationStatus.PENDING,
        status=AuthorizationStatus.EXPIRED,
        order_expected=(OrderStatus.PENDING,),
        order_status=None,
        order_error=None,
        events=(),
    )
    assert (await order_of(store, part)).status is OrderStatus.PENDING


@pytest.mark.parametrize("expected", [AuthorizationStatus.VALID], ids=["another status"])
async def test_authorization_not_as_expected_is_a_conflict(
    store: Store, expected: AuthorizationStatus
) -> None:
    """Neither it, nor its order, nor the journal changes."""
    (part,) = await given.has_authorizations(store, 1)
    before = await kinds(store)
    with pytest.raises(Conflict, match="is pending, expected valid"):
        await store.change_authorization(
            part.authorization_id,
            expected=expected,
            status=AuthorizationStatus.DEACTIVATED,
            order_expected=(OrderStatus.PENDING,),
            order_status=OrderStatus.INVALID,
            order_error=None,
            events=(given.event(),),
        )
    assert await load(store, part) == part
    assert (await order_of(store, part)).status is OrderStatus.PENDING
    assert await kinds(store) == before


async def test_policy_proof_stays_policy(store: Store) -> None:
    """A change that names no proof leaves the one that is kept."""
    order = given.order(await given.has_account(store))
    part = given.authorization(
        order, status=AuthorizationStatus.VALID, proof=Proof.POLICY, expires_at=NOW + HOUR
    )
    await store.create_order(order, [part], Attached())
    await store.change_authorization(
        part.authorization_id,
        expected=AuthorizationStatus.VALID,
        status=AuthorizationStatus.EXPIRED,
        order_expected=(),
        order_status=OrderStatus.INVALID,
        order_error=None,
        events=(),
    )
    assert (await load(store, part)).proof is Proof.POLICY
    assert (await order_of(store, part)).status is OrderStatus.PENDING
