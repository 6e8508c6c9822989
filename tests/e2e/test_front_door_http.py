"""HTTP itself over TLS: what does not parse, and what two readers could read apart."""

import contextlib
import json
import re
import socket
import ssl
from dataclasses import dataclass

import pytest

from tests.e2e.bad_requests import Holdings
from tests.e2e.front_door import FrontDoor
from tests.e2e.requester import JOSE, URN

pytestmark = pytest.mark.e2e

SMUGGLED = b"GET /acme/directory HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request that some reader might find behind another."""

READ_SECONDS = 9.0
"""Longest wait for the broker to answer and close: these are refused before any body is awaited,
which would take ten."""


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a request to newOrder with these header lines beside the usual ones."""
    first, kind = b"POST /acme/default/new-order HTTP/1.1", b"Content-Type: " + JOSE.encode()
    return b"\r\n".join([first, b"Host: a", kind, *lines, b"", b""]) + body


def get(*lines: bytes, first: bytes = b"GET /acme/directory HTTP/1.1") -> bytes:
    """Return a request for the directory with these header lines."""
    return b"\r\n".join([first, *lines, b"", b""])


HOST = b"Host: a"
CHUNKED = b"Transfer-Encoding: chunked"

NOT_HTTP: dict[str, bytes] = {
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + SMUGGLED),
    "length and chunks": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "length negative": post(b"Content-Length: -5", body=SMUGGLED),
    "length with a sign": post(b"Content-Length: +5", body=b"hello" + SMUGGLED),
    "length hexadecimal": post(b"Content-Length: 0x5", body=b"hello" + SMUGGLED),
    "length a list": post(b"Content-Length: 5, 5", body=b"hello" + SMUGGLED),
    "length of 40 digits": post(b"Content-Length: " + b"9" * 40),
    "chunked not last": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunked misspelled": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunked behind a space": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunk size no number": post(CHUNKED, body=b"zz\r\nhello\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size with a sign": post(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size past 64 bits": post(CHUNKED, body=b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
    "chunk longer than said": post(CHUNKED, body=b"3\r\nhello\r\n0\r\n\r\n" + SMUGGLED),
    "no host": get(),
    "two hosts": get(HOST, b"Host: b"),
    "space before the colon": get(b"Host : a"),
    "folded header": get(HOST, b"X: a", b" b"),
    "header without colon": get(HOST, b"hello"),
    "header without name": get(HOST, b": a"),
    "NUL in a header": get(HOST, b"X: a\x00b"),
    "bare carriage return": get(HOST, b"X: a\rY: b"),
    "bare line feeds": b"GET /acme/directory HTTP/1.1\nHost: a\n\n",
    "header of 20,000 octets": get(HOST, b"X: " + b"a" * 20_000),
    "name of 20,000 octets": get(HOST, b"a" * 20_000 + b": x"),
    "5,000 headers": get(HOST, *(b"X-%d: a" % number for number in range(5_000))),
    "path of 9,000 octets": get(HOST, first=b"GET /" + b"a" * 9_000 + b" HTTP/1.1"),
    "star for a path": get(HOST, first=b"GET * HTTP/1.1"),
    "no path": get(HOST, first=b"GET HTTP/1.1"),
    "version 9.9": get(HOST, first=b"GET /acme/directory HTTP/9.9"),
    "two spaces in the path": get(HOST, first=b"GET /acme/ directory HTTP/1.1"),
    "no method": get(HOST, first=b"/acme/directory HTTP/1.1"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS within TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "another protocol": b"SSH-2.0-hello\r\n\r\n",
    "octets": bytes(range(256)) * 8 + b"\r\n\r\n",
}
"""What is no HTTP/1.1, or two things at once (threats J12)."""


@dataclass(frozen=True, slots=True)
class Said:
    """All that came back on one connection, and whether the broker closed it."""

    octets: bytes
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of every answer in it."""
        return [int(found) for found in re.findall(rb"HTTP/[01]\.\d (\d{3}) ", self.octets)]


def say(door: FrontDoor, octets: bytes, *, seconds: float = READ_SECONDS) -> Said:
    """Send octets over TLS and return all that comes back until the broker closes."""
    context = ssl.create_default_context(cafile=str(door.penstock.ca_bundle))
    plain = socket.create_connection(("127.0.0.1", door.penstock.port))
    heard = b""
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as talk:
        talk.settimeout(seconds)
        with contextlib.suppress(ConnectionError):
            talk.sendall(octets)
        try:
            while piece := talk.recv(65536):
                heard += piece
        except TimeoutError:
            return Said(heard, is_closed=False)
        except (ConnectionError, ssl.SSLEOFError):
            return Said(heard, is_closed=True)
    return Said(heard, is_closed=True)


