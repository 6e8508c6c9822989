"""http-01 over real connections: what is found, and what is never gone to."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.validation.targets import Endpoint, is_own_address
from tests.contract.validation.conftest import (
    CANARY,
    KEY_AUTHORIZATION,
    LOOPBACK,
    NAME,
    PATH,
    World,
    answer,
    judge,
    redirect,
    refusal,
)
from tests.contract.validation.servers import HttpServer, closed_port, http_server
from tests.fakes.clock import START


@pytest.fixture
async def canary(world: World) -> AsyncIterator[HttpServer]:
    """Run the forbidden twin of the web server: same port, same answer, another address."""
    async with http_server(CANARY, world.port) as (server, _):
        server.answers[PATH] = answer(KEY_AUTHORIZATION)
        yield server


@pytest.fixture
def tls_context(tmp_path: Path) -> ssl.SSLContext:
    """Return the TLS side of a server whose certificate nobody vouches for, long expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody.else.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START - datetime.timedelta(days=900))
        .not_valid_after(START - datetime.timedelta(days=800))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_right_answer_is_found(world: World) -> None:
    """One lookup, one connection, the Host header of the name, and the verdict is valid."""
    seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("127.0.0.1",)
    assert seen.target == f"http://{NAME}:{world.port}/.well-known/acme-challenge/…"
    assert world.web.requests == [(PATH, f"{NAME}:{world.port}")]


async def test_address_identifier_is_contacted_without_dns(world: World) -> None:
    """An IP identifier is its own address."""
    assert judge(await world.observe(name="127.0.0.1", type_="ip")).valid
    assert not world.dns.asked


async def test_ipv6_identifier_is_bracketed_in_the_host_header(world: World) -> None:
    """RFC 8738 §5 with RFC 3986 §3.2.2; the address is in the form of RFC 5952."""
    world.allow("::1/128")
    async with http_server("::1") as (web, port):
        web.answers[PATH] = answer(KEY_AUTHORIZATION)
        world.change(http_port=port)
        assert judge(await world.observe(name="::1", type_="ip")).valid
    assert web.requests == [(PATH, f"[::1]:{port}")]
    assert not world.dns.asked


async def test_static_host_is_contacted_without_dns(world: World) -> None:
    """The community's own hosts come before DNS, and are judged like any answer."""
    world.dns.zone[(NAME, "A")] = [[CANARY]]
    world.change(hosts={NAME: (LOOPBACK,)})
    assert judge(await world.observe()).valid
    assert not world.dns.asked
    world.change(hosts={NAME: (ipaddress.ip_address(CANARY),)})
    assert refusal(await world.observe()) == "refused-address"


@pytest.mark.usefixtures("_proxy_in_the_environment")
async def test_proxy_of_the_environment_is_not_used(world: World) -> None:
    """A validation goes where it was judged to go, not where a variable points."""
    assert judge(await world.observe()).valid


async def test_wrong_answer_is_seen_and_judged(world: World) -> None:
    """Another body is no failure to look, and is never repeated."""
    world.web.answers[PATH] = answer(b"secret-of-the-server")
    seen = await world.observe()
    assert seen.failure is None
    problem = judge(seen).problem
    assert problem is not None
    assert "secret" not in problem.detail


async def test_missing_resource_is_told_by_its_status_alone(world: World) -> None:
    """Nothing of an error page is repeated."""
    world.web.answers[PATH] = answer(b"secret-of-the-server", status="404 secret phrase")
    seen = await world.observe()
    assert refusal(seen) == "protocol"
    problem = judge(seen).problem
    assert problem is not None
    assert "status 404, expected 200" in problem.detail
    assert "secret" not in problem.detail


