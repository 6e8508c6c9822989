"""Approvals over a real store: what is one transaction, and who is let in."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.approval_ports import (
    AnswerWord,
    ApprovalAnswer,
    ApprovalRecord,
    ApprovalStatus,
    QueueFull,
    QueueLimits,
)
from broker.issuance.errors import Conflict
from broker.issuance.events import Event, EventKind
from tests.fakes.clock import START
from tests.fakes.world import World
from tests.unit.issuance.test_approval_changes import record

ROOM = QueueLimits(of_asker=2, in_all=3)
EVENT = Event(kind=EventKind.APPROVAL_REQUESTED, at=START)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with a store."""
    async with World(tmp_path) as made:
        yield made


def request(number: int, *, asker: str = "account:a", subject: str = "") -> ApprovalRecord:
    """Return a request that waits."""
    return replace(
        record(), approval_id=f"{number:032x}", asker=asker, subject_sha256=subject or str(number)
    )


async def test_request_for_the_same_subject_is_kept_once(world: World) -> None:
    """The one that waits is returned; after its end there may be another."""
    first = await world.store.file_approval(request(1, subject="s"), EVENT, ROOM)
    again = await world.store.file_approval(request(2, subject="s"), EVENT, ROOM)
    assert again == first
    denied = replace(first, status=ApprovalStatus.DENIED, revision=1)
    await world.store.change_approval(denied, expected=0, events=(EVENT,))
    third = await world.store.file_approval(request(3, subject="s"), EVENT, ROOM)
    assert third.approval_id != first.approval_id
    assert await world.count(EventKind.APPROVAL_REQUESTED) == 3
    found = await world.store.approvals_of("default", "account-1", "server")
    assert [one.status for one in found] == [ApprovalStatus.WAITING, ApprovalStatus.DENIED]


async def test_queue_has_room_for_so_many(world: World) -> None:
    """Of one who asks, and in all."""
    for number, asker in enumerate(("a", "a", "b")):
        await world.store.file_approval(request(number, asker=asker), EVENT, ROOM)
    with pytest.raises(QueueFull, match="2 requests of this requester wait"):
        await world.store.file_approval(request(7, asker="a"), EVENT, ROOM)
    with pytest.raises(QueueFull, match="3 requests wait for a person already, at most 3"):
        await world.store.file_approval(request(8, asker="c"), EVENT, ROOM)


async def test_change_of_another_revision_is_refused_whole(world: World) -> None:
    """Neither answer nor event of the loser is kept; asks that joined meanwhile stay counted."""
    kept = await world.store.file_approval(request(1), EVENT, ROOM)
    await world.store.note_asked(kept.approval_id, START)
    answer = ApprovalAnswer(
        approval_id=kept.approval_id, revision=1, round=1, person="operator:anna",
        word=AnswerWord.APPROVE, at=START, reason=None, evidence=("ticket=7",),
    )  # fmt: skip
    changed = replace(kept, revision=1, status=ApprovalStatus.APPROVED)
    await world.store.change_approval(changed, expected=0, events=(EVENT,), answer=answer)
    late = replace(answer, person="operator:ben", revision=1)
    with pytest.raises(Conflict, match="has changed meanwhile"):
        await world.store.change_approval(changed, expected=0, events=(EVENT,), answer=late)
    assert await world.store.answers_of(kept.approval_id) == [answer]
    assert await world.count(EventKind.APPROVAL_REQUESTED) == 2
    found = await world.store.find_approval(kept.approval_id)
    assert found == replace(changed, times_asked=2)


async def test_what_is_due_is_found_by_its_time(world: World) -> None:
    """And nothing that has no time of its own."""
    kept = await world.store.file_approval(request(1), EVENT, ROOM)
    assert kept.look_at is not None
    assert await world.store.due_approvals(START, 10) == []
    assert await world.store.due_approvals(kept.look_at, 10) == [kept]
    ended = replace(kept, revision=1, status=ApprovalStatus.EXPIRED, look_at=None)
    await world.store.change_approval(ended, expected=0, events=())
    assert await world.store.due_approvals(kept.look_at, 10) == []


async def test_approval_is_found_by_the_key_that_it_minted(world: World) -> None:
    """In its community alone."""
    kept = await world.store.file_approval(replace(request(1), eab_key_id="ra-1"), EVENT, ROOM)
    assert await world.store.approval_of_key("default", "ra-1") == kept
    assert await world.store.approval_of_key("lab", "ra-1") is None