@pytest.mark.parametrize("octets", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_no_http_is_refused_once_and_cut_off(holdings: Holdings, octets: bytes) -> None:
    """At most one answer, of 400; nothing behind it is a request; others notice nothing."""
    said = say(holdings.door, octets)
    assert said.is_closed
    assert said.statuses in ([], [400]), said.octets
    assert b"newNonce" not in said.octets
    assert holdings.owner.post(holdings.urls["account"]).status == 200


@pytest.mark.parametrize("octets", NOT_HTTP.values(), ids=NOT_HTTP)
def test_refusal_of_what_is_no_http_leaves_by_the_one_door(
    holdings: Holdings, octets: bytes
) -> None:
    """A problem document, no name of our software, no error in the log: strangers can do this."""
    log = holdings.door.penstock.log_file
    size = log.stat().st_size
    said = say(holdings.door, octets)
    head, _, body = said.octets.partition(b"\r\n\r\n")
    if head:
        assert b"\nserver:" not in head.lower()
        assert b"application/problem+json" in head
        assert json.loads(body)["type"] == f"{URN}malformed"
    with log.open("rb") as file:
        file.seek(size)
        lines = [json.loads(line) for line in file.read().decode().splitlines()]
    assert [line for line in lines if line["level"] in {"warning", "error"}] == []


def test_the_table_is_long_enough() -> None:
    """At least 35 things that are no HTTP are tried."""
    assert len(NOT_HTTP) >= 35


def test_requests_in_one_piece_are_answered_in_turn(front_door: FrontDoor) -> None:
    """The twin: two requests at once are good HTTP, and both are answered."""
    said = say(front_door, SMUGGLED + get(HOST, b"Connection: close"))
    assert said.is_closed
    assert said.statuses == [200, 200]


def test_unknown_expectation_is_a_problem_document(front_door: FrontDoor) -> None:
    """Whatever is refused leaves by the one door, 417 too."""
    said = say(front_door, post(b"Content-Length: 0", b"Expect: tea", b"Connection: close"))
    assert said.statuses == [417]
    assert b"application/problem+json" in said.octets


def test_body_is_asked_for_where_the_client_waits(holdings: Holdings) -> None:
    """``Expect: 100-continue`` is how curl sends anything large (RFC 9110 §10.1.1)."""
    draft = holdings.draft("account")
    body = draft.encoded()
    said = say(
        holdings.door,
        b"\r\n".join(
            [
                *(f"POST {draft.target} HTTP/1.1".encode(), HOST),
                *(b"Content-Type: " + JOSE.encode(), b"Content-Length: %d" % len(body)),
                *(b"Expect: 100-continue", b"Connection: close", b"", body),
            ]
        ),
    )
    assert said.statuses == [100, 200]


@pytest.mark.parametrize(
    "path",
    ["/acme/%zz/directory", "/acme/%ff%fe/directory", "/acme/default/order/%00",
     "/acme/default%0d%0aSet-Cookie:%20a=b/directory", "/acme/default/order/%2e%2e%2fdirectory",
     "/acme/default/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/acme/default/order/a;b",
     "//evil.example/acme/directory", "/acme/DEFAULT/directory", "/acme/default/directory%00"],
)  # fmt: skip
def test_odd_path_leads_nowhere(front_door: FrontDoor, path: str) -> None:
    """404 with a problem document; nothing of the path is repeated in a header."""
    said = say(front_door, get(HOST, b"Connection: close", first=f"GET {path} HTTP/1.1".encode()))
    assert said.statuses in ([404], [405])
    assert b"Set-Cookie" not in said.octets
    assert json.loads(said.octets.partition(b"\r\n\r\n")[2])["type"] == f"{URN}malformed"


def test_plain_http_at_the_tls_port_gets_nothing(front_door: FrontDoor) -> None:
    """There is no way in but TLS, and no answer that could be taken for one."""
    with socket.create_connection(("127.0.0.1", front_door.penstock.port)) as talk:
        talk.settimeout(READ_SECONDS)
        talk.sendall(SMUGGLED)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP/" not in talk.recv(4096)
    assert front_door.wire.send("GET", "/acme/directory").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(front_door: FrontDoor, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken, nothing older (RFC 8996)."""
    context = ssl.create_default_context(cafile=str(front_door.penstock.ca_bundle))
    context.check_hostname = False
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", front_door.penstock.port)) as plain:
        talk = context.wrap_socket(plain, do_handshake_on_connect=False)
        with talk, pytest.raises((ssl.SSLError, ConnectionError)):
            talk.do_handshake()
    newer = ssl.create_default_context(cafile=str(front_door.penstock.ca_bundle))
    for spoken in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        newer.minimum_version, newer.maximum_version = spoken, spoken
        plain = socket.create_connection(("127.0.0.1", front_door.penstock.port))
        with newer.wrap_socket(plain, server_hostname="127.0.0.1") as talk:
            assert talk.version() in {"TLSv1.2", "TLSv1.3"}
