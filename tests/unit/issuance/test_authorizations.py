"""Control is proved by one challenge, looked at by us, judged by the protocol."""

import asyncio
from datetime import timedelta

import pytest

from broker.issuance.events import Actor, EventKind
from broker.issuance.records import AuthorizationRecord, JobKind, OrderRecord, Proof
from broker.protocol.challenges import ChallengeType, Failure
from broker.protocol.problems import Problem
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from tests.fakes.world import Client, World

NAME = "www.example.com"


async def pending(world: World) -> tuple[Client, OrderRecord, AuthorizationRecord]:
    """Return a client with an order for one name, and its authorization."""
    client = await world.client()
    order = await client.order(NAME)
    (authorization,) = await client.authorizations(order)
    return client, order, authorization


async def reread(client: Client, authorization: AuthorizationRecord) -> AuthorizationRecord:
    """Return the authorization as the client sees it now."""
    return await client.world.authorizations.read(client.account, authorization.authorization_id)


# ---------------------------------------------------------------------------------------- proving


@pytest.mark.parametrize("place", [0, 1], ids=["http-01", "dns-01"])
async def test_right_answer_makes_authorization_and_order_ready(world: World, place: int) -> None:
    """The proof is kept as one by challenge."""
    client, order, authorization = await pending(world)
    await client.respond(authorization, place)
    await world.settle()
    proved = await reread(client, authorization)
    assert (proved.status, proved.proof) == (AuthorizationStatus.VALID, Proof.CHALLENGE)
    assert proved.challenges[place].status is ChallengeStatus.VALID
    assert proved.challenges[place].validated_at == world.clock.now()
    assert (await client.read(order)).status is OrderStatus.READY
    assert await world.count(EventKind.ORDER_READY) == 1
    assert await world.jobs() == 0


async def test_question_during_a_look_is_answered_with_its_outcome(world: World) -> None:
    """Who asks while somebody looks need not ask again; a long look is not waited for."""
    client, _, authorization = await pending(world)
    stall = world.validator.stall()
    await client.respond(authorization)
    asking = asyncio.create_task(reread(client, authorization))
    await stall.reached.wait()
    assert not asking.done()
    stall.release()
    assert (await asking).status is AuthorizationStatus.VALID
    client, _, slow = await pending(world)
    stall = world.validator.stall()
    await client.respond(slow)
    seen = await reread(client, slow)
    assert seen.challenges[0].status is ChallengeStatus.PROCESSING
    stall.release()


async def test_wrong_answer_ends_authorization_and_order(world: World) -> None:
    """The order tells which name it was, the challenge what was wrong."""
    client, order, authorization = await pending(world)
    world.validator.wrong = {NAME}
    await client.respond(authorization)
    await world.settle()
    failed = await reread(client, authorization)
    assert failed.status is AuthorizationStatus.INVALID
    assert failed.proof is None
    assert failed.challenges[0].status is ChallengeStatus.INVALID
    assert failed.challenges[0].error is not None
    ended = await client.read(order)
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert NAME in str(ended.error["detail"])
    assert world.ca.calls == []
    assert await world.jobs() == 0


async def test_order_is_ready_once_all_its_names_are(world: World) -> None:
    """Five at once, each validated by itself; one of them makes the order ready."""
    client = await world.client()
    order = await client.order(*(f"n{n}.example.com" for n in range(5)))
    authorizations = await client.authorizations(order)
    for authorization in authorizations[:-1]:
        await client.respond(authorization)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.PENDING
    await client.respond(authorizations[-1])
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY
    assert await world.count(EventKind.ORDER_READY) == 1


async def test_wildcard_and_its_base_are_two_authorizations(world: World) -> None:
    """Each is proved by itself; the wildcard by dns-01 alone."""
    client = await world.client()
    order = await client.order("*.zone.example.com", "zone.example.com")
    wildcard, base = await client.authorizations(order)
    assert (wildcard.is_wildcard, base.is_wildcard) == (True, False)
    assert wildcard.identifier == base.identifier
    assert [one.type for one in wildcard.challenges] == [ChallengeType.DNS_01]
    assert len(base.challenges) == 2
    await client.respond(base)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.PENDING
    await client.respond(wildcard)
    await world.settle()
    ready = await client.read(order)
    done = await client.finalize(ready)
    assert done.status is OrderStatus.VALID
    assert {one.identifier.value for one in world.validator.asked} == {"zone.example.com"}


