"""A stream of events to one agent, taken over from the HTTP server once its head is answered.

An idle stream is this object, its transport and TLS, and nothing else: the server's parser,
request and task are gone, which halves what ten thousand of them take.  A task runs only while
there is something to send.  It belongs to this connection alone and waits for its socket alone, so
a node that reads slowly keeps nobody waiting; one that does not read at all is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from agents import wire
from broker.channel.connections import Connection, End, LiveConnections
from broker.channel.door import RETRY_SECONDS
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_ports import NodeRecord, NodeStatus, QueuedMessage

__all__ = ["HEAD", "WINDOW", "Feed", "ReadOutbox"]

WINDOW: Final = 32
"""Most messages that are under way to a node, past the last that it has acknowledged."""

AWAY_SECONDS: Final = 30
"""When agents come back to a broker that stops, in seconds: drawn from this, so that thousands do
not come at once."""

BEAT: Final = b"8\r\n: beat\n\n\r\n"
"""A comment of server-sent events, as one chunk: agents read past it."""

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream\r\n"
    b"Cache-Control: no-store\r\n"
    # nginx and others would hold events back until a buffer is full.
    b"X-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)
"""How a stream is answered."""

_log = structlog.get_logger("penstock.channel")

ReadOutbox = Callable[[str, int, int], Awaitable[Sequence[QueuedMessage]]]
"""Returns what waits for a node past a sequence number, at most so many."""


class Feed(asyncio.Protocol, Connection):
    """Sends what waits for one node."""

    __slots__ = (
        "_flying",
        "_is_paused",
        "_is_woken",
        "_live",
        "_resumed",
        "_sent",
        "_silent_beats",
        "_task",
        "_transport",
        "outbox",
        "when_lost",
        "when_sent",
    )

    def __init__(
        self,
        node: NodeRecord,
        after: int,
        transport: asyncio.Transport,
        live: LiveConnections,
        outbox: ReadOutbox,
    ) -> None:
        """Send to *node* what waits past *after*."""
        self.node_id = node.node_id
        self.is_drained = node.status is not NodeStatus.ACTIVE
        self.outbox = outbox
        self.when_sent: Callable[[str], None] | None = None
        """Told the kind of each message that was sent."""
        self.when_lost: Callable[[], None] | None = None
        """Told once the connection is gone."""
        self._sent = after
        self._transport = transport
        self._live = live
        self._flying: deque[int] | None = None
        self._is_paused = False
        self._is_woken = False
        self._silent_beats = 0
        self._resumed: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Answer the head and what waits."""
        self._transport.write(HEAD + BEAT)
        self.wake()

    # --------------------------------------------------------------------------- as a connection

    def wake(self) -> None:
        """Look at the outbox: there may be something."""
        self._is_woken = True
        if self._task is None and self._room() > 0:
            self._task = asyncio.get_running_loop().create_task(self._send_waiting())

    def beat(self) -> None:
        """Show that the connection is alive; one that has not been read for a whole period of it
        is dropped."""
        if self._is_paused:
            self._silent_beats += 1
            if self._silent_beats > 1:
                _log.info("agent does not read and is dropped", node_id=self.node_id)
                self._transport.abort()
            return
        self._silent_beats = 0
        self._transport.write(BEAT)

    def acknowledged(self, seq: int) -> None:
        """Make room for what the node has taken in."""
        flying = self._flying
        if not flying:
            return
        while flying and flying[0] <= seq:
            flying.popleft()
        if not flying:
            self._flying = None
        self.wake()

    def finish(self, end: End) -> None:
        """Come to an end: at once, or with a word of when to come back."""
        if end is End.AWAY and not self._is_paused:
            wait = (RETRY_SECONDS + secrets.randbelow(AWAY_SECONDS)) * 1000
            text = f"retry: {wait}\nevent: goaway\ndata: {{}}\n\n".encode()
            self._transport.write(_chunk(text) + b"0\r\n\r\n")
            self._transport.close()
        elif end is End.REPLACED and not self._is_paused:
            self._transport.write(b"0\r\n\r\n")
            self._transport.close()
        else:
            self._transport.abort()

    # ----------------------------------------------------------------------------- as a protocol

    def data_received(self, data: bytes) -> None:
        """End: an agent that has asked for a stream says nothing more on it."""
        _log.info("agent speaks on its stream", node_id=self.node_id, size=len(data))
        self._transport.abort()

    def pause_writing(self) -> None:
        """Send nothing more for now: the agent reads slowly."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection."""
        self._live.leave(self)
        if self._task is not None:
            self._task.cancel()
        if self.when_lost is not None:
            self.when_lost()
            self.when_lost = None

    # ---------------------------------------------------------------------------------- sending

    def _room(self) -> int:
        return 0 if self.is_drained else WINDOW - len(self._flying or ())

    async def _send_waiting(self) -> None:
        try:
            while self._is_woken and self._room() > 0:
                self._is_woken = False
                room = self._room()
                waiting = await self.outbox(self.node_id, self._sent, room)
                for message in waiting:
                    await self._send(message)
                self._is_woken = self._is_woken or len(waiting) == room
        except (Unreachable, Broken) as error:
            _log.warning("stream ends, the outbox cannot be read", reason=error.reason)
            self._transport.abort()
        finally:
            self._task = None

    async def _send(self, message: QueuedMessage) -> None:
        if self._flying is None:
            self._flying = deque()
        self._flying.append(message.seq)
        self._sent = message.seq
        told = wire.Message(message.message_id, message.kind, message.body, message.seq)
        self._transport.write(_chunk(wire.format_event(told)))
        if self.when_sent is not None:
            self.when_sent(message.kind)
        if self._is_paused:
            self._resumed = asyncio.get_running_loop().create_future()
            try:
                await self._resumed
            finally:
                self._resumed = None


def _chunk(octets: bytes) -> bytes:
    """Return *octets* as one chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(octets), octets)
