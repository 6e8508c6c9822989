"""One request and its answer in HTTP/1.1."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agents.exchange import MAX_HEAD_BYTES, Exchange, HttpFault


class Line:
    """A connection that brings what it is given, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = b""

    def sendall(self, octets: bytes) -> None:
        """Take what is sent."""
        self.sent += octets

    def recv(self, most: int) -> bytes:
        """Bring the next piece."""
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        self.pieces[:0] = [piece[most:]] if len(piece) > most else []
        return piece[:most]


def over(*pieces: bytes) -> Exchange:
    """Return an exchange over such a line."""
    return Exchange(cast(Any, Line(*pieces)))


def whole(exchange: Exchange) -> bytes:
    """Return the body."""
    exchange.receive_head()
    return b"".join(iter(exchange.receive, b""))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello, more", b"hello"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"\r\nuntil it closes", b"until it closes"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: v\r\n\r\n",
            b"hello",
        ),
        (b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", b""),
    ],
    ids=["length", "empty", "close", "chunked", "no-chunk"],
)
def test_a_body_is_as_long_as_it_says(answer: bytes, body: bytes) -> None:
    """RFC 9112 §6.3, at once and octet by octet."""
    octets = b"HTTP/1.1 200 OK\r\n" + answer
    assert whole(over(octets)) == body
    assert whole(over(*(bytes([one]) for one in octets))) == body


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 10) + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    ],
    ids=[
        "nothing", "another-protocol", "folded", "no-colon", "two-lengths", "negative",
        "length-and-chunked", "other-coding", "encoded", "cut-off", "no-size", "wrong-size",
        "chunk-cut-off", "endless-head", "endless-interim",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(octets: bytes) -> None:
    """Whatever stands between agent and broker can send it."""
    with pytest.raises(HttpFault):
        whole(over(octets))


def test_an_interim_answer_is_passed_over() -> None:
    """Some proxies send 100 or 103 first."""
    exchange = over(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n")
    assert exchange.receive_head() == (204, {})
    assert exchange.receive() == b""


def test_a_tunnel_brings_nothing_but_its_answer() -> None:
    """What follows is TLS, and it is the broker who speaks second there."""
    assert over(b"HTTP/1.1 200 Connection established\r\n\r\n").receive_head(is_tunnel=True)
    with pytest.raises(HttpFault, match="more than"):
        over(b"HTTP/1.1 200 OK\r\n\r\nsurprise").receive_head(is_tunnel=True)


def test_a_request_is_sent_as_it_stands() -> None:
    """With its length, and fields in the order given."""
    line = Line()
    Exchange(cast(Any, line)).send("POST", "/a?b", {"Host": "h"}, b"xy")
    assert line.sent == b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy"


def test_a_field_cannot_smuggle_another() -> None:
    """A line break in a value is refused."""
    with pytest.raises(HttpFault, match="line break"):
        Exchange(cast(Any, Line())).send("GET", "/", {"Host": "h\r\nX: y"})


@pytest.mark.parametrize(
    ("answer", "is_lasting"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK", False),
    ],
    ids=["length", "chunked", "old-version", "close", "until-closed", "more-than-asked"],
)
def test_another_request_may_follow_a_whole_answer(answer: bytes, is_lasting: bool) -> None:
    """RFC 9112 §9.3; what brings more than it was asked for is out of step."""
    exchange = over(answer)
    exchange.send("GET", "/", {})
    told = [(exchange.has_answered, exchange.is_lasting)]
    whole(exchange)
    told.append((exchange.has_answered, exchange.is_lasting))
    assert told == [(False, False), (True, is_lasting)]
