"""One request and its answer in HTTP/1.1 over a connection that is there (RFC 9112).

By hand because the library's client brings the whole of e-mail into memory.  It speaks to one
server that it chose itself: one request after the other, no redirects, no content encodings; what
it does not expect it refuses.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Final

__all__ = ["Exchange", "HttpFault"]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Largest head of an answer, in bytes; the broker's measure under 1 KiB, proxies add theirs."""

MAX_CHUNK_LINE_BYTES: Final = 256
"""Longest line that tells the size of a chunk, in bytes, with whatever extension is passed over."""

READ_BYTES: Final = 16 * 1024
"""How much is read at once, in bytes: one record of TLS."""

MAX_INTERIM: Final = 8
"""Most interim answers (1xx) before the final one."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")


class HttpFault(Exception):
    """What came is no answer in HTTP/1.1, or broke off."""


class Exchange:
    """A connection on which requests are sent, each when the answer before it was read whole."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = b""
        self._left: int | None = 0
        """Bytes of the body, or of this chunk, that are still to come; None: until it is closed."""
        self._is_chunked = False
        self._is_behind_chunk = False
        self._may_last = False
        self.has_answered = False
        """Whether anything came since the last request was sent."""

    @property
    def is_lasting(self) -> bool:
        """Whether the answer was read whole and another request may follow (RFC 9112 §9.3)."""
        is_whole = self._left == 0 and not self._is_chunked and not self._buffer
        return self._may_last and is_whole

    def send(self, method: str, target: str, fields: Mapping[str, str], body: bytes = b"") -> None:
        """Send the request; raises HttpFault for what no field can hold, and OSError."""
        lines = [f"{method} {target} HTTP/1.1"]
        if body:
            fields = {**fields, "Content-Length": str(len(body))}
        for name, value in fields.items():
            if "\r" in value or "\n" in value:
                raise HttpFault(f"field {name} cannot have a line break")
            lines.append(f"{name}: {value}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.has_answered = self._may_last = False
        self.socket.sendall(head + body)

    def receive_head(self, *, is_tunnel: bool = False) -> tuple[int, dict[str, str]]:
        """Return status and fields, in lower case, of the final answer.

        Raises:
            HttpFault: It is none.
            OSError: Nothing came in time, or the connection broke.
        """
        for _ in range(MAX_INTERIM):
            head = self._until(b"\r\n\r\n", MAX_HEAD_BYTES)
            status, fields = _parse_head(head)
            if status >= 200:
                break
        else:
            raise HttpFault("interim answers without end")
        if is_tunnel:
            if status < 300 and self._buffer:
                raise HttpFault("the proxy sent more than its answer")
            return status, fields
        self._begin_body(status, fields)
        is_closed = "close" in fields.get("connection", "").lower()
        self._may_last = head.startswith(b"HTTP/1.1") and not is_closed
        return status, fields

    def receive(self) -> bytes:
        """Return the next part of the body; nothing: it has ended."""
        if self._is_chunked and self._left == 0 and not self._next_chunk():
            return b""
        if self._left == 0:
            return b""
        octets = self._buffer or self.socket.recv(READ_BYTES)
        self._buffer = b""
        if self._left is None:
            return octets
        if not octets:
            raise HttpFault("the answer broke off")
        part, self._buffer = octets[: self._left], octets[self._left :]
        self._left -= len(part)
        return part

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    # ------------------------------------------------------------------------------ inside

    def _begin_body(self, status: int, fields: Mapping[str, str]) -> None:
        """Find out how long the body is (RFC 9112 §6.3)."""
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if fields.get("content-encoding", "identity").lower() != "identity":
            raise HttpFault("an answer with a content encoding that was not asked for")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise HttpFault(f"transfer coding {coding[:40]!r} beside length {length!r}")
            self._is_chunked, self._left = True, 0
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 12):
                raise HttpFault(f"content length {length[:20]!r} is no number")
            self._left = int(length)
        else:
            self._left = 0 if status in (204, 304) else None

    def _next_chunk(self) -> bool:
        """Begin the next chunk and tell whether there is one (RFC 9112 §7.1)."""
        if self._is_behind_chunk and self._until(b"\r\n", 2) != b"":
            raise HttpFault("a chunk does not end where it should")
        self._is_behind_chunk = False
        found = _SIZE.fullmatch(self._until(b"\r\n", MAX_CHUNK_LINE_BYTES))
        if found is None:
            raise HttpFault("the size of a chunk cannot be read")
        self._left = int(found[1], 16)
        self._is_behind_chunk = self._left > 0
        if self._left == 0:
            size = 0
            while line := self._until(b"\r\n", MAX_HEAD_BYTES):
                size += len(line)
                if size > MAX_HEAD_BYTES:
                    raise HttpFault("trailers without end")
            self._is_chunked = False
        return self._left > 0

    def _until(self, end: bytes, limit: int) -> bytes:
        """Return what comes before *end*, of at most *limit* bytes."""
        buffer = self._buffer
        while (found := buffer.find(end)) < 0:
            if len(buffer) > limit:
                raise HttpFault("a head or a line past the limit")
            octets = self.socket.recv(READ_BYTES)
            if not octets:
                raise HttpFault("the answer broke off" if buffer else "no answer came")
            self.has_answered = True
            buffer += octets
        if found > limit:
            raise HttpFault("a head or a line past the limit")
        self._buffer = buffer[found + len(end) :]
        return buffer[:found]


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise HttpFault("what answers does not speak HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HttpFault("a field of the answer cannot be read")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        if name == "content-length" and fields.get(name, value) != value:
            raise HttpFault("two lengths that differ")
        fields[name] = (
            f"{fields[name]}, {value}" if name in fields and name[:8] != "content-" else value
        )
    return int(status[1]), fields
