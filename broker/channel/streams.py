"""What goes to agents: events while they are connected, or the answer to a long poll."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, cast

from aiohttp import web

from agents import wire
from broker.channel.connections import Connection, End
from broker.channel.door import busy
from broker.channel.feeds import WINDOW, Feed
from broker.channel.ports import ChannelRooms
from broker.issuance.node_ports import NodeRecord, NodeStatus, QueuedMessage

__all__ = ["Streams"]

LONGEST_POLL_SECONDS: Final = 60
"""Longest time that a poll is held, in seconds; most proxies cut one that is older."""

SEEN_EVERY: Final = timedelta(minutes=1)
"""How often it is kept that a node was seen: one that polls would cost a write each time."""

DEAD_AFTER_SECONDS: Final = 60
"""How long what was sent may go unanswered by the node's kernel, in seconds: a host that vanished
without a word is noticed within it."""


class Streams:
    """Sends what waits in outboxes."""

    def __init__(self, rooms: ChannelRooms) -> None:
        self._rooms = rooms

    # ------------------------------------------------------------------------------- streams

    async def stream(
        self, request: web.Request, node: NodeRecord, after: int
    ) -> web.StreamResponse:
        """Hand the connection over to a feed of what waits past *after*, and of what comes.

        Raises:
            Problem: There is no room for it now.
        """
        rooms = self._rooms
        self._check_room(node)
        await self._begin(node, after)
        # After the store was asked: neither may have changed since.
        self._check_room(node)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the agent is gone")
        feed = Feed(
            node,
            after,
            transport,
            rooms.connections,
            rooms.store.queued_messages,
        )
        feed.when_sent = rooms.observer.sent
        _take_over(request, feed)
        _notice_death(transport)
        rooms.connections.enter(feed)
        feed.begin()
        # The server's own half of the connection is over; its task ends here.
        await asyncio.sleep(0)
        raise ConnectionResetError("the connection was handed over")

    def _check_room(self, node: NodeRecord) -> None:
        if not self._rooms.connections.has_room(node.node_id):
            raise busy("as many agents are connected as may be, come again later")

    async def _begin(self, node: NodeRecord, after: int) -> None:
        rooms, now = self._rooms, self._rooms.clock.now()
        if rooms.is_held():
            return
        if after > node.acknowledged:
            await rooms.store.acknowledge(node.node_id, after)
        if node.seen_at is None or now - node.seen_at >= SEEN_EVERY:
            await rooms.store.note_seen(node.node_id, now, agent_version=None, wire_version=None)

    # --------------------------------------------------------------------------------- polls

    async def poll(
        self, request: web.Request, node: NodeRecord, *, after: int, wait: float
    ) -> wire.Reply:
        """Return what waits past *after*, or what comes within *wait* seconds."""
        rooms = self._rooms
        self._check_room(node)
        await self._begin(node, after)
        self._check_room(node)
        poll = _Poll(node, request.transport)
        rooms.connections.enter(poll)
        try:
            # What waits already is answered however short the wait is.
            found = await self._waiting(poll, after)
            if not found:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, LONGEST_POLL_SECONDS)):
                        found = await self._next(poll, after)
        finally:
            rooms.connections.leave(poll)
        for message in found:
            rooms.observer.sent(message.kind)
        return wire.Reply(_version(node), messages=tuple(_message(one) for one in found))

    async def _next(self, poll: _Poll, after: int) -> Sequence[QueuedMessage]:
        while not poll.is_over:
            await poll.stirred.wait()
            poll.stirred.clear()
            found = await self._waiting(poll, after)
            if found:
                return found
        return ()

    async def _waiting(self, poll: _Poll, after: int) -> Sequence[QueuedMessage]:
        if poll.is_drained:
            return ()
        return await self._rooms.store.queued_messages(poll.node_id, after, WINDOW)


class _Poll(Connection):
    """A request that is held until there is something to answer."""

    __slots__ = ("_transport", "is_over", "stirred")

    def __init__(self, node: NodeRecord, transport: asyncio.BaseTransport | None) -> None:
        self.node_id = node.node_id
        self.is_drained = node.status is not NodeStatus.ACTIVE
        self.is_over = False
        self.stirred = asyncio.Event()
        self._transport = transport

    def wake(self) -> None:
        """Look at the outbox."""
        self.stirred.set()

    def beat(self) -> None:
        """Do nothing: a poll is answered before anybody takes it for dead."""

    def acknowledged(self, seq: int) -> None:
        """Do nothing: a poll has sent nothing yet."""

    def finish(self, end: End) -> None:
        """Answer with nothing, or with the end of the connection."""
        self.is_over = True
        self.stirred.set()
        if end is End.DROPPED and self._transport is not None:
            cast(asyncio.Transport, self._transport).abort()


def _version(node: NodeRecord) -> wire.Version:
    """Return what is spoken with a node: the lower of both, as far as it has told us."""
    if node.wire_version is None:
        return wire.VERSION
    return wire.negotiate(wire.Version.parse(node.wire_version))


def _message(queued: QueuedMessage) -> wire.Message:
    return wire.Message(queued.message_id, queued.kind, queued.body, queued.seq)


def _take_over(request: web.Request, feed: Feed) -> None:
    """Have *feed* be the connection's protocol, and the server forget about it."""
    handler: Any = request.protocol
    transport: Any = request.transport
    # Whoever counts connections is told when this one is gone, not now.
    feed.when_lost = getattr(handler, "when_lost", None)
    if feed.when_lost is not None:
        handler.when_lost = None
    transport.set_protocol(feed)
    # The loop keeps what it has read of the client's certificate; nobody asks for it any more.
    shown = transport.get_extra_info("peercert")
    if isinstance(shown, dict):
        shown.clear()
    # Without a transport it has nothing to close.
    handler.transport = None
    handler.connection_lost(None)


def _notice_death(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end a connection whose other end does not answer any more."""
    bound: Any = transport.get_extra_info("socket")
    if bound is None:
        return
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_SECONDS * 1000)
