"""What the cluster has, followed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.admission.cluster_api import Gone, Selection
from broker.admission.mirrors import Key, Mirror, Pauses
from broker.issuance.errors import Broken, Unreachable
from tests.fakes.fake_cluster import FakeCluster, until

PATH = "/api/v1/namespaces/shop/services"


class Followed:
    """A mirror of Services, and what it told."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.changed: list[Key] = []
        self.slept: list[float] = []
        self._turned = asyncio.Event()
        self.mirror: Mirror[str] = Mirror(
            "services",
            self.cluster,
            Selection("/api/v1/services"),
            reduce=_colour,
            on_change=self._on_change,
            sleep=self._sleep,
        )

    def _on_change(self, key: Key) -> None:
        self.changed.append(key)
        self._turned.set()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def next(self) -> Key:
        """Wait for a change."""
        while not self.changed:
            self._turned.clear()
            await self._turned.wait()
        return self.changed.pop(0)

    async def watched(self) -> None:
        """Wait until there is a watch."""
        await until(lambda: self.cluster.watches)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow while in here."""
        task = asyncio.create_task(self.mirror.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _colour(document: Mapping[str, Any]) -> str | None:
    found = document.get("colour")
    return found if isinstance(found, str) else None


@pytest.fixture
def followed() -> Followed:
    """A cluster with one Service."""
    made = Followed()
    made.cluster.put(f"{PATH}/a", colour="red")
    return made


async def test_a_mirror_lists_and_then_follows(followed: Followed) -> None:
    """Each change is told once it can be seen."""
    async with followed.running():
        assert await followed.next() == ("shop", "a")
        assert followed.mirror.is_known
        await followed.watched()
        followed.cluster.put(f"{PATH}/b", colour="blue")
        assert await followed.next() == ("shop", "b")
        assert followed.mirror.get(("shop", "b")) == "blue"
        followed.cluster.put(f"{PATH}/b", colour="green")
        await followed.next()
        assert followed.mirror.get(("shop", "b")) == "green"
        followed.cluster.take(f"{PATH}/b")
        await followed.next()
        assert followed.mirror.get(("shop", "b")) is None
        assert dict(followed.mirror.items()) == {("shop", "a"): "red"}


async def test_what_is_of_no_interest_is_not_kept_and_not_told(followed: Followed) -> None:
    """Nor what changed in no way that matters; what was of interest and is no more, is told."""
    async with followed.running():
        await followed.next()
        await followed.watched()
        followed.cluster.put(f"{PATH}/plain")
        followed.cluster.put(f"{PATH}/a", colour="red", more="x")
        followed.cluster.put(f"{PATH}/a")
        assert await followed.next() == ("shop", "a")
        assert dict(followed.mirror.items()) == {}
        assert followed.changed == []


@pytest.mark.parametrize("end", [None, Gone("410"), Unreachable("broke off")])
async def test_a_watch_that_ends_is_begun_anew(followed: Followed, end: Exception | None) -> None:
    """Whatever it ended by; what was missed meanwhile is found by listing."""
    async with followed.running():
        await followed.next()
        await followed.watched()
        followed.cluster.end_watches(end)
        followed.cluster.put(f"{PATH}/b", colour="blue")
        followed.cluster.take(f"{PATH}/a")
        assert {await followed.next(), await followed.next()} == {("shop", "a"), ("shop", "b")}
        assert dict(followed.mirror.items()) == {("shop", "b"): "blue"}
        await followed.watched()
    assert followed.slept


async def test_a_watch_that_brought_something_is_begun_anew_at_once(followed: Followed) -> None:
    """Each ends after some minutes; one that brings nothing is not asked for without a pause."""
    async with followed.running():
        await followed.next()
        await followed.watched()
        followed.cluster.put(f"{PATH}/b", colour="blue")
        await followed.next()
        followed.cluster.end_watches()
        await followed.watched()
        assert followed.slept == []
        followed.cluster.end_watches()
        await until(lambda: followed.slept)


@pytest.mark.parametrize("fault", [Unreachable("no route"), Broken("403 may not list")])
async def test_a_server_that_is_away_is_asked_again(followed: Followed, fault: Exception) -> None:
    """More slowly each time; until then it is told that nothing is known."""
    followed.cluster.failing["list"] = [fault] * 3
    async with followed.running():
        await until(lambda: len(followed.slept) == 2)
        assert not followed.mirror.is_known
        assert followed.mirror.fault == str(fault)
        await followed.mirror.known()
        assert followed.mirror.fault is None
    assert followed.slept[0] < 30


async def test_what_is_known_stays_known_while_the_server_is_away(followed: Followed) -> None:
    """With the fault beside it."""
    async with followed.running():
        await followed.next()
        await followed.watched()
        followed.cluster.failing["list"] = [Unreachable("no route")] * 1_000
        followed.cluster.end_watches(Unreachable("broke off"))
        await until(lambda: followed.slept)
        assert followed.mirror.get(("shop", "a")) == "red"
        assert followed.mirror.fault is not None


def test_pauses_grow_and_are_bounded() -> None:
    """And begin anew after a success."""
    pauses = Pauses(draw=lambda: 1.0)
    seconds = [pauses.next() for _ in range(20)]
    assert seconds[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(seconds) == 30.0
    pauses.reset()
    assert pauses.next() == 1.0
    assert Pauses(draw=lambda: 0.0).next() == 0.5
