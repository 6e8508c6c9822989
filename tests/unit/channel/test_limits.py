"""Limits of the agents' listener: who is counted, who is refused, what it costs others."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from aiohttp import web

from broker.channel.door import RETRY_SECONDS
from broker.channel.limits import AgentLimits, NoLimits
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.clock import FakeClock

ENOUGH = 3
"""Tokens of each key in these tests; none ever comes back."""

WAIT = timedelta(seconds=7, milliseconds=400)


class FakeTally:
    """Token buckets that do not fill again."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}

    def take(self, key: str, now: datetime) -> timedelta:
        """Take one, or say how long to wait."""
        if self.taken.get(key, 0) >= ENOUGH:
            return WAIT
        self.taken[key] = self.taken.get(key, 0) + 1
        return timedelta()


class FakeRequest(dict[Any, Any]):
    """What is looked at of a request."""

    transport = None
    path = "/agent/v1/messages"

    def __init__(self, *, remote: str = "192.0.2.1", is_claiming: bool = False) -> None:
        super().__init__()
        self.remote = remote
        self.headers = {"Signature-Input": "x"} if is_claiming else {}


class Door:
    """A listener of which nothing is real but the limits."""

    def __init__(self) -> None:
        self.addresses, self.nodes = FakeTally(), FakeTally()
        self.refused: list[str] = []
        self.served = 0
        self.limits = AgentLimits(
            addresses=self.addresses,
            nodes=self.nodes,
            network_of=str,
            clock=FakeClock(),
            on_refused=self.refused.append,
            hold_back=timedelta(),
        )

    async def ask(
        self,
        *,
        address: str = "192.0.2.1",
        node: str | None = None,
        is_claiming: bool = False,
        is_fit: bool = True,
        is_found: bool = True,
    ) -> timedelta | int | None:
        """Send a request behind which *node* is found.

        Returns how long it was told to wait, or the status of another refusal.
        """
        request = FakeRequest(remote=address, is_claiming=is_claiming or node is not None)

        async def handle(inner: web.Request) -> web.StreamResponse:
            if not is_found:
                raise web.HTTPNotFound
            if node is not None:
                self.limits.believe(inner, node)
            elif is_claiming:
                raise Problem(ProblemType.UNAUTHORIZED, "nobody")
            if not is_fit:
                raise Problem(ProblemType.MALFORMED, "not fit")
            self.served += 1
            return web.Response()

        middleware = cast(Any, self.limits.middleware)
        try:
            await middleware(request, handle)
        except Problem as problem:
            return problem.retry_after if problem.status == 429 else problem.status
        except web.HTTPNotFound as answer:
            return answer.status
        return None


async def test_who_shows_nothing_is_refused_by_address_and_another_address_is_not() -> None:
    """Before anything is done for the request."""
    door = Door()
    assert [await door.ask() for _ in range(ENOUGH)] == [None] * ENOUGH
    assert isinstance(await door.ask(), timedelta)
    assert (door.served, door.refused) == (ENOUGH, ["agents"])
    assert await door.ask(address="192.0.2.2") is None


async def test_who_claims_to_be_a_node_and_is_none_is_counted_all_the_same() -> None:
    """Stolen, revoked or made up: the refusals of an address are as many as its requests."""
    door = Door()
    told = [await door.ask(is_claiming=True) for _ in range(ENOUGH + 1)]
    assert told[:-1] == [403] * ENOUGH
    assert isinstance(told[-1], timedelta)
    assert isinstance(await door.ask(), timedelta)


async def test_a_claim_at_a_place_that_is_not_there_is_counted() -> None:
    """Nobody looks at the claim there, so it may not be had for nothing."""
    door = Door()
    told = [await door.ask(is_claiming=True, is_found=False) for _ in range(ENOUGH + 1)]
    assert told[:-1] == [404] * ENOUGH
    assert isinstance(told[-1], timedelta)


async def test_nodes_that_are_known_cost_their_address_nothing() -> None:
    """However many of them stand behind it, and whatever becomes of their requests."""
    door = Door()
    waits = [
        await door.ask(node=f"n{number}", is_fit=number % 2 == 0) for number in range(10 * ENOUGH)
    ]
    assert set(waits) == {None, 400}
    assert door.addresses.taken == {}


async def test_strangers_do_not_keep_the_nodes_at_their_address_out() -> None:
    """The address has nothing left, and the nodes need nothing of it."""
    door = Door()
    for _ in range(2 * ENOUGH):
        await door.ask()
    assert await door.ask(node="n1") is None
    assert isinstance(await door.ask(), timedelta)


async def test_a_node_in_a_loop_is_refused_and_its_neighbour_is_not() -> None:
    """Each has a bucket of its own, whatever its address."""
    door = Door()
    waits = [await door.ask(node="loop") for _ in range(ENOUGH + 2)]
    assert waits[:ENOUGH] == [None] * ENOUGH
    assert all(isinstance(wait, timedelta) for wait in waits[ENOUGH:])
    assert (door.served, door.refused) == (ENOUGH, ["nodes"] * 2)
    assert await door.ask(node="neighbour") is None


async def test_those_who_were_refused_are_told_different_times() -> None:
    """None before there is a token, and not all together."""
    door = Door()
    for _ in range(ENOUGH):
        await door.ask()
    waits = {wait for _ in range(200) if isinstance(wait := await door.ask(), timedelta)}
    assert min(waits) >= WAIT
    assert max(waits) <= timedelta(seconds=8 + RETRY_SECONDS)
    assert len(waits) > 3


async def test_a_refusal_is_held_back_and_a_served_request_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop that heeds nothing is no tight one."""
    held_back: list[float] = []

    async def note(seconds: float) -> None:
        held_back.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    door = Door()
    for _ in range(ENOUGH):
        await door.ask()
    assert held_back == []
    await door.ask()
    assert len(held_back) == 1


def test_without_limits_everybody_is_believed() -> None:
    """Where none are put together, as in tests of other parts."""
    request = cast(web.Request, FakeRequest())
    for _ in range(10 * ENOUGH):
        NoLimits().believe(request, "n1")
    assert not request
