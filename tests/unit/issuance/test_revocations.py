"""Who may revoke may, nobody else can, and what was asked for reaches the CA."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.records import Job, JobKind
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import Revocation
from tests.fakes.clock import START
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.memory_folder import memory_folder
from tests.fakes.world import Client, World, jwk_of, make_csr, new_key

NAME = "r1.robots.example.com"
"""A name that the robot is trusted with, and that anyone may prove."""

MINUTE = timedelta(minutes=1)


async def issued(world: World, *names: str) -> tuple[Client, bytes]:
    """Return an account and the certificate that it has ordered."""
    client = await world.client()
    order = await client.issue(*names or (NAME,))
    return client, await client.leaf_der(order)


def is_revoked(world: World, certificate_der: bytes) -> bool:
    """Tell whether the CA has revoked it."""
    return hashlib.sha256(certificate_der).hexdigest() in world.ca.revoked


async def refusal(world: World, client: Client, certificate_der: bytes) -> Problem:
    """Return how a revocation is refused; nothing has happened then."""
    before, calls = world.dump(), len(world.ca.calls)
    with pytest.raises(Problem) as refused:
        await client.revoke(certificate_der)
    await world.settle()
    assert world.dump() == before
    assert len(world.ca.calls) == calls
    return refused.value


# ---------------------------------------------------------------------------------------- who may


async def test_account_revokes_its_own(world: World) -> None:
    """The reason goes up, and the certificate is marked."""
    client, der = await issued(world)
    await client.revoke(der, 1)
    assert world.ca.revoked == {hashlib.sha256(der).hexdigest(): 1}
    (kept,) = await world.certificates()
    assert (kept.revoked_at, kept.revocation_reason) == (START, 1)
    assert await world.jobs(JobKind.REVOKE) == 0
    (asked,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REQUESTED)
    assert asked.actor == Actor(f"account:{client.account.account_id}")
    assert await world.count(EventKind.CERTIFICATE_REVOKED) == 1


async def test_stranger_revokes_nothing(world: World) -> None:
    """Not one of the same community, nor the same key in another."""
    owner, der = await issued(world)
    for stranger in (
        await world.client(),
        await world.client("lab"),
        await world.client("lab", key=owner.key),
    ):
        problem = await refusal(world, stranger, der)
        assert problem.type is ProblemType.UNAUTHORIZED
    await owner.revoke(der)


async def test_account_that_has_proved_every_name_revokes(world: World) -> None:
    """By a challenge, in an order of its own, whether it was finalized or not."""
    _, der = await issued(world, NAME, "b.example.com")
    other = await world.client()
    await other.ready(NAME)
    await refusal(world, other, der)
    await other.ready("b.example.com")
    await other.revoke(der)
    assert is_revoked(world, der)


async def test_name_that_was_granted_proves_nothing(world: World) -> None:
    """The robot is trusted with the name, and may still not revoke what another has ordered."""
    _, der = await issued(world)
    robot = await world.robot()
    await robot.issue_granted(NAME)
    problem = await refusal(world, robot, der)
    assert problem.type is ProblemType.UNAUTHORIZED
    other = await world.client()
    await other.ready(NAME)
    await other.revoke(der)


async def test_robot_revokes_what_it_has_ordered(world: World) -> None:
    """Its own certificate is its own, however it came by the name."""
    robot = await world.robot()
    der = await robot.leaf_der(await robot.issue_granted(NAME))
    await robot.revoke(der)
    assert is_revoked(world, der)


async def test_wildcard_and_base_prove_each_themselves(world: World) -> None:
    """Control of a name is not control of all below it, nor the other way round."""
    _, wildcard = await issued(world, "*.zone.example.com")
    _, base = await issued(world, "zone.example.com")
    has_base, has_wildcard = await world.client(), await world.client()
    await has_base.ready("zone.example.com")
    await has_wildcard.ready("*.zone.example.com")
    await refusal(world, has_base, wildcard)
    await refusal(world, has_wildcard, base)
    await has_base.revoke(base)
    await has_wildcard.revoke(wildcard)


async def test_proof_that_has_ended_proves_nothing(world: World) -> None:
    """Expired, or given up."""
    _, der = await issued(world)
    given_up, expired = await world.client(), await world.client()
    (authorization,) = await given_up.authorizations(await given_up.ready(NAME))
    await world.authorizations.deactivate(given_up.account, authorization.authorization_id)
    await expired.ready(NAME)
    world.clock.advance(timedelta(hours=8))
    await refusal(world, given_up, der)
    await refusal(world, expired, der)


async def test_proof_in_another_community_proves_nothing(world: World) -> None:
    """Communities are strangers, even over the same name."""
    _, der = await issued(world)
    other = await world.client("lab")
    await other.ready(NAME)
    await refusal(world, other, der)
    with pytest.raises(Problem):
        await world.revocations.revoke(
            "default", Revocation(der, 0), account=other.account, key=None
        )
    assert not is_revoked(world, der)


async def test_holder_of_the_certificates_key_revokes(world: World) -> None:
    """Without an account; any other key is refused."""
    client, key = await world.client(), new_key()
    order = await client.finalize(await client.ready(NAME), make_csr(NAME, key=key))
    der = await client.leaf_der(order)
    asked = Revocation(der, 1)
    for stranger in (new_key(), client.key):
        with pytest.raises(Problem) as refused:
            await world.revocations.revoke("default", asked, account=None, key=jwk_of(stranger))
        assert refused.value.type is ProblemType.UNAUTHORIZED
    with pytest.raises(Problem):
        await world.revocations.revoke("lab", asked, account=None, key=jwk_of(key))
    assert not is_revoked(world, der)
    await world.drive(world.revocations.revoke("default", asked, account=None, key=jwk_of(key)))
    assert is_revoked(world, der)
    (event,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REQUESTED)
    assert event.actor == Actor("certificate-key")


async def test_nobody_at_all_is_refused(world: World) -> None:
    """Neither an account nor a key."""
    _, der = await issued(world)
    with pytest.raises(Problem):
        await world.revocations.revoke("default", Revocation(der, 0), account=None, key=None)


async def test_unknown_and_withheld_certificates_are_refused_alike(world: World) -> None:
    """Nobody learns what was withheld."""
    client, der = await issued(world)
    world.ca.misissue = lambda leaf: replace(leaf, public_key=new_key().public_key())
    await client.finalize(await client.ready("b.example.com"))
    await world.settle()
    withheld = world.ca.issued[-1].leaf_der
    unknown = await refusal(world, client, b"nothing")
    assert await refusal(world, client, withheld) == unknown
    assert unknown.type is ProblemType.UNAUTHORIZED
    await client.revoke(der)


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, -1, 11])
async def test_reason_that_is_no_requesters_is_refused(world: World, reason: int) -> None:
    """Those that speak of a CA, of a hold, of delta lists, and numbers that are none."""
    client, der = await issued(world)
    with pytest.raises(Problem) as refused:
        await client.revoke(der, reason)
    assert refused.value.type is ProblemType.BAD_REVOCATION_REASON
    assert not is_revoked(world, der)


@pytest.mark.parametrize("reason", [0, 1, 3, 4, 5, 9])
async def test_reason_of_a_requester_is_passed_up(world: World, reason: int) -> None:
    """As it is."""
    client, der = await issued(world)
    await client.revoke(der, reason)
    assert list(world.ca.revoked.values()) == [reason]


async def test_operator_revokes_what_there_is(world: World) -> None:
    """By the certificate's id, named in the event; an unknown id is not found."""
    await issued(world)
    (kept,) = await world.certificates()
    operator = Actor("operator:ann", "key was on a stick")
    await world.drive(world.revocations.revoke_by_operator(kept.certificate_id, 1, operator))
    (event,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REQUESTED)
    assert event.actor == operator
    with pytest.raises(Problem) as refused:
        await world.revocations.revoke_by_operator("nothing", 1, operator)
    assert refused.value.status == 404


