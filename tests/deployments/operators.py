"""People who operate a broker: their certificates, their OpenID provider, how they ask."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.clock import SystemClock
from tests.fakes.token_issuer import TokenIssuer

AUDIENCE: Final = "penstock-operators"

ANSWER_SECONDS: Final = 30.0
"""Longest wait for an answer of the API; most take milliseconds, one asks a CA."""


def now() -> datetime.datetime:
    """Return the time that certificates and tokens are made for."""
    return SystemClock().now()


class PeopleCa:
    """A CA that certifies people, and the TLS server of their provider."""

    def __init__(self, directory: Path, name: str = "people") -> None:
        self._directory = directory
        self._made = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {name}")])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        own = (
            self._builder(self._name, self._key.public_key(), 30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.anchors = directory / f"{name}.pem"
        self.anchors.write_bytes(own.public_bytes(Encoding.PEM))

    def _builder(self, subject: x509.Name, key: Any, days: float) -> x509.CertificateBuilder:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - datetime.timedelta(days=2))
            .not_valid_after(now() + datetime.timedelta(days=days))
            .add_extension(identifier, critical=False)
            .add_extension(authority, critical=False)
        )

    def issue(
        self,
        name: str,
        *names: x509.GeneralName,
        days: float = 1,
        usage: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Pair:
        """Return files with a certificate of *names* and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            self._builder(subject, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._made += 1
        file = self._directory / f"{name}-{self._made}"
        pair = Pair(file.with_suffix(".crt"), file.with_suffix(".key"), made)
        pair.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pair

    def person(self, name: str, **options: Any) -> Pair:
        """Return a person's certificate and key."""
        return self.issue(name, x509.RFC822Name(f"{name}@corp.example"), **options)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path
    made: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """Return the certificate's SHA-256."""
        return self.made.fingerprint(hashes.SHA256()).hex()


class Provider:
    """An OpenID provider over TLS, which may fall ill."""

    def __init__(self, ca: PeopleCa, directory: Path) -> None:
        pair = ca.issue(
            "provider",
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
        )
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = provider.documents.get(self.path, b"")
                self.send_response(200 if body else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing: the name is the base class's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/realms/staff"
        self.ca_bundle = ca.anchors
        self.issuer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()), "key-1", self.url)
        self.heal()

    def heal(self) -> None:
        """Serve what a provider serves."""
        base = "/realms/staff"
        self.documents[f"{base}/.well-known/openid-configuration"] = self.issuer.discovery()
        self.documents[f"{base}/keys"] = self.issuer.key_set()

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a token for the broker, with changed claims."""
        return self.issuer.token(now(), dict(header or {}), **{"aud": AUDIENCE, **changes})

    def section(self, **changes: Any) -> dict[str, Any]:
        """Return its section of the configuration."""
        return {
            "issuer": self.url,
            "audience": AUDIENCE,
            "algorithms": ["ES256"],
            "ca_bundle": str(self.ca_bundle),
            **changes,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Api:
    """The operator API of a broker, asked by somebody over one connection at a time."""

    port: int
    anchors: Path
    pair: Pair | None = None
    token: str | None = None
    _connection: http.client.HTTPSConnection | None = field(default=None, repr=False)

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return status and answer.

        Raises:
            OSError: The broker ended the connection, in the handshake or after it.
        """
        connection = self._open()
        sent = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        text = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            text = json.dumps(body)
        try:
            connection.request(method, path, text, {**sent, **(headers or {})})
            answer = connection.getresponse()
            read = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(str(error)) from error
        return answer.status, json.loads(read) if read else None

    def _open(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            context = ssl.create_default_context(cafile=str(self.anchors))
            if self.pair is not None:
                context.load_cert_chain(self.pair.certificate, self.pair.key)
            self._connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=ANSWER_SECONDS, context=context
            )
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def asking(port: int, anchors: Path, **who: Any) -> Iterator[Api]:
    """Ask as somebody."""
    made = Api(port, anchors, **who)
    try:
        yield made
    finally:
        made.close()