# ------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_redirect_is_followed(world: World, status: str) -> None:
    """To another path and name, which is looked up anew; a URL without port keeps ours."""
    world.dns.zone[("other.corp.example", "A")] = [["127.0.0.1"]]
    location = "Location: http://OTHER.corp.example./moved?here=1#there"
    world.web.answers[PATH] = answer(b"", location, status=status)
    world.web.answers["/moved?here=1"] = answer(KEY_AUTHORIZATION)
    seen = await world.observe()
    assert judge(seen).valid
    assert world.web.requests[1] == ("/moved?here=1", f"other.corp.example:{world.port}")
    assert world.dns.asked[("other.corp.example", "A")] == 1


async def test_relative_redirect_is_followed(world: World) -> None:
    """A Location may leave out what stays the same (RFC 9110 §10.2.2)."""
    world.web.answers[PATH] = redirect("../moved")
    world.web.answers["/.well-known/moved"] = answer(KEY_AUTHORIZATION)
    assert judge(await world.observe()).valid


@pytest.mark.parametrize("name", [NAME, "127.0.0.1"], ids=["name", "address"])
async def test_https_redirect_is_followed_whatever_the_certificate(
    world: World, tls_context: ssl.SSLContext, name: str
) -> None:
    """Whoever asks for a certificate has no good one yet."""
    async with http_server(ssl=tls_context) as (secure, port):
        world.change(https_port=port)
        world.web.answers[PATH] = redirect(f"https://{name}{PATH}")
        secure.answers[PATH] = answer(KEY_AUTHORIZATION)
        assert judge(await world.observe()).valid
        assert secure.requests == [(PATH, f"{name}:{port}")]


async def test_tls_that_fails_is_a_tls_failure(world: World) -> None:
    """A server that speaks no TLS is told as such."""

    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with http_server() as (plain, port):
        plain.script = speak_plainly
        world.change(https_port=port)
        world.web.answers[PATH] = redirect(f"https://{NAME}{PATH}")
        assert refusal(await world.observe()) == "tls"
        assert plain.connections == 1


LOCATIONS = [
    pytest.param("http://127.0.0.2:{port}{path}", id="address"),
    pytest.param("//127.0.0.2:{port}{path}", id="without-scheme"),
    pytest.param("http://[::ffff:127.0.0.2]:{port}{path}", id="mapped"),
    pytest.param("http://[::ffff:7f00:2]:{port}{path}", id="mapped-hex"),
    pytest.param("http://inside.corp.example:{port}{path}", id="name"),
    pytest.param("http://alias.corp.example:{port}{path}", id="alias"),
]


@pytest.mark.parametrize("location", LOCATIONS)
async def test_redirect_to_a_forbidden_address_reaches_nobody(
    world: World, canary: HttpServer, location: str
) -> None:
    """Each hop's address is judged: the canary sees no connection, and says nothing."""
    world.dns.zone[("inside.corp.example", "A")] = [[CANARY]]
    world.dns.zone[("alias.corp.example", "CNAME")] = [["inside.corp.example."]]
    world.web.answers[PATH] = redirect(location.format(port=world.port, path=PATH))
    seen = await world.observe()
    assert refusal(seen) == "refused-address"
    assert seen.addresses_tried == ("127.0.0.1",)
    assert canary.connections == 0


