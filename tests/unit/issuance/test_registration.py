"""What people say to requests, over a real store."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.approval_ports import AnswerWord, ApprovalRecord, ApprovalStatus
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, EventKind
from broker.protocol.problems import Problem
from broker.protocol.requests import AccountUpdate
from tests.fakes.approving import ANNA, BEN, CARL, filed, people_policy, say
from tests.fakes.world import Client, World

DAY = timedelta(days=1)
HOST = "www.people.example.com"
BOARD = "www.board.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people."""
    async with World(tmp_path) as made:
        made.policies.set(people_policy())
        yield made


@pytest.fixture
async def client(world: World) -> Client:
    """Somebody who asks."""
    return await world.client()


async def test_one_person_is_enough_where_policy_wants_one(world: World, client: Client) -> None:
    """The event tells who, why, on what evidence and until when."""
    request = await filed(client, HOST)
    made = await say(world, request, "approve", ANNA, "ticket=7")
    assert made.status is ApprovalStatus.APPROVED
    assert made.holds_until == world.clock.now() + 30 * DAY
    (event,) = await world.events(EventKind.APPROVAL_GRANTED)
    assert event.actor == ANNA
    assert event.data["evidence"] == ["ticket=7"]
    assert event.data["holds_until"] == "2026-03-31T12:00:00+00:00"
    (answer,) = await world.store.answers_of(request.approval_id)
    assert (answer.person, answer.word, answer.reason) == (
        "operator:anna", AnswerWord.APPROVE, "seen in person",
    )  # fmt: skip


async def test_two_people_are_two_people(world: World, client: Client) -> None:
    """The first one's yes opens nothing, and a second one of theirs neither."""
    request = await filed(client, BOARD)
    made = await say(world, request, "approve", ANNA, "ticket=7")
    assert made.status is ApprovalStatus.WAITING
    (event,) = await world.events(EventKind.APPROVAL_SUPPORTED)
    assert (event.data["people"], event.data["of"]) == (1, 2)
    for same in (ANNA, Actor("operator:Anna@corp.example")):
        with pytest.raises(Problem, match="has said so already, another person"):
            await say(world, request, "approve", same)
    assert (await say(world, request, "approve", BEN)).status is ApprovalStatus.APPROVED
    (granted,) = await world.events(EventKind.APPROVAL_GRANTED)
    assert granted.data["people"] == 2
    assert granted.data["evidence"] == ["ticket=7"]


async def test_evidence_that_policy_wants_has_to_be_referred_to(
    world: World, client: Client
) -> None:
    """By one of the two; the last yes is not taken without."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "note=looks right")
    with pytest.raises(Problem, match="evidence of kind 'ticket' is missing"):
        await say(world, request, "approve", BEN)
    assert (await say(world, request, "approve", BEN, "ticket=7")).status is ApprovalStatus.APPROVED


@pytest.mark.parametrize("word", ["approve", "deny"])
async def test_whoever_answers_for_the_account_does_not_decide(
    world: World, client: Client, word: str
) -> None:
    """Known by its contact, also by one that was changed since; somebody else may."""
    update = AccountUpdate(contacts=("mailto:anna@corp.example",))
    client.account = await world.accounts.update(client.account, update)
    request = await filed(client, HOST)
    other = AccountUpdate(contacts=("mailto:ben@corp.example",))
    client.account = await world.accounts.update(client.account, other)
    for actor in (ANNA, BEN):
        with pytest.raises(Problem, match=f"{actor.name} answers for this request"):
            await say(world, request, word, actor)
    assert (await say(world, request, word, CARL)).status is not ApprovalStatus.WAITING


async def test_whoever_minted_the_key_does_not_decide(world: World) -> None:
    """They have vouched for the account already."""
    key = await world.enrollment.mint(
        "default", label="", names=(), profiles=(), expires_at=None, is_reusable=False,
        actor=ANNA,
    )  # fmt: skip
    request = await filed(await world.client(binding=(key.key_id, key.mac_key)), HOST)
    with pytest.raises(Problem, match="operator:anna answers for this request"):
        await say(world, request, "approve", ANNA)
    assert (await say(world, request, "approve", BEN)).status is ApprovalStatus.APPROVED


async def test_whom_policy_names_approves_and_nobody_else(world: World, client: Client) -> None:
    """By their very name: whoever could be them is not them.  A no is everybody's."""
    world.policies.set(people_policy("      holds: 30d\n", "      by: [ben]\n"))
    request = await filed(client, HOST)
    for actor in (ANNA, Actor("operator:ben@corp.example"), Actor("operator:corp/ben")):
        with pytest.raises(Problem, match=f"{actor.name} may not decide .* that to ben") as caught:
            await say(world, request, "approve", actor)
        assert caught.value.status == 403
    assert (await say(world, request, "deny", ANNA)).status is ApprovalStatus.DENIED
    assert (await say(world, request, "approve", BEN)).status is ApprovalStatus.APPROVED
    await say(world, request, "suspend", ANNA)
    with pytest.raises(Problem, match="operator:anna may not decide"):
        await say(world, request, "resume", ANNA)
    await say(world, request, "resume", BEN)
    with pytest.raises(Problem, match="operator:anna may not decide"):
        await say(world, request, "renew", ANNA)
    assert await client.order(HOST)


