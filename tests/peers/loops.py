"""Event loops of the tests: one in a thread of its own, and what a loop leaves open as it ends.

A TLS connection that is closed waits for the other side's farewell, for turns of its loop that may
never come.  It is found by the garbage collector in the middle of another test, and fails that one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

__all__ = ["ConnectionsLeft", "LoopThread", "loops_end_with_their_connections"]

T = TypeVar("T")

WORK_SECONDS: Final = 30.0
"""Longest that a thread's loop is waited for: longer than any answer takes."""


class ConnectionsLeft(AssertionError):
    """A loop was closed before its connections; who opened them has to see them end."""


class LoopThread:
    """An event loop in a thread of its own, so that a test may wait for processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Let the loop turn."""
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* in the loop, and return what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WORK_SECONDS)

    def stop(self) -> None:
        """End the loop, and what is under way in it, without a farewell."""
        self.run(_let_go())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _let_go() -> None:
    """Cancel what runs in this loop besides the caller, and cut all its connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for connection in _open_in(asyncio.get_running_loop()):
        connection.abort()
    await asyncio.sleep(0)


def _open_in(loop: asyncio.AbstractEventLoop) -> list[asyncio.WriteTransport]:
    """Return the connections of *loop* whose sockets are open; nothing public knows them."""
    known = getattr(loop, "_transports", {}).values()
    return [one for one in known if one.get_extra_info("socket").fileno() >= 0]


@contextmanager
def loops_end_with_their_connections() -> Iterator[None]:
    """Have every loop of asyncio's own kind fail as it is closed with a connection open.

    The connections are cut first, so that no other test hears of them.
    """
    close = asyncio.SelectorEventLoop.close
    asyncio.SelectorEventLoop.close = _strict(close)  # type: ignore[method-assign]
    try:
        yield
    finally:
        asyncio.SelectorEventLoop.close = close  # type: ignore[method-assign]


def _strict(close: Callable[[Any], None]) -> Callable[[Any], None]:
    def close_strictly(loop: asyncio.SelectorEventLoop) -> None:
        left = [] if loop.is_closed() or loop.is_running() else _open_in(loop)
        texts = [_describe(connection) for connection in left]
        if left:
            loop.run_until_complete(_let_go())
        close(loop)
        if texts:
            raise ConnectionsLeft(f"a loop ended before its connections: {'; '.join(texts)}")

    return close_strictly


def _describe(connection: asyncio.WriteTransport) -> str:
    own, other = (connection.get_extra_info(name) for name in ("sockname", "peername"))
    return f"{connection!r} from {own} to {other}, for {connection.get_protocol()!r}"