# ------------------------------------------------------------------------------------- once, twice


async def test_revoked_certificate_is_revoked_already(world: World) -> None:
    """Whoever asks a second time is told so; the CA is not asked again."""
    client, der = await issued(world)
    await client.revoke(der)
    problem = await refusal(world, client, der)
    assert problem.type is ProblemType.ALREADY_REVOKED
    assert world.ca.count("revoke") == 1


async def test_eight_requests_at_once_are_one_revocation(world: World) -> None:
    """One did it, the others are told that it is done."""
    client, der = await issued(world)
    outcomes = await asyncio.gather(*(client.revoke(der) for _ in range(8)), return_exceptions=True)
    told = [one.type for one in outcomes if isinstance(one, Problem)]
    assert told == [ProblemType.ALREADY_REVOKED] * 7
    assert world.ca.count("revoke") == 1


async def test_request_that_loses_to_another_is_told_that_it_is_done(world: World) -> None:
    """The certificate was revoked between the look and the request."""
    client, der = await issued(world)
    stall = world.traffic.stall("store.request_revocation")
    late = asyncio.create_task(
        world.revocations.revoke("default", Revocation(der, 0), account=client.account, key=None)
    )
    await stall.reached.wait()
    (kept,) = await world.certificates()
    event = (await world.events())[-1]
    await world.store.mark_revoked(kept.certificate_id, reason=1, at=START, event=event)
    stall.release()
    with pytest.raises(Problem) as refused:
        await late
    assert refused.value.type is ProblemType.ALREADY_REVOKED
    assert world.ca.count("revoke") == 0


