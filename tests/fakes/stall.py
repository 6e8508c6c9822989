"""A call that waits until a test lets it go on."""

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stall:
    """A call that waits: ``reached`` tells that it is there, ``release`` lets it go on."""

    is_after: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _error: Exception | None = None

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def fail_with(self, error: Exception) -> None:
        """Let the call end in *error* instead."""
        self._error = error
        self._released.set()

    async def wait(self) -> None:
        """Be the call."""
        self.reached.set()
        await self._released.wait()
        if self._error is not None:
            raise self._error
