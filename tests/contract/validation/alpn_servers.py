"""TLS servers for tls-alpn-01 on loopback: the right one, and every wrong one beside it."""

import asyncio
import contextlib
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.protocol.challenges import ACME_IDENTIFIER_OID, ACME_TLS_PROTOCOL
from tests.contract.validation.conftest import KEY_AUTHORIZATION, NAME
from tests.fakes.clock import START

OID = x509.ObjectIdentifier(ACME_IDENTIFIER_OID)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a server shows; every default is right."""

    names: Sequence[x509.GeneralName] | None = (x509.DNSName(NAME),)
    """None: no such extension."""
    proof: bytes | None = b"\x04\x20" + sha256(KEY_AUTHORIZATION).digest()
    is_critical: bool = True
    is_self_signed: bool = True
    protocols: tuple[str, ...] = (ACME_TLS_PROTOCOL,)
    padding_bytes: int = 0
    """Size of an extension that nobody needs."""
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    def pem(self) -> bytes:
        """Return key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = key if self.is_self_signed else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(START)
            .not_valid_after(START + timedelta(days=7))
        )
        if self.names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=False)
        if self.proof is not None:
            proof = x509.UnrecognizedExtension(OID, self.proof)
            builder = builder.add_extension(proof, critical=self.is_critical)
        if self.padding_bytes:
            padding = x509.UnrecognizedExtension(
                x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x04" * self.padding_bytes
            )
            builder = builder.add_extension(padding, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        return key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ) + certificate.public_bytes(Encoding.PEM)

    def context(self) -> ssl.SSLContext:
        """Return the server's side of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.lowest, self.highest
        if self.highest < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
        if self.protocols:
            context.set_alpn_protocols(list(self.protocols))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "server.pem"
            path.write_bytes(self.pem())
            context.load_cert_chain(path)
        return context


def address_name(text: str) -> tuple[x509.GeneralName, ...]:
    """Return the one name of a certificate for an address."""
    return (x509.IPAddress(ipaddress.ip_address(text)),)


@dataclass
class AlpnServer:
    """Notes what reaches it."""

    port: int = 0
    server_names: list[str | None] = field(default_factory=list)
    received: bytes = b""
    """What clients sent after the handshake."""
    is_done: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def alpn_server(
    shown: Shown | None = None, *, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[AlpnServer]:
    """Run a TLS server, by default the right one on a free port."""
    server = AlpnServer()
    context = (shown or Shown()).context()

    def note(_socket: object, name: str | None, _context: object) -> None:
        server.server_names.append(name)

    context.sni_callback = note

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            server.received += await reader.read(1024)
        server.is_done.set()
        writer.transport.abort()

    listener = await asyncio.start_server(serve, address, port, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