# ------------------------------------------------------------------------------- the CA's answer


async def test_refusal_of_the_ca_is_told_without_its_address(world: World) -> None:
    """The request is over then, and may be made again."""
    client, der = await issued(world)
    problem = Problem(ProblemType.UNAUTHORIZED, "ask at https://ca.example/help")
    world.ca.fail("revoke", Refused(problem))
    with pytest.raises(Problem, match="upstream 'ca' refused") as refused:
        await client.revoke(der)
    assert refused.value.type is ProblemType.UNAUTHORIZED
    assert "ca.example" not in refused.value.detail
    assert await world.jobs(JobKind.REVOKE) == 0
    (event,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REFUSED)
    assert "ca.example" in str(event.data["detail"]), "the operator reads what the CA said"
    await client.revoke(der)
    assert is_revoked(world, der)


async def test_everyone_who_asked_hears_the_refusal(world: World) -> None:
    """Nobody is told that it was kept when it was not."""
    client, der = await issued(world)
    problem = Refused(Problem(ProblemType.UNAUTHORIZED, "no"))
    world.ca.fail("revoke", problem, times=3)
    outcomes = await asyncio.gather(*(client.revoke(der) for _ in range(3)), return_exceptions=True)
    assert [one.type for one in outcomes if isinstance(one, Problem)] == [
        ProblemType.UNAUTHORIZED
    ] * 3
    assert await world.jobs(JobKind.REVOKE) == 0


