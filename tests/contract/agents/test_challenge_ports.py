"""Challenges are answered on real ports, exactly and to nobody else."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agents.challenge_ports import (
    MAX_CONNECTIONS,
    ChallengePorts,
    PortFault,
    alpn_context,
    split_address,
)
from tests.peers import authority
from tests.peers.process import free_port, is_listening

pytestmark = pytest.mark.peers

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
AUTHORIZATION = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
PATH = f"/.well-known/acme-challenge/{TOKEN}"
ALPN = ("acme-tls/1",)


class Node:
    """Both ports of a node on loopback."""

    def __init__(self) -> None:
        self.http, self.tls = free_port(), free_port()
        self.ports = ChallengePorts(f"127.0.0.1:{self.http}", f"127.0.0.1:{self.tls}")

    def request(self, octets: bytes) -> bytes:
        """Send *octets* and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.http), timeout=20) as connected:
            connected.sendall(octets)
            found = b""
            while chunk := connected.recv(4096):
                found += chunk
        return found

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and content of *path*."""
        found = self.request(f"GET {path} HTTP/1.1\r\nHost: host.example\r\n\r\n".encode())
        head, _, content = found.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), content

    def shake_hands(
        self, name: str | None, alpn: tuple[str, ...], version: ssl.TLSVersion | None = None
    ) -> str:
        """Return the fingerprint of what is served."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = version or ssl.TLSVersion.MAXIMUM_SUPPORTED
        if alpn:
            context.set_alpn_protocols(alpn)
        with (
            socket.create_connection(("127.0.0.1", self.tls), timeout=20) as connected,
            context.wrap_socket(connected, server_hostname=name) as talk,
        ):
            assert talk.selected_alpn_protocol() == "acme-tls/1"
            served = talk.getpeercert(binary_form=True) or b""
            assert talk.recv(100) == b"", "something was said after the handshake"
        return hashlib.sha256(served).hexdigest()

    def show(self, name: str) -> str:
        """Show a certificate for *name* and return its fingerprint."""
        made = authority.make_server(authority.make_root("Root"), [name])
        context = alpn_context(made.certificate_pem.decode(), made.key_pem().decode())
        self.ports.show(name, context)
        return hashlib.sha256(made.certificate.public_bytes(Encoding.DER)).hexdigest()


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that answers nothing yet."""
    made = Node()
    yield made
    made.ports.close()


def test_token_is_answered_and_nothing_else(node: Node) -> None:
    """The one path has the key authorization; every other is not there."""
    node.ports.tell(TOKEN, AUTHORIZATION)
    assert node.get(PATH) == (200, AUTHORIZATION.encode())
    for path in ("/", PATH + "/", PATH + "?x", PATH[:-1], "/.well-known/acme-challenge/", "/../x"):
        assert node.get(path) == (404, b""), path


def test_port_is_open_only_while_there_is_an_answer(node: Node) -> None:
    """Nothing listens before the first answer, and nothing after the last."""
    assert not is_listening(node.http)
    node.ports.tell(TOKEN, AUTHORIZATION)
    assert is_listening(node.http)
    node.ports.forget(TOKEN)
    assert not is_listening(node.http)
    node.ports.tell(TOKEN, AUTHORIZATION)
    assert node.get(PATH)[0] == 200


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"POST " + PATH.encode() + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET " + PATH.encode() + b"\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\x00\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 10_000, b"431"),
    ],
    ids=["POST", "HTTP/0.9", "TLS", "endless"],
)
def test_bad_request_is_refused(node: Node, octets: bytes, status: bytes) -> None:
    """What is no GET of HTTP/1 is refused, and an endless one is cut off."""
    node.ports.tell(TOKEN, AUTHORIZATION)
    assert node.request(octets).split(b" ")[1] == status


def test_request_in_pieces_is_answered(node: Node) -> None:
    """A request may come byte by byte."""
    node.ports.tell(TOKEN, AUTHORIZATION)
    with socket.create_connection(("127.0.0.1", node.http), timeout=20) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in f"GET {PATH} HTTP/1.1\r\n\r\n".encode():
            connected.sendall(bytes([octet]))
        assert connected.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_many_that_say_nothing_keep_nobody_out(node: Node) -> None:
    """Whoever opens all connections and says nothing loses the oldest to the next who comes."""
    node.ports.tell(TOKEN, AUTHORIZATION)
    silent = [socket.create_connection(("127.0.0.1", node.http)) for _ in range(MAX_CONNECTIONS)]
    try:
        assert node.get(PATH)[0] == 200
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificate_is_shown_to_who_validates(node: Node, version: ssl.TLSVersion) -> None:
    """A handshake for the name with acme-tls/1 alone is answered (RFC 8737 §3)."""
    one, other = node.show("host.example"), node.show("other.example")
    assert node.shake_hands("host.example", ALPN, version) == one
    assert node.shake_hands("OTHER.example", ALPN, version) == other


def test_address_is_asked_for_by_its_reverse_name(node: Node) -> None:
    """A validating client asks for an address by its name in the reverse zone (RFC 8738 §6)."""
    shown = node.show("192.0.2.1")
    assert node.shake_hands("1.2.0.192.in-addr.arpa", ALPN) == shown


@pytest.mark.parametrize(
    ("name", "alpn"),
    [
        ("host.example", ()),
        ("host.example", ("h2", "http/1.1")),
        ("host.example", ("acme-tls/1", "h2")),
        ("unknown.example", ALPN),
        (None, ALPN),
    ],
    ids=["no ALPN", "HTTP", "both", "another name", "no name"],
)
def test_nobody_else_is_shown_a_certificate(
    node: Node, name: str | None, alpn: tuple[str, ...]
) -> None:
    """A client that doesn't validate one of the names is hung up on."""
    node.show("host.example")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        node.shake_hands(name, alpn)
    node.shake_hands("host.example", ALPN)


def test_plain_text_at_the_tls_port_is_hung_up_on(node: Node) -> None:
    """Whoever speaks no TLS gets no answer."""
    node.show("host.example")
    with socket.create_connection(("127.0.0.1", node.tls), timeout=20) as connected:
        connected.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connected.recv(100) == b""


def test_certificate_that_is_withdrawn_is_shown_no_more(node: Node) -> None:
    """After the last challenge nothing listens."""
    node.show("host.example")
    node.ports.hide("host.example")
    assert not is_listening(node.tls)


def test_port_that_is_taken_is_a_fault(node: Node) -> None:
    """A port that another server has is told."""
    with (
        socket.create_server(("127.0.0.1", node.http)),
        pytest.raises(PortFault, match="address already in use"),
    ):
        node.ports.tell(TOKEN, AUTHORIZATION)
    node.ports.tell(TOKEN, AUTHORIZATION)


def test_address_is_split() -> None:
    """Both kinds of addresses are read."""
    assert split_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert split_address("[::]:443") == ("::", 443)