@pytest.mark.parametrize("location", LOCATIONS)
async def test_same_redirect_is_followed_where_it_is_allowed(
    world: World, canary: HttpServer, location: str
) -> None:
    """The negative twin: with its network listed, the same redirect leads there."""
    world.allow("127.0.0.1/32", "127.0.0.2/32")
    world.dns.zone[("inside.corp.example", "A")] = [[CANARY]]
    world.dns.zone[("alias.corp.example", "CNAME")] = [["inside.corp.example."]]
    world.web.answers[PATH] = redirect(location.format(port=world.port, path=PATH))
    seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("127.0.0.1", CANARY)
    assert canary.connections == 1


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        pytest.param("http://0.0.0.0:{port}/", "refused-address", id="unspecified"),
        pytest.param("http://[::]:{port}/", "refused-address", id="unspecified-6"),
        pytest.param("http://[::1]:{port}/", "refused-address", id="loopback-6"),
        pytest.param("http://169.254.169.254:{port}/", "refused-address", id="metadata"),
        pytest.param("http://2130706434:{port}/", "dns", id="decimal"),
        pytest.param("http://0x7f000002:{port}/", "dns", id="hexadecimal"),
        pytest.param("http://0177.0.0.2:{port}/", "dns", id="octal"),
        pytest.param("http://127.2:{port}/", "dns", id="short"),
        pytest.param("http://www.corp.example@127.0.0.2:{port}/", "protocol", id="credentials"),
        pytest.param("http://127.0.0.2\\@www.corp.example:{port}/", "protocol", id="backslash"),
        pytest.param("http://www.corp.example:99999/", "protocol", id="no-port"),
        pytest.param("http://www.corp.example:0/", "refused-address", id="port-zero"),
        pytest.param("http://[fe80::2%25lo]:{port}/", "refused-address", id="zone"),
        pytest.param("http:///nowhere", "protocol", id="no-host"),
        pytest.param("http://" + "a" * 64 + ".example:{port}/", "protocol", id="long-label"),
        pytest.param("file:///etc/passwd", "protocol", id="file"),
        pytest.param("gopher://127.0.0.2:{port}/", "protocol", id="gopher"),
        pytest.param("http://www.corp.example:{port}/a b", "protocol", id="space"),
        pytest.param("http://www.corp.example:{port}/\xe4", "protocol", id="not-ascii"),
        pytest.param("http://www.corp.example:{port}/\ta", "protocol", id="tab"),
        pytest.param("http://www.corp.example:{port}/" + "a" * 2000, "protocol", id="long"),
    ],
)
async def test_redirect_that_leads_astray_is_not_followed(
    world: World, canary: HttpServer, location: str, kind: str
) -> None:
    """No way of writing a URL leads to a place that its plain form would not."""
    text = location.format(port=world.port)
    world.web.answers[PATH] = answer(b"", "Location: X", status="302 F").replace(
        b"Location: X", b"Location: " + text.encode("latin-1")
    )
    assert refusal(await world.observe()) == kind
    assert (world.web.connections, canary.connections) == (1, 0)


async def test_redirect_to_another_port_reaches_nobody(world: World) -> None:
    """On an allowed address, too, only the web's ports are contacted."""
    async with http_server() as (secret, port):
        secret.answers["/secret"] = answer(b"secret")
        world.web.answers[PATH] = redirect(f"http://127.0.0.1:{port}/secret")
        seen = await world.observe()
        assert refusal(seen) == "refused-address"
        assert secret.connections == 0
        world.change(https_port=port)
        assert (await world.observe()).answers == (b"secret",)
        assert secret.connections == 1


async def test_redirect_without_location_is_a_protocol_failure(world: World) -> None:
    """There is nowhere to go."""
    world.web.answers[PATH] = answer(b"", status="302 Found")
    assert refusal(await world.observe()) == "protocol"


async def test_redirects_are_followed_ten_times(world: World) -> None:
    """The tenth redirect is followed, the eleventh is not."""
    for step in range(9):
        world.web.answers[f"/{step}"] = redirect(f"/{step + 1}")
    world.web.answers[PATH] = redirect("/0")
    world.web.answers["/9"] = answer(KEY_AUTHORIZATION)
    assert judge(await world.observe()).valid
    world.web.answers["/9"] = redirect(PATH)
    world.web.connections = 0
    seen = await world.observe()
    assert refusal(seen) == "protocol"
    assert world.web.connections == 11


# --------------------------------------------------------------------- addresses and names


async def test_name_is_resolved_once_and_its_address_pinned(
    world: World, canary: HttpServer
) -> None:
    """A name that changes its address between the check and the connection gains nothing."""
    world.dns.zone[(NAME, "A")] = [["127.0.0.1"], [CANARY]]
    assert judge(await world.observe()).valid
    assert world.dns.asked[(NAME, "A")] == 1
    assert (world.web.connections, canary.connections) == (1, 0)


