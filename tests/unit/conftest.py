"""What holds for unit tests: they never wait for time to pass.

Sockets are forbidden to them in tests/conftest.py.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_sleep() -> Iterator[None]:
    """Make every real wait an error; giving way to other tasks (``sleep(0)``) stays allowed."""
    yield_to_others = asyncio.sleep

    async def no_async_sleep(delay: float, result: Any = None) -> Any:
        assert delay <= 0, f"a unit test waited {delay} s: await an event, or use the fake clock"
        return await yield_to_others(0, result)

    def no_sleep(seconds: float) -> None:
        pytest.fail(f"a unit test slept {seconds} s: await an event, or use the fake clock")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(asyncio, "sleep", no_async_sleep)
        monkeypatch.setattr(time, "sleep", no_sleep)
        yield
