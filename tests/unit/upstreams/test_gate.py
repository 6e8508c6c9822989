"""The gate of an account: many at once, or one alone, and nobody while the key is in doubt."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.gate import AccountGate


async def test_users_pass_side_by_side() -> None:
    """Nobody waits for another request."""
    gate = AccountGate()
    async with gate.using():
        other = asyncio.ensure_future(_use(gate, []))
        await asyncio.wait_for(other, 30)


async def test_holder_waits_for_those_inside_and_others_wait_for_it() -> None:
    """What began before ends before; what comes after comes after."""
    gate = AccountGate()
    seen: list[str] = []
    leave = asyncio.Event()

    async def linger() -> None:
        async with gate.using():
            seen.append("in")
            await leave.wait()
            seen.append("out")

    async def hold() -> None:
        async with gate.held():
            seen.append("held")

    first = asyncio.ensure_future(linger())
    await _turns()
    holder = asyncio.ensure_future(hold())
    await _turns()
    late = asyncio.ensure_future(_use(gate, seen))
    await _turns()
    assert seen == ["in"]
    leave.set()
    await asyncio.gather(first, holder, late)
    assert seen == ["in", "out", "held", "used"]
    assert gate.changes == 1


async def test_who_is_inside_passes_again() -> None:
    """Also in tasks of its own, and while somebody waits to hold the account."""
    gate = AccountGate()
    seen: list[str] = []

    async def inside() -> None:
        async with gate.using(), asyncio.TaskGroup() as group:
            await _turns()
            group.create_task(_use(gate, seen))

    first = asyncio.ensure_future(inside())
    await _turns(1)
    async with gate.held():
        assert first.done()
    assert seen == ["used"]


async def test_holder_gives_up_after_a_while() -> None:
    """Nothing was done, and the account is open to everybody again."""
    gate = AccountGate(hold_time=timedelta(0))
    seen: list[str] = []
    async with gate.using():
        holder = asyncio.ensure_future(_hold(gate))
        with pytest.raises(Unreachable, match="1 tasks still use the account") as caught:
            await holder
        assert caught.value.left_nothing
        await asyncio.ensure_future(_use(gate, seen))
    assert seen == ["used"]


async def test_doubt_about_the_key_keeps_everybody_out() -> None:
    """What was not sent left nothing, so an order is opened anew without looking for it."""
    gate = AccountGate()
    gate.is_certain = False
    with pytest.raises(Unreachable, match="which key it knows") as caught:
        await _use(gate, [])
    assert caught.value.left_nothing
    async with gate.held():
        gate.is_certain = True
    await _use(gate, [])


async def test_failure_inside_leaves_the_gate_open() -> None:
    """For users and for a holder."""
    gate = AccountGate()
    with pytest.raises(ValueError, match="x"):
        async with gate.using():
            raise ValueError("x")
    with pytest.raises(ValueError, match="y"):
        async with gate.held():
            raise ValueError("y")
    async with gate.held():
        pass


async def _use(gate: AccountGate, seen: list[str]) -> None:
    async with gate.using():
        seen.append("used")


async def _hold(gate: AccountGate) -> None:
    async with gate.held():
        pass


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_comes_in_while_the_account_is_lost() -> None:
    """But for who looks whether it still is; what is refused so has left nothing at the CA."""
    gate = AccountGate()
    gate.loss = "it is lost"
    with pytest.raises(Broken, match="it is lost") as told:
        async with gate.using():
            raise AssertionError("came in")
    assert told.value.left_nothing
    async with gate.using(is_lost_too=True):
        pass
    gate.loss = None
    async with gate.using():
        pass
