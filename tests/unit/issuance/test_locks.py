"""A name is held by one at a time, and costs nothing once nobody wants it."""

import asyncio

import pytest

from broker.issuance.locks import NamedLocks


async def test_one_at_a_time_holds_a_name() -> None:
    """Of three that want one name, each goes in after the one before came out."""
    locks = NamedLocks()
    seen: list[str] = []

    async def hold(who: str) -> None:
        async with locks.hold("name"):
            seen.append(f"{who} in")
            await asyncio.sleep(0)
            seen.append(f"{who} out")

    await asyncio.gather(hold("a"), hold("b"), hold("c"))
    assert seen == ["a in", "a out", "b in", "b out", "c in", "c out"]


async def test_other_names_are_free() -> None:
    """Holding one name keeps nobody from another."""
    locks = NamedLocks()
    async with locks.hold("one"), asyncio.timeout(30), locks.hold("two"):
        pass


async def test_name_is_free_again_after_an_error() -> None:
    """What happens inside does not stay with the lock."""
    locks = NamedLocks()
    with pytest.raises(ValueError, match="inside"):
        async with locks.hold("name"):
            raise ValueError("inside")
    async with asyncio.timeout(30), locks.hold("name"):
        pass


async def test_waiting_can_be_given_up() -> None:
    """Who stops waiting leaves the holder and those behind alone."""
    locks = NamedLocks()
    entered = asyncio.Event()

    async def hold() -> None:
        async with locks.hold("name"):
            entered.set()

    async with locks.hold("name"):
        gives_up, stays = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0)
        gives_up.cancel()
        await asyncio.gather(gives_up, return_exceptions=True)
        assert not entered.is_set()
    await stays
    assert entered.is_set()


async def test_unused_names_take_no_memory() -> None:
    """After the last one has left, nothing of the name is kept."""
    locks = NamedLocks()
    for number in range(100):
        async with locks.hold(f"name {number}"):
            assert len(locks._locks) == 1
    assert locks._locks == {}