async def test_whom_policy_names_later_approves_anew(world: World, client: Client) -> None:
    """Those whom it named before may be gone, so they count no more."""
    world.policies.set(people_policy("      holds: 30d\n", "      by: [ben]\n"))
    request = await filed(client, HOST)
    await say(world, request, "approve", BEN)
    assert await client.order(HOST)
    world.policies.set(people_policy("      holds: 30d\n", "      by: [ben, carl]\n"))
    assert await client.order(HOST)
    world.policies.set(people_policy("      holds: 30d\n", "      by: [carl]\n"))
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(HOST)
    with pytest.raises(Problem, match="left that to carl when it was asked for or fell due; if"):
        await say(world, request, "renew", BEN)
    await say(world, request, "renew", CARL)
    assert await client.order(HOST)


async def test_yes_of_whom_policy_names_no_more_does_not_count(
    world: World, client: Client
) -> None:
    """Nor what they showed: the others say it all anew."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "ticket=7")
    await say(world, request, "approve", BEN)
    await say(world, request, "renew", CARL, "ticket=8")
    world.policies.set(
        people_policy("      people: 2\n", "      people: 2\n      by: [anna, ben]\n")
    )
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(BOARD)
    assert (await say(world, request, "renew", ANNA)).status is ApprovalStatus.DUE
    noted = (await world.events(EventKind.APPROVAL_SUPPORTED))[-1]
    assert (noted.actor, noted.data["people"]) == (ANNA, 1)
    with pytest.raises(Problem, match="evidence of kind 'ticket' is missing"):
        await say(world, request, "renew", BEN)
    assert (await say(world, request, "renew", BEN, "ticket=9")).status is ApprovalStatus.APPROVED
    (renewed,) = await world.events(EventKind.APPROVAL_RENEWED)
    assert (renewed.data["people"], renewed.data["evidence"]) == (2, ["ticket=9"])
    assert await client.order(BOARD)


async def test_yes_of_whom_policy_still_names_counts(world: World, client: Client) -> None:
    """Said before it named anybody, with what they showed."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "ticket=7")
    await say(world, request, "approve", BEN)
    await say(world, request, "renew", CARL, "ticket=8")
    world.policies.set(
        people_policy("      people: 2\n", "      people: 2\n      by: [anna, carl]\n")
    )
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(BOARD)
    assert (await say(world, request, "renew", ANNA)).status is ApprovalStatus.APPROVED
    assert await client.order(BOARD)


@pytest.mark.parametrize(
    ("before", "after", "renews"),
    [
        pytest.param("people: 2", "by: [anna]", [ANNA], id="two-then-one-by-name"),
        pytest.param("by: [anna]", "people: 2", [BEN, CARL], id="one-by-name-then-two"),
    ],
)
async def test_what_falls_due_by_policy_can_be_renewed(
    world: World, client: Client, before: str, after: str, renews: list[Actor]
) -> None:
    """By those who can meet what policy says today."""
    world.policies.set(people_policy("      holds: 30d\n", f"      holds: 30d\n      {before}\n"))
    request = await filed(client, HOST)
    for actor in (BEN, ANNA) if before == "people: 2" else (ANNA,):
        await say(world, request, "approve", actor)
    world.policies.set(people_policy("      holds: 30d\n", f"      holds: 30d\n      {after}\n"))
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(HOST)
    made = [await say(world, request, "renew", actor) for actor in renews]
    assert made[-1].status is ApprovalStatus.APPROVED
    assert await client.order(HOST)


