"""tls-alpn-01 over real connections: bad servers, each beside the twin that proves control."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from cryptography import x509

from broker.protocol.challenges import ChallengeType, Observation
from broker.validation.targets import Endpoint
from broker.validation.tlsalpn01 import MAX_HANDSHAKE_BYTES
from tests.contract.validation.alpn_servers import Shown, address_name, alpn_server
from tests.contract.validation.conftest import CANARY, LOOPBACK, NAME, World, judge, refusal
from tests.contract.validation.servers import closed_port, http_server

TLS_ALPN_01 = ChallengeType.TLS_ALPN_01
OTHER = x509.DNSName("other.corp.example")
OWN = x509.DNSName(NAME)

Playing = Callable[[World, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does to a client that looks, in a world."""


async def look(world: World, port: int, name: str = NAME, type_: str = "dns") -> Observation:
    """Go and look at a server."""
    world.change(tls_alpn_port=port)
    return await world.observe(TLS_ALPN_01, name, type_)


# ----------------------------------------------------------------------------------- good twins


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(Shown(), id="TLS-1.3"),
        pytest.param(Shown(highest=ssl.TLSVersion.TLSv1_2), id="TLS-1.2"),
        pytest.param(Shown(protocols=("acme-tls/1", "h2", "http/1.1")), id="one-of-several"),
        pytest.param(Shown(names=(x509.DNSName(NAME.upper()),)), id="upper-case"),
        pytest.param(Shown(padding_bytes=8000), id="large"),
    ],
)
async def test_right_certificate_proves_control(world: World, shown: Shown) -> None:
    """SNI is the name, the verdict is valid, and nothing is sent after the handshake."""
    async with alpn_server(shown) as server:
        seen = await look(world, server.port)
        assert judge(seen).valid, judge(seen).problem
        await server.is_done.wait()
        assert server.received == b""
    assert (seen.target, seen.addresses_tried) == (NAME, ("127.0.0.1",))
    assert server.server_names == [NAME]


@pytest.mark.parametrize(
    ("address", "server_name"),
    [
        pytest.param("127.0.0.1", "1.0.0.127.in-addr.arpa", id="IPv4"),
        pytest.param("::1", f"{'.'.join(['1', *['0'] * 31])}.ip6.arpa", id="IPv6"),
    ],
)
async def test_address_is_proved_without_dns(world: World, address: str, server_name: str) -> None:
    """RFC 8738 §6: an iPAddress in the certificate, the reverse name in SNI."""
    world.allow(f"{address}/{'128' if ':' in address else '32'}")
    async with alpn_server(Shown(names=address_name(address)), address=address) as server:
        seen = await look(world, server.port, address, "ip")
    assert judge(seen).valid, judge(seen).problem
    assert server.server_names == [server_name]
    assert not world.dns.asked


# ----------------------------------------------------------------------- certificates that lie


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        pytest.param(Shown(proof=None), "no extension with the proof", id="no-proof"),
        pytest.param(Shown(is_critical=False), "not critical", id="proof-not-critical"),
        pytest.param(Shown(proof=b"\x04\x20" + bytes(32)), "expected hash", id="wrong-digest"),
        pytest.param(Shown(names=None), "no extension with the names", id="no-names"),
        pytest.param(Shown(names=(OTHER,)), "other names", id="another-name"),
        pytest.param(Shown(names=(OWN, OTHER)), "other names", id="two-names"),
        pytest.param(
            Shown(names=(OWN, x509.UniformResourceIdentifier("https://a.example"))),
            "other names",
            id="name-of-another-kind-beside",
        ),
        pytest.param(Shown(names=address_name("127.0.0.1")), "other names", id="address"),
        pytest.param(Shown(is_self_signed=False), "not self-signed", id="not-self-signed"),
    ],
)
async def test_wrong_certificate_proves_nothing(world: World, shown: Shown, sentence: str) -> None:
    """It is seen, and judged: an incorrect response."""
    async with alpn_server(shown) as server:
        seen = await look(world, server.port)
    assert seen.failure is None
    problem = judge(seen).problem
    assert problem is not None
    assert sentence in problem.detail


async def test_certificate_for_the_digits_of_an_address_proves_nothing(world: World) -> None:
    """A dNSName is no address, whatever it spells."""
    async with alpn_server(Shown(names=(x509.DNSName("127.0.0.1"),))) as server:
        seen = await look(world, server.port, "127.0.0.1", "ip")
    assert seen.failure is None
    assert not judge(seen).valid


# --------------------------------------------------------------------------- servers that differ


@pytest.mark.parametrize(
    "protocols",
    [
        pytest.param((), id="no-protocol-at-all"),
        pytest.param(("http/1.1",), id="another-protocol"),
        pytest.param(("acme-tls/1.1", "h2"), id="nearly"),
    ],
)
async def test_right_certificate_under_another_protocol_proves_nothing(
    world: World, protocols: tuple[str, ...]
) -> None:
    """A shared host that hands certificates out by name never meant to answer a challenge."""
    async with alpn_server(Shown(protocols=protocols)) as server:
        seen = await look(world, server.port)
    assert refusal(seen) == "tls"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(world: World) -> None:
    """RFC 8737 §4 wants TLS 1.2 or newer; the twins above have either."""
    old = Shown(lowest=ssl.TLSVersion.TLSv1, highest=ssl.TLSVersion.TLSv1_1)
    async with alpn_server(old) as server:
        assert refusal(await look(world, server.port)) == "tls"


