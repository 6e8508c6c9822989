"""Who may use our account at a CA now: everybody at once, or a change of its key alone.

A request that is signed with a key which the CA has just replaced is refused for good, and so is
a challenge that was answered with its thumbprint.  So a change waits until all that is under way
has ended, and whoever comes meanwhile waits for the change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Final

from broker.issuance.errors import Broken, Unreachable

__all__ = ["AccountGate"]

HOLD_TIME: Final = timedelta(seconds=90)
"""How long a change waits for what is under way: a CA has mostly looked at a challenge by then,
and those who wait behind the change are not kept longer."""

_inside: ContextVar[frozenset[int]] = ContextVar("inside", default=frozenset())
"""The gates that this task, or the one that started it, has passed already."""


class AccountGate:
    """The gate of one account."""

    def __init__(self, *, hold_time: timedelta = HOLD_TIME) -> None:
        self._hold_time = hold_time
        self._users = 0
        self._is_held = False
        self._moved = asyncio.Condition()
        self.is_certain = True
        """Whether it is known which key the account has."""
        self.loss: str | None = None
        """Why the account is lost; while it is, nobody comes in."""
        self.is_doubted = False
        """Whether a use has failed in a way that a lost account would show."""
        self.changes = 0
        """How often somebody has held the account; what was remembered before is stale."""

    @asynccontextmanager
    async def using(
        self, *, is_lost_too: bool = False, is_uncertain_too: bool = False
    ) -> AsyncIterator[None]:
        """Use the account beside others; within, passing the gate again costs nothing.

        With *is_lost_too* one comes in although the account is lost: to see whether it still is,
        or to have another made.  With *is_uncertain_too* also where its key is not known.

        Raises:
            Unreachable: It is not known which key the account has.  Nothing was sent.
            Broken: The account is lost.  Nothing was sent.
        """
        if id(self) in _inside.get():
            yield
            return
        async with self._moved:
            await self._moved.wait_for(lambda: not self._is_held)
            if self.loss is not None and not is_lost_too:
                raise Broken(self.loss, left_nothing=True)
            if not self.is_certain and not is_uncertain_too:
                raise Unreachable(
                    "the change of our account's key has not ended, and the CA has not said yet "
                    "which key it knows",
                    left_nothing=True,
                )
            self._users += 1
        token = _inside.set(_inside.get() | {id(self)})
        try:
            yield
        finally:
            _inside.reset(token)
            async with self._moved:
                self._users -= 1
                self._moved.notify_all()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Have the account alone.

        Raises:
            Unreachable: What is under way does not end in time.  Nothing was done.
        """
        async with self._moved:
            await self._moved.wait_for(lambda: not self._is_held)
            self._is_held = True  # from now on nobody new comes in
        try:
            try:
                async with asyncio.timeout(self._hold_time.total_seconds()), self._moved:
                    await self._moved.wait_for(lambda: self._users == 0)
            except TimeoutError as error:
                seconds = self._hold_time.total_seconds()
                raise Unreachable(
                    f"{self._users} tasks still use the account after {seconds:g} s",
                    left_nothing=True,
                ) from error
            yield
        finally:
            self.changes += 1
            async with self._moved:
                self._is_held = False
                self._moved.notify_all()
