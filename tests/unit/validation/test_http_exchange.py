"""How an HTTP answer is read: enough of it, no more, whatever the peer sends."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.validation.failures import Unobserved
from broker.validation.http_exchange import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_INTERIM_ANSWERS,
    MAX_LINE_BYTES,
    Reply,
    read_reply,
)

KEY = b"token.thumbprint"
OK = b"HTTP/1.1 200 OK\r\n"


async def read(data: bytes, *, is_closed: bool = True) -> Reply:
    """Read an answer that consists of *data*."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    reader.feed_data(data)
    if is_closed:
        reader.feed_eof()
    return await read_reply(reader)


def chunked(*chunks: bytes) -> bytes:
    """Encode a body in these chunks."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(OK + b"Content-Length: 16\r\n\r\n" + KEY, id="length"),
        pytest.param(OK + b"content-LENGTH:16 \r\n\r\n" + KEY + b"more", id="length-with-rest"),
        pytest.param(OK + b"\r\n" + KEY, id="until-close"),
        pytest.param(b"HTTP/1.0 200\r\n\r\n" + KEY, id="http-1.0-without-reason"),
        pytest.param(b"HTTP/1.0 200 OK\nContent-Length: 16\n\n" + KEY, id="lone-line-feeds"),
        pytest.param(chunked(KEY), id="one-chunk"),
        pytest.param(chunked(KEY[:5], KEY[5:]), id="two-chunks"),
        pytest.param(
            OK + b"Transfer-Encoding: Chunked\r\n\r\n10;a=b\r\n" + KEY + b"\r\n0\r\nX: y\r\n\r\n",
            id="chunk-extension-and-trailer",
        ),
        pytest.param(OK + b"Content-Encoding: identity\r\n\r\n" + KEY, id="identity"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * MAX_INTERIM_ANSWERS
            + OK
            + b"\r\n"
            + KEY,
            id="interim-answers",
        ),
        pytest.param(
            OK + b"Content-Length: 16\r\nContent-Length: 16\r\n\r\n" + KEY, id="length-said-twice"
        ),
    ],
)
async def test_ordinary_answer_is_read(data: bytes) -> None:
    """Every shape that real servers answer in gives the body."""
    assert await read(data) == Reply(200, None, KEY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "closed before", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP", id="another-protocol"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", "not HTTP", id="http-2"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", "not HTTP", id="short-status"),
        pytest.param(b"HTTP/1.1 200 OK", "closed before", id="cut-status-line"),
        pytest.param(OK + b"Content-Length: 16\r\n", "closed before", id="cut-headers"),
        pytest.param(OK + b"no colon\r\n\r\n", "no name", id="header-without-colon"),
        pytest.param(OK + b"A: b\r\n c\r\n\r\n", "no name", id="folded-header"),
        pytest.param(OK + b"A : b\r\n\r\n", "no name", id="space-before-colon"),
        pytest.param(OK + b"Content-Length: 16\r\n\r\nshort", "5 octets of 16", id="short-body"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", "not a number", id="negative-length"),
        pytest.param(OK + b"Content-Length: 0x10\r\n\r\n", "not a number", id="hex-length"),
        pytest.param(
            OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "number", id="huge-length"
        ),
        pytest.param(
            OK + b"Content-Length: 1\r\nContent-Length: 16\r\n\r\n", "several", id="two-lengths"
        ),
        pytest.param(
            OK + b"Content-Length: 16\r\nTransfer-Encoding: chunked\r\n\r\n",
            "transfer encoding",
            id="length-and-chunked",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding", id="gzip-chunked"
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + KEY + b"\r\n0\r\n\r\n",
            "transfer encoding",
            id="chunked-in-1.0",
        ),
        pytest.param(OK + b"Content-Encoding: gzip\r\n\r\n" + KEY, "content encoding", id="gzip"),
        pytest.param(OK + b"Content-Encoding: \xff\r\n\r\n", "content encoding", id="odd-encoding"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "no size", id="chunk-without-size"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", "no size", id="negative-chunk"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n", "no size", id="huge-chunk"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ntoken\r\n", "longer", id="lying-chunk"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\ntok", "3 octets of 16", id="cut-chunk"
        ),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", "switched", id="upgrade"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM_ANSWERS + 1) + OK + b"\r\n" + KEY,
            "interim answers",
            id="one-interim-answer-too-many",
        ),
        pytest.param(OK + b"A: " + b"x" * MAX_LINE_BYTES + b"\r\n\r\n", "a line", id="long-line"),
        pytest.param(
            OK + b"".join(b"X-%d: y\r\n" % n for n in range(MAX_HEAD_BYTES // 8)) + b"\r\n",
            "headers and framing",
            id="many-headers",
        ),
    ],
)
async def test_odd_answer_is_a_protocol_failure(data: bytes, reason: str) -> None:
    """What cannot be read in one way only is not read at all."""
    with pytest.raises(Unobserved, match=reason) as caught:
        await read(data)
    assert caught.value.failure.kind == "protocol"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(OK + b"\r\n" + b"x" * 100_000, id="until-close"),
        pytest.param(OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 5000, id="length"),
        pytest.param(OK + b"Content-Length: 999999999999999999\r\n\r\n" + b"x" * 5000, id="huge"),
        pytest.param(chunked(b"x" * 700, b"x" * 700, b"x" * 700), id="chunked"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 5000, id="huge-chunk"
        ),
    ],
)
async def test_long_body_is_left_unread_behind_the_limit(data: bytes) -> None:
    """Reading stops at the limit and does not wait for an end that may never come."""
    reply = await read(data, is_closed=False)
    assert reply.body == b"x" * MAX_BODY_BYTES


async def test_chunk_extensions_use_up_the_budget() -> None:
    """Framing counts: a body of single octets in long frames is given up."""
    frame = b"1;" + b"e" * 4000 + b"\r\nx\r\n"
    with pytest.raises(Unobserved, match="headers and framing"):
        await read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + frame * 20)


@pytest.mark.parametrize("status", [204, 301, 404, 500])
async def test_body_of_another_status_is_not_read(status: int) -> None:
    """Only a 200 has a body that matters; a redirect tells its Location."""
    head = b"HTTP/1.1 %d X\r\nLocation: http://b.example/\r\nContent-Length: 9\r\n\r\n" % status
    assert await read(head, is_closed=False) == Reply(status, "http://b.example/", b"")


@given(st.binary(max_size=400))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    """No octets behind a plausible beginning raise anything else."""

    async def attempt() -> None:
        for head in (b"", b"HTTP/1.1 ", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
            try:
                reply = await read(head + noise)
            except Unobserved:
                continue
            assert len(reply.body) <= MAX_BODY_BYTES

    asyncio.run(attempt())
