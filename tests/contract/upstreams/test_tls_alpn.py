"""tls-alpn-01 towards CAs: our listener, seen by Pebble, by step-ca and by a plain client."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import SystemClock
from broker.issuance.ports import UpstreamRequest
from broker.protocol.challenges import ACME_IDENTIFIER_OID, ACME_TLS_PROTOCOL
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.solvers import TlsAlpn01Solver
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers
from broker.web.tls_alpn import TlsAlpnListener, start_tls_alpn
from tests.contract.upstreams.standing import leaf_of, names_of, request, standing
from tests.peers.bind import Bind
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.process import free_port
from tests.peers.stepca import AcmeProvisioner, StepCa

pytestmark = pytest.mark.peers

ZONE = "corp.example"
AUTHORIZATION = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.thumbprint"


@dataclass
class World:
    """A CA that validates by tls-alpn-01 alone, and where it looks."""

    ca: Pebble | StepCa
    port: int


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server in which two names lead to loopback."""
    with Bind(tmp_path_factory.mktemp("bind"), zones=[ZONE]) as server:
        server.add_a(f"www.{ZONE}")
        server.add_a(f"a.{ZONE}")
        yield server


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[World]:
    """Pebble, strict, refusing 15 % of good nonces."""
    port = free_port()
    peer = Pebble(
        tmp_path_factory.mktemp("pebble"),
        validation_http_port=free_port(),
        validation_tls_port=port,
        dns_server=bind.address,
        options=PebbleOptions(),
    )
    with peer:
        yield World(peer, port)


@pytest.fixture(scope="module")
def stepca(tmp_path_factory: pytest.TempPathFactory, bind: Bind) -> Iterator[World]:
    """A step-ca whose provisioner offers nothing else."""
    port = free_port()
    peer = StepCa(
        tmp_path_factory.mktemp("step"),
        validation_http_port=free_port(),
        validation_tls_port=port,
        dns_server=bind.address,
        provisioners=(AcmeProvisioner(challenges=("tls-alpn-01",)),),
    )
    with peer:
        yield World(peer, port)


@pytest.fixture(params=["pebble", "stepca"])
def world(request: pytest.FixtureRequest) -> World:
    """Each CA."""
    found: World = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def answers() -> TlsAlpn01Answers:
    """An empty table."""
    return TlsAlpn01Answers(SystemClock())


@pytest.fixture
async def listener(answers: TlsAlpn01Answers) -> AsyncIterator[TlsAlpnListener]:
    """The listener on a port of its own."""
    made = await start_tls_alpn(host="127.0.0.1", port=0, find=answers.find)
    yield made
    await made.stop()


async def test_certificate_for_two_names(world: World, answers: TlsAlpn01Answers) -> None:
    """Each name is validated by a handshake, and the table is empty afterwards."""
    solver = TlsAlpn01Solver(answers)
    listener = await start_tls_alpn(host="127.0.0.1", port=world.port, find=answers.find)
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        async with standing(world.ca.directory_url, world.ca.ca_bundle, solvers=[solver]) as we:
            await we.register()
            leaf = leaf_of(await we.obtain(request(f"www.{ZONE}", f"a.{ZONE}"), key))
    finally:
        await listener.stop()
    assert names_of(leaf) == [f"a.{ZONE}", f"www.{ZONE}"]
    assert len(answers) == 0


async def test_certificate_for_an_address(world: World, answers: TlsAlpn01Answers) -> None:
    """RFC 8738 §6: SNI holds the reverse name, the certificate the address."""
    address = Identifier(IdentifierType.IP, "127.0.0.1")
    asked = UpstreamRequest(reference="work", identifiers=(address,), profile=None, not_after=None)
    listener = await start_tls_alpn(host="127.0.0.1", port=world.port, find=answers.find)
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    solver = TlsAlpn01Solver(answers)
    try:
        async with standing(world.ca.directory_url, world.ca.ca_bundle, solvers=[solver]) as we:
            await we.register()
            order = await we.upstream.authorize(await we.upstream.open_order(asked))
            order = await we.upstream.finalize(order, csr.public_bytes(Encoding.DER))
            leaf = leaf_of(await we.upstream.download(await we.finished(order)))
    finally:
        await listener.stop()
    shown = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert shown.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


async def shake(port: int, name: str, *, alpn: str | None = ACME_TLS_PROTOCOL) -> ssl.SSLObject:
    """Shake hands for *name*, see the other side hang up, and return the connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name
    )
    found: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    return found


async def test_name_in_question_is_shown_its_proof(
    answers: TlsAlpn01Answers, listener: TlsAlpnListener
) -> None:
    """ALPN is ``acme-tls/1``, the certificate has the one name and the critical proof."""
    name = Identifier(IdentifierType.DNS, "www.corp.example")
    answers.add(name, AUTHORIZATION)
    shown = await shake(listener.port, "WWW.corp.example")
    assert shown.selected_alpn_protocol() == ACME_TLS_PROTOCOL
    der = shown.getpeercert(binary_form=True)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    assert names_of(certificate) == ["www.corp.example"]
    oid = x509.ObjectIdentifier(ACME_IDENTIFIER_OID)
    assert certificate.extensions.get_extension_for_oid(oid).critical


async def test_other_names_are_refused(
    answers: TlsAlpn01Answers, listener: TlsAlpnListener
) -> None:
    """Before, beside and after a challenge the handshake fails and no certificate is shown."""
    name = Identifier(IdentifierType.DNS, "www.corp.example")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(listener.port, name.value)
    answers.add(name, AUTHORIZATION)
    await shake(listener.port, name.value)
    for other in ("a.corp.example", "127.0.0.1"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake(listener.port, other)
    answers.remove(name, AUTHORIZATION)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(listener.port, name.value)


async def test_other_protocols_get_nothing(
    answers: TlsAlpn01Answers, listener: TlsAlpnListener
) -> None:
    """A browser that strays here is hung up on: nothing is served behind the handshake."""
    answers.add(Identifier(IdentifierType.DNS, "www.corp.example"), AUTHORIZATION)
    shown = await shake(listener.port, "www.corp.example", alpn=None)
    assert shown.selected_alpn_protocol() is None