async def test_who_may_not_decide_is_told_what_to_do(world: World, client: Client) -> None:
    """The terms may be a former policy's: nobody is told that they are today's."""
    named = "      people: 2\n      by: [anna, ben]\n"
    world.policies.set(people_policy("      people: 2\n", named))
    request = await filed(client, BOARD)
    asked = "policy left that to anna and ben when it was asked for; if that has changed,"
    with pytest.raises(Problem, match=f"{asked} withdraw it and have it asked for anew$"):
        await say(world, request, "approve", CARL)
    await say(world, request, "deny", CARL)
    with pytest.raises(Problem, match="have it asked for anew after 2026-03-15T12:00:00"):
        await say(world, request, "approve", CARL)
    await say(world, request, "approve", ANNA, "ticket=7")
    await say(world, request, "approve", BEN)
    with pytest.raises(Problem, match="withdraw it, which revokes what rests on it, and have it"):
        await say(world, request, "renew", CARL)
    await say(world, request, "withdraw", CARL)
    world.policies.set(people_policy())
    assert (await filed(client, BOARD)).approval_id != request.approval_id


async def test_what_is_due_by_policy_is_due_again_when_it_is_resumed(
    world: World, client: Client
) -> None:
    """Who holds it up and lets it go on has said nothing that policy asks for."""
    request = await filed(client, HOST)
    await say(world, request, "approve", BEN)
    world.policies.set(people_policy("      holds: 30d\n", "      people: 2\n"))
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(HOST)
    await say(world, request, "suspend", ANNA)
    assert (await say(world, request, "resume", BEN)).status is ApprovalStatus.DUE
    with pytest.raises(Problem, match="has to be shown anew"):
        await client.order(HOST)
    await say(world, request, "renew", BEN)
    assert (await say(world, request, "renew", CARL)).status is ApprovalStatus.APPROVED
    assert await client.order(HOST)


async def test_requester_may_hold_up_and_take_back(world: World, client: Client) -> None:
    """That does no harm."""
    update = AccountUpdate(contacts=("mailto:anna@corp.example",))
    client.account = await world.accounts.update(client.account, update)
    request = await filed(client, HOST)
    await say(world, request, "approve", BEN)
    await say(world, request, "suspend", ANNA)
    with pytest.raises(Problem, match="answers for this request"):
        await say(world, request, "resume", ANNA)
    assert (await say(world, request, "withdraw", ANNA)).status is ApprovalStatus.WITHDRAWN


# ---------------------------------------------------------------------------------------- races


async def test_two_who_approve_at_once_both_count(world: World, client: Client) -> None:
    """The second one's yes is given to what the first one left."""
    request = await filed(client, BOARD)
    made = await asyncio.gather(
        say(world, request, "approve", ANNA, "ticket=7"),
        say(world, request, "approve", BEN, "ticket=7"),
    )
    assert {one.status for one in made} == {ApprovalStatus.WAITING, ApprovalStatus.APPROVED}
    assert await world.count(EventKind.APPROVAL_GRANTED) == 1


async def test_one_who_approves_twice_at_once_counts_once(world: World, client: Client) -> None:
    """Whichever way they come."""
    request = await filed(client, BOARD)
    answers = await asyncio.gather(
        *(say(world, request, "approve", ANNA, "ticket=7") for _ in range(4)),
        return_exceptions=True,
    )
    made = [one for one in answers if isinstance(one, ApprovalRecord)]
    assert [one.status for one in made] == [ApprovalStatus.WAITING]
    assert sum(isinstance(one, Problem | Conflict) for one in answers) == 3
    assert await world.count(EventKind.APPROVAL_GRANTED) == 0


