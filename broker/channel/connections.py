"""Who is connected now: one connection for each node, woken when its outbox has something.

All of it is this process's and on its loop.  The newest connection of a node wins, since an older
one is most often a socket that nobody is behind any more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Final

__all__ = ["BEAT_SECONDS", "Connection", "End", "LiveConnections"]

BEAT_SECONDS: Final = 20
"""How often a connection that is otherwise silent is shown to be alive, in seconds: proxies cut
what is silent for 30 to 60."""

FAREWELL_SECONDS: Final = 3
"""How long agents are given to hear that they shall come back later, in seconds; whoever does not
read holds nothing up."""


class End(StrEnum):
    """Why a connection is over."""

    DROPPED = "dropped"
    """The node may not be here any more."""
    REPLACED = "replaced"
    """The node has a newer one."""
    AWAY = "away"
    """The broker stops; agents are asked to come back."""


class Connection(ABC):
    """One connection of a node."""

    __slots__ = ("is_drained", "node_id")

    node_id: str
    is_drained: bool
    """Whether the node is told nothing new."""

    @abstractmethod
    def wake(self) -> None:
        """Look at the outbox: there may be something."""

    @abstractmethod
    def beat(self) -> None:
        """Show that the connection is alive, and see whether its other end is."""

    @abstractmethod
    def acknowledged(self, seq: int) -> None:
        """Make room for what the node has taken in."""

    @abstractmethod
    def finish(self, end: End) -> None:
        """Come to an end."""


class LiveConnections:
    """The port Connections, and the pulse of all connections."""

    def __init__(self, *, limit: int) -> None:
        """Hold at most *limit* connections at once."""
        self._limit = limit
        self._live: dict[str, Connection] = {}
        self._pulse: asyncio.Task[None] | None = None
        self._gone: set[str] = set()
        self._is_empty = asyncio.Event()
        self.is_closing = False
        """Whether the broker stops, so that nobody new is taken."""

    def __len__(self) -> int:
        return len(self._live)

    def has_room(self, node_id: str) -> bool:
        """Return whether this node may connect; one that is connected may always do so anew."""
        if self.is_closing or node_id in self._gone:
            return False
        return node_id in self._live or len(self._live) < self._limit

    def enter(self, connection: Connection) -> None:
        """Take a connection in; an older one of the node ends."""
        older = self._live.get(connection.node_id)
        self._live[connection.node_id] = connection
        self._is_empty.clear()
        if older is not None:
            older.finish(End.REPLACED)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        if self._live.get(connection.node_id) is connection:
            del self._live[connection.node_id]
        if not self._live:
            self._is_empty.set()

    def acknowledged(self, node_id: str, seq: int) -> None:
        """Make room in the node's window."""
        found = self._live.get(node_id)
        if found is not None:
            found.acknowledged(seq)

    def set_drained(self, node_id: str, *, is_drained: bool) -> None:
        """Have the node told nothing new, or everything again."""
        found = self._live.get(node_id)
        if found is not None:
            found.is_drained = is_drained
            found.wake()

    # ------------------------------------------------------------------------------- as a port

    def wake(self, node_id: str) -> None:
        """Tell the node's connection, if there is one, that its outbox has something."""
        found = self._live.get(node_id)
        if found is not None:
            found.wake()

    def is_connected(self, node_id: str) -> bool:
        """Return whether the node has a connection now."""
        return node_id in self._live

    def drop(self, node_id: str) -> None:
        """End the node's connection now, whatever it waits for, and let it have none again.

        One that has shown its identity just before, and is not here yet, finds the door closed.
        """
        self._gone.add(node_id)
        found = self._live.pop(node_id, None)
        if found is not None:
            found.finish(End.DROPPED)

    # ------------------------------------------------------------------------------- the pulse

    def start(self) -> None:
        """Begin to beat."""
        self._pulse = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> None:
        """Tell everybody to come back later, and beat no more."""
        self.is_closing = True
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        for connection in tuple(self._live.values()):
            connection.finish(End.AWAY)
        if not self._live:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._is_empty.wait()
        except TimeoutError:
            for connection in tuple(self._live.values()):
                connection.finish(End.DROPPED)

    async def _beat(self) -> None:
        """Stir each connection once in a period, a share of them each second.

        One timer for all: one of its own for each would cost more memory than it has otherwise.
        """
        turn = 0
        while True:
            await asyncio.sleep(1)
            turn = (turn + 1) % BEAT_SECONDS
            for place, connection in enumerate(tuple(self._live.values())):
                if place % BEAT_SECONDS == turn:
                    connection.beat()
