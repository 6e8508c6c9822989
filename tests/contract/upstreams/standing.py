"""Penstock's upstream half before a real CA: connection, account, solvers, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import SystemClock
from broker.issuance.ports import UpstreamOrder, UpstreamRequest
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import OrderStatus
from broker.upstreams.account import Registration, register
from broker.upstreams.acme import AcmeUpstream, AcmeUpstreamSettings
from broker.upstreams.authorizing import AuthorizingSettings
from broker.upstreams.client import AcmeClient
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.rfc2136 import DynamicZone, Rfc2136Settings
from broker.upstreams.selfcheck import SelfCheck
from broker.upstreams.solvers import Dns01Solver, Http01Solver, Solver
from broker.upstreams.transport import HttpTransport, TransportSettings
from tests.fakes.signer import FakeSigner
from tests.peers.bind import Bind

KEY_ID = "upstream-key"
ISSUING_SECONDS = 50.0
"""Longest wait for a certificate; peers here need about a second."""


@dataclass
class Standing:
    """What we are to one CA."""

    upstream: AcmeUpstream
    client: AcmeClient
    signer: FakeSigner
    record: UpstreamAccountRecord | None = None

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None:
        """Return our record, as the store does."""
        return self.record

    async def register(self, **more: Any) -> UpstreamAccountRecord:
        """Register with our key, agreeing to the terms unless told otherwise."""
        members = {"upstream": "ca", "community": "default", "key_id": KEY_ID}
        members |= {"is_terms_agreed": True} | more
        registration = Registration(**members)  # type: ignore[arg-type]
        self.record = await register(registration, client=self.client, clock=SystemClock())
        return self.record

    async def obtain(self, request: UpstreamRequest, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Take an order from its opening to its chain."""
        order = await self.upstream.authorize(await self.upstream.open_order(request))
        names = [identifier.value for identifier in request.identifiers]
        order = await self.upstream.finalize(order, csr_der(key, *names))
        return await self.upstream.download(await self.finished(order))

    async def finished(self, order: UpstreamOrder) -> UpstreamOrder:
        """Watch an order at the pace it names until it is valid or invalid."""
        async with asyncio.timeout(ISSUING_SECONDS):
            while order.status not in (OrderStatus.VALID, OrderStatus.INVALID):
                assert order.retry_at is not None
                wait = order.retry_at - SystemClock().now()
                await asyncio.sleep(max(wait.total_seconds(), 0))
                order = await self.upstream.read_order(order.url)
        return order


@contextlib.asynccontextmanager
async def standing(
    directory_url: str,
    ca_bundle: Path,
    *,
    solvers: Sequence[Solver] = (),
    total: timedelta = timedelta(seconds=30),
) -> AsyncIterator[Standing]:
    """Stand before a CA, with a key and no account yet."""
    transport = HttpTransport(TransportSettings(user_agent="penstock/test", ca_bundle=ca_bundle))
    signer = FakeSigner()
    await signer.create_key(KEY_ID, "ec-p256")
    client = AcmeClient(
        directory_url=directory_url, transport=transport, signer=signer, clock=SystemClock()
    )
    found = Standing(upstream=None, client=client, signer=signer)  # type: ignore[arg-type]
    found.upstream = AcmeUpstream(
        AcmeUpstreamSettings(
            name="ca",
            community="default",
            authorizing=AuthorizingSettings(total=total),
        ),
        client=client,
        accounts=found,
        solvers=solvers,
        clock=SystemClock(),
    )
    try:
        yield found
    finally:
        await transport.close()


def request(*names: str, **more: Any) -> UpstreamRequest:
    """Return a newOrder for *names*."""
    members = {"profile": None, "not_after": None} | more
    identifiers = tuple(Identifier(IdentifierType.DNS, name) for name in names)
    return UpstreamRequest(reference="work", identifiers=identifiers, **members)


def csr_der(key: ec.EllipticCurvePrivateKey, *names: str) -> bytes:
    """Return a CSR for *names*."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


def leaf_of(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a chain."""
    return x509.load_pem_x509_certificates(pem)[0]


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names in a certificate, sorted."""
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(san.get_values_for_type(x509.DNSName))


def server_of(bind: Bind) -> NameServer:
    """Return where *bind* listens."""
    return NameServer(bind.host, bind.port)


def dynamic_zone(bind: Bind, **more: Any) -> DynamicZone:
    """Return the means to update *bind*, with the key that it gave out."""
    members: dict[str, Any] = {
        "server": server_of(bind),
        "tsig_name": bind.tsig_name,
        "tsig_secret": base64.b64decode(bind.tsig_secret_b64),
        "tsig_algorithm": bind.tsig_algorithm,
        "resolvers": (server_of(bind),),
    }
    return DynamicZone(Rfc2136Settings(**members | more))


def dns_solver(bind: Bind) -> Dns01Solver:
    """Return a solver that updates *bind* and looks whether it shows the value."""
    check = SelfCheck(SystemClock(), view=Lookup((server_of(bind),)), servers=(server_of(bind),))
    return Dns01Solver(dynamic_zone(bind), check)


@contextlib.asynccontextmanager
async def http_solver(
    port: int, answers: Http01Answers | None = None
) -> AsyncIterator[Http01Solver]:
    """Serve http-01 answers on loopback *port*, as Penstock's plain listener does."""
    answers = answers if answers is not None else Http01Answers()

    async def serve(request: web.Request) -> web.Response:
        body = answers.answer(request.host, request.path)
        return web.Response(status=404) if body is None else web.Response(body=body)

    application = web.Application()
    application.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield Http01Solver(answers)
    finally:
        await runner.cleanup()
