"""The few lines that SMTP, IMAP and LDAP speak before TLS begins.

Each is written for one purpose, reads no more than it is owed, and takes nothing for an answer that
arrived in the clear behind the go-ahead: whoever sits in between could have put it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agents.config import StartTls

__all__ = ["Line", "StartTlsFault", "start_tls"]

MAX_LINE_BYTES: Final = 2048
"""Longest line of a server that is read, in bytes: RFC 5321 §4.5.3.1.5 has 512 for a reply, and
IMAP servers list capabilities in up to a thousand."""

MAX_LINES: Final = 64
"""Most lines of one answer: the servers in use announce under 20 extensions."""

MAX_LDAP_BYTES: Final = 4096
"""Longest answer of an LDAP server that is read, in bytes: one extended response has under 100, or
a sentence more where it refuses."""

LDAP_START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
"""Name of the operation (RFC 4511 §4.14)."""


class StartTlsFault(Exception):
    """The server speaks another protocol, or will not begin TLS."""


class Line(Protocol):
    """A connection that ends by itself when it takes too long or too much."""

    def send(self, octets: bytes) -> None:
        """Send all of *octets*."""

    def receive(self, most_bytes: int) -> bytes:
        """Return what is there, at least one byte and at most *most_bytes*; empty at the end."""


def start_tls(kind: StartTls, line: Line) -> None:
    """Speak *kind* on *line* until TLS may begin.

    Raises:
        StartTlsFault: It may not; the text says what the server answered instead.
    """
    CONVERSATIONS[kind](_Reader(line))


class _Reader:
    """Reads lines, or a number of bytes, and knows whether something is left over.

    Without a line it reads what it was given, and no more.
    """

    def __init__(self, line: Line | None, read: bytes = b"") -> None:
        self._line = line
        self._read = bytearray(read)

    def send(self, octets: bytes) -> None:
        """Send *octets*."""
        assert self._line is not None
        self._line.send(octets)

    def text(self) -> str:
        """Return one line without its end."""
        while b"\n" not in self._read:
            if len(self._read) > MAX_LINE_BYTES:
                raise StartTlsFault(f"a line is longer than {MAX_LINE_BYTES} bytes")
            self._more()
        found, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        return found.removesuffix(b"\r").decode("ascii", "replace")

    def exactly(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        while len(self._read) < count:
            self._more()
        found = bytes(self._read[:count])
        del self._read[:count]
        return found

    def finish(self) -> None:
        """See that nothing came in the clear behind the go-ahead."""
        if self._read:
            raise StartTlsFault("something was sent in the clear behind the go-ahead for TLS")

    def _more(self) -> None:
        chunk = b"" if self._line is None else self._line.receive(MAX_LINE_BYTES)
        if not chunk:
            raise StartTlsFault("the answer ended before it was whole")
        self._read += chunk


def _smtp(reader: _Reader) -> None:
    """Speak RFC 3207; the greeting names no host, which only delivery would need."""
    _smtp_reply(reader, "220")
    reader.send(b"EHLO [127.0.0.1]\r\n")
    offered = {line[4:].strip().upper() for line in _smtp_reply(reader, "250")}
    if "STARTTLS" not in offered:
        raise StartTlsFault("the SMTP server does not offer STARTTLS")
    reader.send(b"STARTTLS\r\n")
    _smtp_reply(reader, "220")
    reader.finish()


def _smtp_reply(reader: _Reader, expected: str) -> list[str]:
    """Return the lines of one reply, which has to have code *expected* (RFC 5321 §4.2.1)."""
    lines: list[str] = []
    for _ in range(MAX_LINES):
        line = reader.text()
        if line[:3] != expected or line[3:4] not in ("", " ", "-"):
            raise StartTlsFault(f"the SMTP server answered {_shown(line)} instead of {expected}")
        lines.append(line)
        if line[3:4] != "-":
            return lines
    raise StartTlsFault(f"an SMTP reply has more than {MAX_LINES} lines")


def _imap(reader: _Reader) -> None:
    """Speak RFC 3501 §6.2.1."""
    greeting = reader.text()
    if not greeting.upper().startswith("* OK"):
        raise StartTlsFault(f"the IMAP server greeted with {_shown(greeting)}")
    reader.send(b"a1 STARTTLS\r\n")
    for _ in range(MAX_LINES):
        line = reader.text()
        if line.startswith("* "):
            continue
        if not line.upper().startswith("A1 OK"):
            raise StartTlsFault(f"the IMAP server answered {_shown(line)} to STARTTLS")
        reader.finish()
        return
    raise StartTlsFault(f"the IMAP server sent more than {MAX_LINES} lines before its answer")


def _ldap(reader: _Reader) -> None:
    """Speak RFC 4511 §4.14: one extended request, and the response to it."""
    name = b"\x80" + bytes([len(LDAP_START_TLS)]) + LDAP_START_TLS
    request = b"\x02\x01\x01" + b"\x77" + bytes([len(name)]) + name
    reader.send(b"\x30" + bytes([len(request)]) + request)
    message = _Reader(None, _element(reader, 0x30, "message"))
    if _element(message, 0x02, "number of a message") != b"\x01":
        raise StartTlsFault("the LDAP server answered to another request")
    response = _Reader(None, _element(message, 0x78, "extended response"))
    code = _element(response, 0x0A, "result")
    if code != b"\x00":
        said = int.from_bytes(code[:4], "big")
        raise StartTlsFault(f"the LDAP server refused to begin TLS with result {said}")
    reader.finish()


def _element(reader: _Reader, tag: int, what: str) -> bytes:
    """Read one BER element with *tag* and return what it holds."""
    head = reader.exactly(2)
    if head[0] != tag:
        raise StartTlsFault(f"the LDAP server sent no {what}")
    length = head[1]
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4:
            raise StartTlsFault("the LDAP server sent a length of an unknown form")
        length = int.from_bytes(reader.exactly(octets), "big")
    if length > MAX_LDAP_BYTES:
        raise StartTlsFault(f"an LDAP answer is longer than {MAX_LDAP_BYTES} bytes")
    return reader.exactly(length)


def _shown(line: str) -> str:
    cleaned = "".join(one if one.isprintable() else "?" for one in line[:80])
    return repr(cleaned)


CONVERSATIONS: Final[Mapping[StartTls, Callable[[_Reader], None]]] = {
    StartTls.SMTP: _smtp,
    StartTls.IMAP: _imap,
    StartTls.LDAP: _ldap,
}
"""What is spoken for each protocol."""