@pytest.mark.parametrize("size", [33_000, 90_000, 200_000])
async def test_huge_certificate_is_not_read(world: World, size: int) -> None:
    """No more than the limit is read, whatever its length; the twin of 8 kB above is taken."""
    async with alpn_server(Shown(padding_bytes=size)) as server:
        seen = await look(world, server.port)
    assert refusal(seen) == "tls"


async def hang(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the client's greeting and never answer."""
    await reader.read(100)
    world.let_time_pass()
    await reader.read()


async def say_http(
    world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer in plain HTTP."""
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nsecret-of-the-server: yes\r\n\r\n")
    await writer.drain()


async def hang_up(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close without a word."""
    await reader.read(100)


async def dribble(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin a record of 16 kB and send it octet by octet, until the client goes."""
    await reader.read(100)
    writer.write(b"\x16\x03\x03\x40\x00")
    while True:
        writer.write(b"\x00")
        await writer.drain()
        world.time.advance(world.settings.timeout / 100)
        await asyncio.sleep(0.001)


async def flood(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send warnings of TLS for ever."""
    while True:
        writer.write(b"\x15\x03\x03\x00\x02\x01\x00" * 100)
        await writer.drain()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        pytest.param(hang, "timeout", id="hangs"),
        pytest.param(dribble, "timeout", id="dribbles"),
        pytest.param(say_http, "tls", id="plain-http"),
        pytest.param(hang_up, "tls", id="hangs-up"),
        pytest.param(flood, "tls", id="floods"),
    ],
)
async def test_server_that_speaks_no_tls_costs_little(
    world: World, script: Playing, kind: str
) -> None:
    """Time and octets are bounded, and nothing of what was read is repeated."""
    async with http_server() as (server, port):
        server.script = partial(script, world)
        seen = await look(world, port)
        assert refusal(seen) == kind
        await server.is_gone.wait()
    problem = judge(seen).problem
    assert problem is not None
    assert "secret" not in problem.detail


async def test_endless_handshake_is_cut_at_the_limit(world: World) -> None:
    """A message that is announced as longer than the limit is not waited for."""
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        record = b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + bytes(0x4000 - 4)
        while True:
            writer.write(record)
            await writer.drain()
            sent += len(record)

    async with http_server() as (server, port):
        server.script = script
        assert refusal(await look(world, port)) == "tls"
        await server.is_gone.wait()
    assert MAX_HANDSHAKE_BYTES < 64 * 1024


# ---------------------------------------------------------------------------------- who is asked


async def test_forbidden_address_is_not_contacted(world: World) -> None:
    """The right answer at an address that is not allowed is never asked for."""
    world.dns.zone[(NAME, "A")] = [[CANARY]]
    async with http_server(CANARY) as (canary, port):
        assert refusal(await look(world, port)) == "refused-address"
        assert canary.connections == 0
    world.allow(f"{CANARY}/32")
    async with alpn_server(address=CANARY) as server:
        assert judge(await look(world, server.port)).valid


async def test_forbidden_address_as_identifier_is_not_contacted(world: World) -> None:
    """The same for an address that is itself asked for."""
    async with http_server(CANARY) as (canary, port):
        assert refusal(await look(world, port, CANARY, "ip")) == "refused-address"
        assert canary.connections == 0
    world.allow(f"{CANARY}/32")
    async with alpn_server(Shown(names=address_name(CANARY)), address=CANARY) as server:
        assert judge(await look(world, server.port, CANARY, "ip")).valid


async def test_broker_itself_is_not_contacted(world: World) -> None:
    """A name that leads to our own listener is refused; it could be made to answer for itself."""
    async with http_server() as (canary, port):
        world.change(own_endpoints=frozenset({Endpoint(LOOPBACK, port)}))
        assert refusal(await look(world, port)) == "refused-address"
        assert canary.connections == 0


async def test_next_address_is_tried_when_one_is_closed(world: World) -> None:
    """IPv6 first; where nobody listens the other family is asked."""
    world.allow("127.0.0.1/32", "::1/128")
    world.dns.zone[(NAME, "AAAA")] = [["::1"]]
    async with alpn_server() as server:
        seen = await look(world, server.port)
    assert judge(seen).valid
    assert seen.addresses_tried == ("::1", "127.0.0.1")


async def test_nobody_there_is_a_failed_connection(world: World) -> None:
    """Told as such, with the address."""
    seen = await look(world, closed_port())
    assert refusal(seen) == "connection"
    assert seen.addresses_tried == ("127.0.0.1",)


async def test_wildcard_is_not_looked_at(world: World) -> None:
    """One host shows nothing about the others."""
    async with http_server() as (canary, port):
        assert refusal(await look(world, port, f"*.{NAME}")) == "protocol"
        assert canary.connections == 0