async def test_refusal_that_nobody_waits_for_is_kept_as_an_event(world: World) -> None:
    """The CA will not revoke what it should not have issued: a person has to hear of it."""
    world.ca.fail("revoke", Refused(Problem(ProblemType.UNAUTHORIZED, "no")))
    world.ca.misissue = lambda leaf: replace(leaf, public_key=new_key().public_key())
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    await world.settle()
    (event,) = await world.events(EventKind.CERTIFICATE_REVOCATION_REFUSED)
    assert event.order_id == order.order_id
    assert world.revocations._refusals == {}
    assert await world.jobs() == 0


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Unreachable("away"), id="unreachable"),
        pytest.param(Broken("nonsense"), id="broken"),
    ],
)
async def test_request_that_could_not_be_passed_up_is_kept_and_done_later(
    world: World, outcome: Exception
) -> None:
    """The answer is 503 with Retry-After; nobody has to ask again."""
    client, der = await issued(world)
    world.ca.fail("revoke", outcome, times=5)
    with pytest.raises(Problem) as refused:
        await client.revoke(der)
    assert (refused.value.type, refused.value.status) == (ProblemType.SERVER_INTERNAL, 503)
    assert refused.value.retry_after == timedelta(seconds=30)
    assert world.clock.now() - START == timedelta(seconds=10)
    assert not is_revoked(world, der)
    assert await world.jobs(JobKind.REVOKE) == 1
    await world.let_pass(5 * MINUTE)
    assert is_revoked(world, der)
    assert await world.jobs(JobKind.REVOKE) == 0
    assert (await refusal(world, client, der)).type is ProblemType.ALREADY_REVOKED


async def test_ca_that_hangs_keeps_nobody_waiting(world: World) -> None:
    """After ten seconds the answer is 503, and the job is still at it."""
    client, der = await issued(world)
    stall = world.ca.stall("revoke")
    with pytest.raises(Problem) as refused:
        await client.revoke(der)
    assert refused.value.status == 503
    stall.release()
    await world.settle()
    assert is_revoked(world, der)


async def test_second_request_while_the_first_hangs_changes_the_reason(world: World) -> None:
    """Nothing is lost: the CA is asked again when the first call has come to nothing."""
    client, der = await issued(world)
    stall = world.ca.stall("revoke")
    for reason in (1, 4):
        with pytest.raises(Problem) as refused:
            await client.revoke(der, reason)
        assert refused.value.status == 503
    stall.fail_with(Refused(Problem(ProblemType.UNAUTHORIZED, "not for reason 1")))
    await world.settle()
    assert list(world.ca.revoked.values()) == [4]
    assert world.ca.count("revoke") == 2


async def test_lost_answer_is_asked_for_again(world: World) -> None:
    """A certificate that is revoked already is no error."""
    client, der = await issued(world)
    world.ca.lose_answer("revoke")
    await client.revoke(der)
    assert world.ca.count("revoke") == 2
    (kept,) = await world.certificates()
    assert kept.revoked_at is not None


@pytest.mark.parametrize("side", Cut)
@pytest.mark.parametrize(
    "step",
    ["store.request_revocation", "ca.revoke", "store.mark_revoked", "store.finish_job"],
)
async def test_interrupted_revocation_goes_on_after_the_restart(
    tmp_path: Path, step: str, side: Cut
) -> None:
    """Once it was kept nobody has to ask again; before that nothing has happened."""
    with memory_folder(tmp_path) as folder:
        async with World(folder) as world:
            client, der = await issued(world)
            occurrence = world.traffic.steps.count(step) + 1
            world.traffic.cutting = Cutting(step, occurrence, side)
            revoking = asyncio.create_task(client.revoke(der))
            await world.traffic.is_cut.wait()
            revoking.cancel()
            await asyncio.gather(revoking, return_exceptions=True)
            await world.restart()
            await world.settle()
            was_kept = (step, side) != ("store.request_revocation", Cut.BEFORE)
            assert is_revoked(world, der) is was_kept
            (kept,) = await world.certificates()
            assert (kept.revoked_at is not None) is was_kept
            assert await world.jobs() == 0


@pytest.mark.parametrize("subject", ["nothing", "never asked for"])
async def test_job_without_a_request_does_nothing(world: World, subject: str) -> None:
    """A certificate is revoked because somebody asked for it."""
    _, der = await issued(world)
    (kept,) = await world.certificates()
    subject = kept.certificate_id if subject == "never asked for" else subject
    await world.revocations.carry_out(Job(kind=JobKind.REVOKE, subject=subject, due_at=START))
    assert not is_revoked(world, der)
