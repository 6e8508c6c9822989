"""SIGTERM and SIGINT: a daemon lets those it serves have their answers, and ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["told_to_stop"]


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """Yield what is set when the process is told to end."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
