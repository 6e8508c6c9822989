"""The event loop that the broker serves on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["run_to_end"]


def run_to_end(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* to its end: on uvloop where there is one, else on asyncio's own loop.

    An idle TLS connection takes a tenth of the memory on uvloop.  It is not made for every system
    (Windows has none), and nothing but speed and memory depends on it.
    """
    with asyncio.Runner(loop_factory=_find_factory()) as runner:
        runner.run(main)


def _find_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