async def test_yes_and_no_at_once_end_in_one_of_both(world: World, client: Client) -> None:
    """Nobody's answer is lost without a word."""
    request = await filed(client, HOST)
    answers = await asyncio.gather(
        say(world, request, "approve", ANNA),
        say(world, request, "deny", BEN),
        return_exceptions=True,
    )
    kept = await world.authority.read(request.approval_id)
    said = await world.store.answers_of(request.approval_id)
    refused = [one for one in answers if isinstance(one, Problem)]
    # A yes after the no is another round; a no after the yes is not possible.
    assert (kept.status, len(said), len(refused)) in (
        (ApprovalStatus.APPROVED, 1, 1),
        (ApprovalStatus.APPROVED, 2, 0),
    )


# ----------------------------------------------------------------------------------------- ends


async def test_answer_that_does_not_follow_is_refused(world: World, client: Client) -> None:
    """With the state that it is in; what is not there is not answered."""
    request = await filed(client, HOST)
    for word in ("suspend", "resume", "renew"):
        with pytest.raises(Problem, match="is waiting, so that it cannot be"):
            await say(world, request, word, ANNA)
    unknown = replace(request, approval_id="0" * 32)
    with pytest.raises(Problem, match="there is no such approval"):
        await say(world, unknown, "approve", ANNA)


async def test_denial_can_be_reconsidered(world: World, client: Client) -> None:
    """By people who say yes as if nobody had said anything."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "ticket=7")
    await say(world, request, "deny", CARL)
    assert (await say(world, request, "approve", BEN, "ticket=7")).status is ApprovalStatus.DENIED
    assert (await say(world, request, "approve", ANNA)).status is ApprovalStatus.APPROVED


async def test_answer_after_its_time_comes_too_late(world: World, client: Client) -> None:
    """Whether or not the sweep came by."""
    request = await filed(client, HOST)
    world.clock.advance(7 * DAY)
    with pytest.raises(Problem, match="is expired, so that it cannot be approved"):
        await say(world, request, "approve", ANNA)


async def test_first_of_two_yes_lapses_with_the_evidence_it_brought(
    world: World, client: Client
) -> None:
    """After as long as an answer is waited for: old evidence is not shown anew by a second yes."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "ticket=7")
    approved = await say(world, request, "approve", BEN)
    world.clock.advance(70 * DAY)
    await say(world, request, "renew", ANNA, "ticket=8")
    world.clock.advance(15 * DAY)
    late = await say(world, request, "renew", BEN)
    assert (late.proofed_at, late.holds_until) == (approved.proofed_at, approved.holds_until)
    world.clock.advance(13 * DAY)
    made = await say(world, request, "renew", ANNA, "ticket=9")
    assert made.proofed_at == world.clock.now()
    assert made.holds_until == world.clock.now() + 300 * DAY


async def test_renewal_counts_from_when_it_is_given(world: World, client: Client) -> None:
    """Its evidence does not grow younger by it unless it is shown anew."""
    request = await filed(client, BOARD)
    await say(world, request, "approve", ANNA, "ticket=7")
    made = await say(world, request, "approve", BEN)
    assert made.reproof_at == world.clock.now() + 100 * DAY
    world.clock.advance(50 * DAY)
    await say(world, request, "renew", ANNA)
    renewed = await say(world, request, "renew", BEN)
    assert renewed.holds_until == world.clock.now() + 300 * DAY
    assert renewed.reproof_at == made.reproof_at
    await say(world, request, "renew", ANNA, "ticket=8")
    proofed = await say(world, request, "renew", BEN)
    assert proofed.reproof_at == world.clock.now() + 100 * DAY


async def test_sweep_does_what_the_clock_does(world: World, client: Client) -> None:
    """Each once, with its event."""
    waits = await filed(client, HOST)
    board = await filed(client, BOARD)
    await say(world, board, "approve", ANNA, "ticket=7")
    await say(world, board, "approve", BEN)
    assert await world.authority.sweep() == 0
    world.clock.advance(100 * DAY)
    assert await world.authority.sweep() == 2
    assert await world.authority.sweep() == 0
    assert (await world.authority.read(waits.approval_id)).status is ApprovalStatus.EXPIRED
    assert (await world.authority.read(board.approval_id)).status is ApprovalStatus.DUE
    assert await world.count(EventKind.APPROVAL_EXPIRED) == 1
    assert await world.count(EventKind.APPROVAL_DUE) == 1
    world.clock.advance(200 * DAY)
    assert await world.authority.sweep() == 1
    assert (await world.authority.read(board.approval_id)).status is ApprovalStatus.EXPIRED