async def test_rebinding_between_two_hops_is_judged_again(world: World, canary: HttpServer) -> None:
    """A redirect to the same name is looked up again, and its new address judged."""
    world.dns.zone[(NAME, "A")] = [["127.0.0.1"], [CANARY]]
    world.web.answers[PATH] = redirect(f"http://{NAME}:{world.port}/again")
    assert refusal(await world.observe()) == "refused-address"
    assert (world.web.connections, canary.connections) == (1, 0)


async def test_forbidden_address_beside_an_allowed_one_is_passed_over(
    world: World, canary: HttpServer
) -> None:
    """Of several addresses only those that may be are contacted."""
    world.dns.zone[(NAME, "A")] = [[CANARY, "127.0.0.1", "169.254.169.254"]]
    world.dns.zone[(NAME, "AAAA")] = [["::ffff:127.0.0.2", "fe80::1"]]
    seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("127.0.0.1",)
    assert canary.connections == 0


@pytest.mark.parametrize("address", ["0.0.0.0", CANARY])
async def test_name_that_leads_to_a_forbidden_address_reaches_nobody(
    world: World, canary: HttpServer, address: str
) -> None:
    """Straight from DNS, without any redirect."""
    world.dns.zone[(NAME, "A")] = [[address]]
    assert refusal(await world.observe()) == "refused-address"
    assert (world.web.connections, canary.connections) == (0, 0)


async def test_mapped_address_in_dns_is_contacted_as_what_it_is(world: World) -> None:
    """An AAAA record with an IPv4-mapped address of an allowed network leads to that."""
    del world.dns.zone[(NAME, "A")]
    world.dns.zone[(NAME, "AAAA")] = [["::ffff:127.0.0.1"]]
    seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("127.0.0.1",)


async def test_ipv6_comes_first_and_ipv4_after_it(world: World) -> None:
    """Where nobody listens on IPv6, the next address is tried."""
    world.allow("127.0.0.1/32", "::1/128")
    world.dns.zone[(NAME, "AAAA")] = [["::1"]]
    seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("::1", "127.0.0.1")


async def test_ipv6_answer_is_taken_where_there_is_one(world: World) -> None:
    """The negative twin: with a listener on IPv6, IPv4 is left alone."""
    world.allow("127.0.0.1/32", "::1/128")
    world.dns.zone[(NAME, "AAAA")] = [["::1"]]
    async with http_server("::1", world.port) as (web, _):
        web.answers[PATH] = answer(KEY_AUTHORIZATION)
        seen = await world.observe()
    assert judge(seen).valid
    assert seen.addresses_tried == ("::1",)
    assert world.web.connections == 0


async def test_nobody_listening_is_a_connection_failure(world: World) -> None:
    """Told with the address that was tried."""
    world.change(http_port=closed_port())
    seen = await world.observe()
    assert refusal(seen) == "connection"
    problem = judge(seen).problem
    assert problem is not None
    assert "connection refused (tried 127.0.0.1)" in problem.detail


@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::"])
async def test_own_listener_is_not_contacted(world: World, own: str) -> None:
    """The broker does not validate against itself, however it listens."""
    endpoint = Endpoint(ipaddress.ip_address(own), world.port)
    world.change(own_endpoints=frozenset({endpoint}))
    assert refusal(await world.observe()) == "refused-address"
    assert world.web.connections == 0
    world.change(own_endpoints=frozenset({Endpoint(endpoint.address, world.port ^ 1)}))
    assert judge(await world.observe()).valid


def test_only_addresses_of_this_machine_are_its_own() -> None:
    """Loopback is ours in both families, documentation addresses are nobody's."""
    addresses = ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"]
    owned = [is_own_address(ipaddress.ip_address(address)) for address in addresses]
    assert owned == [True, True, False, False]


async def test_many_validations_at_once_do_not_disturb_each_other(world: World) -> None:
    """Fifty at once see fifty right answers."""
    seen = await asyncio.gather(*(world.observe() for _ in range(50)))
    assert all(judge(each).valid for each in seen)
    assert world.web.connections == 50