async def test_validator_is_asked_with_the_accounts_own_thumbprint(world: World) -> None:
    """And with nothing that another account chose."""
    client, _, authorization = await pending(world)
    await client.respond(authorization)
    await world.settle()
    (question,) = world.validator.asked
    assert question.thumbprint == client.account.thumbprint
    assert question.account_url is not None
    assert question.account_url.endswith(f"/{client.account.account_id}")
    assert question.token == authorization.challenges[0].token
    assert (question.community, question.identifier.value) == ("default", NAME)


async def test_eight_responses_at_once_are_one_validation(world: World) -> None:
    """Whoever comes second gets the challenge as it stands."""
    client, order, authorization = await pending(world)
    await asyncio.gather(*(client.respond(authorization) for _ in range(8)))
    await world.settle()
    await client.respond(authorization)
    await world.settle()
    assert len(world.validator.asked) == 1
    assert (await client.read(order)).status is OrderStatus.READY
    assert await world.count(EventKind.CHALLENGE_RESPONDED) == 1


# --------------------------------------------------------------------------- two challenges of one


async def test_second_challenge_of_a_proved_name_changes_nothing(world: World) -> None:
    """Both were responded to; the first decides, the second finds that out and rests."""
    client, order, authorization = await pending(world)
    stall = world.validator.stall()
    await client.respond(authorization, 0)
    await stall.reached.wait()
    await client.respond(authorization, 1)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY
    stall.release()
    await world.settle()
    assert (await reread(client, authorization)).status is AuthorizationStatus.VALID
    assert await world.jobs() == 0


async def test_challenge_that_comes_to_its_turn_after_the_decision_rests(world: World) -> None:
    """The queue was long: another challenge has decided before this one was begun."""
    world.concurrency = 1
    await world.restart()
    client, order, authorization = await pending(world)
    stall = world.validator.stall()
    await client.respond(authorization, 0)
    await client.respond(authorization, 1)
    await stall.reached.wait()
    stall.release()
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY
    assert len(world.validator.asked) == 1
    assert await world.jobs() == 0


async def test_challenge_that_fails_after_the_name_was_proved_changes_nothing(
    world: World,
) -> None:
    """A name that is proved stays proved."""
    client, order, authorization = await pending(world)
    stall = world.validator.stall()
    await client.respond(authorization, 0)
    await stall.reached.wait()
    await client.respond(authorization, 1)
    await world.settle()
    world.validator.wrong = {NAME}
    stall.release()
    await world.settle()
    assert (await reread(client, authorization)).status is AuthorizationStatus.VALID
    assert (await client.read(order)).status is OrderStatus.READY
    assert await world.count(EventKind.CHALLENGE_INVALID) == 0


# ------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize("kind", ["dns", "connection", "timeout"])
async def test_passing_fault_is_looked_at_again(world: World, kind: str) -> None:
    """Twice more, a second and four seconds later; the client sees processing meanwhile."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure(kind, "not there yet")] * 2)  # type: ignore[arg-type]
    await client.respond(authorization)
    await world.settle()
    assert (await reread(client, authorization)).challenges[0].status is ChallengeStatus.PROCESSING
    await world.let_pass(timedelta(seconds=1))
    assert len(world.validator.asked) == 2
    await world.let_pass(timedelta(seconds=4))
    assert len(world.validator.asked) == 3
    assert (await client.read(order)).status is OrderStatus.READY


async def test_fault_that_does_not_pass_ends_it_after_three_looks(world: World) -> None:
    """The third look decides."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure("timeout", "no answer")] * 3)
    await client.respond(authorization)
    await world.let_pass(timedelta(seconds=10))
    assert len(world.validator.asked) == 3
    assert (await client.read(order)).status is OrderStatus.INVALID
    assert await world.jobs() == 0


