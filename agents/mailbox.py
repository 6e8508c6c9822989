"""Messages on disk: what came and is not done, what goes out and has not been taken.

The broker is told that a message has arrived only when it is written here; the agent forgets its
own only when the broker has said that it keeps them.  So a crash at any moment repeats something,
and never loses it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.state import Folder
from agents.wire import MAX_BATCH_BYTES, Message, WireFault, parse_message

__all__ = ["SENT_AT_ONCE", "Inbox", "Outbox", "new_id"]

SENT_AT_ONCE: Final = 64
"""Most messages in one request: certificates' receipts measure 300 bytes, CSRs 2 KiB."""

SENT_BYTES: Final = MAX_BATCH_BYTES // 2
"""Where a request is cut, in bytes, so that what JSON adds stays within the limit."""


def new_id() -> str:
    """Return an id that nobody has had: 128 bits, 22 characters."""
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode("ascii")


class Inbox:
    """The broker's messages, from their arrival until they are done with."""

    def __init__(self, folder: Folder, own: Folder) -> None:
        self._folder = folder
        self._own = own
        self._lock = threading.Lock()
        kept = own.get("channel") or {}
        self._node_id = str(kept.get("node_id", ""))
        self._taken = int(kept.get("taken", 0))

    @property
    def taken(self) -> int:
        """Highest sequence number that has been written down."""
        return self._taken

    def begin(self, node_id: str) -> str | None:
        """Count from the beginning if this is another node than before, and return that one's id.

        What came for the other is forgotten: its deliveries are nobody's any more.
        """
        with self._lock:
            before = self._node_id
            if node_id == before:
                return None
            for name in self._folder.names():
                self._folder.remove(name)
            self._own.put("channel", {"node_id": node_id, "taken": 0})
            self._node_id, self._taken = node_id, 0
            return before or None

    def take(self, message: Message) -> Message | None:
        """Write *message* down and return it, or None if it has come before; raises StateFault."""
        with self._lock:
            if message.seq <= self._taken:
                return None
            if message.is_known:
                self._folder.put(_name(message), message.document())
            self._count(message.seq)
            return message

    def pass_over(self, seq: int) -> None:
        """Count a message that cannot be read as taken, or it would be sent for ever."""
        with self._lock:
            if seq > self._taken:
                self._count(seq)

    def done(self, message: Message) -> None:
        """Forget *message*."""
        self._folder.remove(_name(message))

    def waiting(self) -> list[Message]:
        """Return what was not done with when the agent ended, oldest first."""
        found = []
        for name, document in self._folder.all():
            try:
                found.append(parse_message(document))
            except WireFault:
                self._folder.remove(name)
        return found

    def _count(self, seq: int) -> None:
        self._own.put("channel", {"node_id": self._node_id, "taken": seq})
        self._taken = seq


class Outbox:
    """The agent's messages, until the broker keeps them."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        names = folder.names()
        self._waiting = dict.fromkeys(names)
        self._last = max((int(name.partition("-")[0]) for name in names), default=0)
        self.on_put: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _body: None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, kind: str, body: Mapping[str, Any], *, re: str | None = None) -> None:
        """Write a message down, to be sent as soon as may be; raises StateFault."""
        message = Message(new_id(), kind, body, re=re)
        with self._lock:
            self._last += 1
            name = f"{self._last:012d}-{message.id}"
            self._folder.put(name, message.document())
            self._waiting[name] = None
        self.on_put(kind, body)

    def next(self, most: int = SENT_AT_ONCE) -> list[tuple[str, Message]]:
        """Return what to send now with the name of each, oldest first."""
        with self._lock:
            names = list(self._waiting)[:most]
        found: list[tuple[str, Message]] = []
        size = 0
        for name in names:
            document = self._folder.get(name)
            try:
                message = parse_message(document)
            except WireFault:
                self.drop(name)
                continue
            size += len(str(message.body))
            if found and size > SENT_BYTES:
                break
            found.append((name, message))
        return found

    def drop(self, name: str) -> None:
        """Forget what the broker keeps, or has refused for good."""
        self._folder.remove(name)
        with self._lock:
            self._waiting.pop(name, None)

    def put_behind(self, name: str) -> None:
        """Send others first: the broker cannot take this one now."""
        with self._lock:
            if name in self._waiting:
                del self._waiting[name]
                self._waiting[name] = None


def _name(message: Message) -> str:
    """Return its file's name: numbers begin anew for another node, ids never do."""
    return f"{message.seq:012d}-{hashlib.sha256(message.id.encode()).hexdigest()[:16]}"