@pytest.mark.parametrize("kind", ["tls", "refused-address", "protocol"])
async def test_other_faults_end_it_at_once(world: World, kind: str) -> None:
    """A second look would see the same."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure(kind, "no")])  # type: ignore[arg-type]
    await client.respond(authorization)
    await world.settle()
    assert len(world.validator.asked) == 1
    assert (await client.read(order)).status is OrderStatus.INVALID


async def test_retries_are_counted_over_a_restart(world: World) -> None:
    """A broker that is restarted again and again does not look for ever."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure("timeout", "no answer")] * 3)
    await client.respond(authorization)
    for _ in range(2):
        await world.settle()
        await world.let_pass(timedelta(seconds=5))
        await world.restart()
    await world.settle()
    assert len(world.validator.asked) == 3
    assert (await client.read(order)).status is OrderStatus.INVALID


async def test_validation_goes_on_after_a_restart(world: World) -> None:
    """The response was kept, so the client need not ask again."""
    client, order, authorization = await pending(world)
    world.validator.stall()
    await client.respond(authorization)
    await world.settle()
    await world.restart()
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY


# ---------------------------------------------------------------------------- what ended meanwhile


async def test_deactivated_account_is_not_looked_for(world: World) -> None:
    """Nobody goes anywhere for it, and its authorization and order end with it."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure("timeout", "no answer")])
    await client.respond(authorization)
    await world.settle()
    await world.accounts.deactivate(client.account, Actor("operator:ann"))
    await world.let_pass(timedelta(seconds=5))
    assert len(world.validator.asked) == 1, "the look before it was deactivated"
    assert (await reread(client, authorization)).status is AuthorizationStatus.DEACTIVATED
    assert (await client.read(order)).status is OrderStatus.INVALID
    assert await world.jobs() == 0


async def test_failed_look_is_told_while_another_follows(world: World) -> None:
    """PROCESSING with the last failure (RFC 8555 §8.2); it is gone once the answer is right."""
    client, order, authorization = await pending(world)
    world.validator.fail([Failure("timeout", "no answer"), Failure("dns", "no such name")])
    await client.respond(authorization)
    await world.settle()
    (first, *_) = (await reread(client, authorization)).challenges
    assert first.status is ChallengeStatus.PROCESSING
    assert first.error is not None
    assert "no answer" in str(first.error["detail"])
    await world.let_pass(timedelta(seconds=1))
    (second, *_) = (await reread(client, authorization)).challenges
    assert second.error is not None
    assert "no such name" in str(second.error["detail"])
    await world.let_pass(timedelta(seconds=4))
    (third, *_) = (await reread(client, authorization)).challenges
    assert (third.status, third.error) == (ChallengeStatus.VALID, None)
    assert (await client.read(order)).status is OrderStatus.READY


async def test_client_can_ask_for_the_next_look_at_once(world: World) -> None:
    """Without waiting for its time; the number of looks stays what it is (RFC 8555 §8.2)."""
    client, order, authorization = await pending(world)
    failure = Failure("timeout", "no answer")
    world.validator.fail([failure] * 3)
    for looks in (1, 2, 3, 3, 3):
        await client.respond(authorization)
        await world.settle()
        assert len(world.validator.asked) == looks, "no time has passed"
    assert (await reread(client, authorization)).status is AuthorizationStatus.INVALID
    assert (await client.read(order)).status is OrderStatus.INVALID
    assert await world.jobs() == 0


async def test_asking_again_during_a_look_starts_no_second_one(world: World) -> None:
    """The look that is under way is the one that was asked for."""
    client, order, authorization = await pending(world)
    stall = world.validator.stall()
    for _ in range(3):
        await client.respond(authorization)
        await world.settle()
    stall.release()
    await world.settle()
    assert len(world.validator.asked) == 1
    assert (await client.read(order)).status is OrderStatus.READY


async def test_expired_order_is_not_looked_for(world: World) -> None:
    """A broker that was down for a day has nothing to look for."""
    client, order, authorization = await pending(world)
    world.validator.stall()
    await client.respond(authorization)
    await world.settle()
    await world.stop()
    world.clock.advance(timedelta(days=1))
    await world.start()
    await world.settle()
    assert len(world.validator.asked) == 1
    assert (await client.read(order)).status is OrderStatus.INVALID
    assert await world.jobs(JobKind.VALIDATE) == 0


async def test_expired_authorization_is_shown_as_expired(world: World) -> None:
    """A response to it changes nothing."""
    client, _, authorization = await pending(world)
    world.clock.advance(timedelta(hours=8))
    assert (await reread(client, authorization)).status is AuthorizationStatus.EXPIRED
    await client.respond(authorization)
    await world.settle()
    assert world.validator.asked == []


async def test_policy_that_says_no_by_now_begins_nothing_upstream(world: World) -> None:
    """The name is proved all the same; finalize tells the client."""
    client, order, authorization = await pending(world)
    world.policies.change("deny: [", f"deny: [{NAME}, ")
    await client.respond(authorization)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.READY
    assert world.ca.calls == []
    with pytest.raises(Problem, match="denied by policy"):
        await client.finalize(await client.read(order))


# ------------------------------------------------------------------------------------- deactivation


async def deactivated(client: Client, authorization: AuthorizationRecord) -> AuthorizationRecord:
    """Deactivate and return what the client is told."""
    return await client.world.authorizations.deactivate(
        client.account, authorization.authorization_id
    )


async def test_deactivated_authorization_ends_its_order(world: World) -> None:
    """Pending or ready, the order cannot be finalized any more; nothing is left to do for it."""
    client, order, authorization = await pending(world)
    assert (await deactivated(client, authorization)).status is AuthorizationStatus.DEACTIVATED
    assert (await client.read(order)).status is OrderStatus.INVALID
    ready = await client.ready("other.example.com")
    (proved,) = await client.authorizations(ready)
    assert (await deactivated(client, proved)).status is AuthorizationStatus.DEACTIVATED
    with pytest.raises(Problem, match="order is invalid"):
        await client.finalize(ready)
    again = await deactivated(client, proved)
    assert again.status is AuthorizationStatus.DEACTIVATED
    assert await world.count(EventKind.AUTHORIZATION_DEACTIVATED) == 2


async def test_deactivation_does_not_stop_an_order_on_its_way(world: World) -> None:
    """Once it is finalized the certificate comes; the authorization proves nothing any more."""
    client = await world.client()
    ready = await client.ready(NAME)
    (proved,) = await client.authorizations(ready)
    stall = world.ca.stall("finalize")
    finalizing = asyncio.create_task(client.finalize(ready))
    await stall.reached.wait()
    await deactivated(client, proved)
    stall.release()
    assert (await finalizing).status is OrderStatus.VALID
    now = world.clock.now()
    assert await world.store.proved_identifiers(client.account.account_id, now) == frozenset()


async def test_deactivation_that_races_with_a_validation_wins(world: World) -> None:
    """Whatever comes first, what the client asked for holds in the end."""
    client, order, authorization = await pending(world)
    await client.respond(authorization)
    told = await deactivated(client, authorization)
    await world.settle()
    assert told.status is AuthorizationStatus.DEACTIVATED
    assert (await reread(client, authorization)).status is AuthorizationStatus.DEACTIVATED
    assert (await client.read(order)).status is OrderStatus.INVALID


async def test_deactivation_of_what_became_valid_just_now_is_done_all_the_same(
    world: World,
) -> None:
    """The compare-and-set lost against the validator; it is tried again, not given up."""
    client, _, authorization = await pending(world)
    change = world.traffic.stall("store.change_authorization")
    deactivating = asyncio.create_task(deactivated(client, authorization))
    await change.reached.wait()
    await client.respond(authorization)
    await world.settle()
    assert (await reread(client, authorization)).status is AuthorizationStatus.VALID
    change.release()
    assert (await deactivating).status is AuthorizationStatus.DEACTIVATED
    assert (await reread(client, authorization)).status is AuthorizationStatus.DEACTIVATED


async def test_unknown_challenge_is_not_found(world: World) -> None:
    """A challenge of another authorization is as unknown as one of nobody's."""
    client, _, authorization = await pending(world)
    other = (await client.authorizations(await client.order("other.example.com")))[0]
    for challenge_id in ("nothing", other.challenges[0].challenge_id):
        with pytest.raises(Problem) as refused:
            await world.authorizations.respond(
                client.account, authorization.authorization_id, challenge_id
            )
        assert refused.value.status == 404
    assert world.validator.asked == []
