"""What a simulated agent is: its identity key, its certificate, and requests signed with it."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from agents import wire

__all__ = ["Identity", "make_csr", "make_key", "spki_sha256", "tls_context"]

COORDINATE_BYTES: Final = 32
"""Length of r and of s of a signature by P-256, in bytes (RFC 9421 §3.3.4)."""


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key, fit for an identity as well as for a certificate."""
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(key: ec.EllipticCurvePrivateKey, names: Sequence[str] = ()) -> bytes:
    """Return a CSR in DER, with *names* as its alternative names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        found = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def spki_sha256(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the SHA-256 of the public key's DER, in lower case hex."""
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def tls_context(anchors: Path, client: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts *anchors* alone and shows the certificate of *client*."""
    context = ssl.create_default_context(cafile=str(anchors))
    if client is not None:
        context.load_cert_chain(client)
    return context


@cache
def _plain_context(anchors: Path) -> ssl.SSLContext:
    return tls_context(anchors)


@dataclass(slots=True)
class Identity:
    """A key, the certificate that the node CA gave it, and the file that holds both."""

    key: ec.EllipticCurvePrivateKey
    file: Path
    node_id: str = ""
    key_id: str = ""
    """SHA-256 of the certificate's DER, in lower case hex; empty before enrolment."""

    @classmethod
    def new(cls, file: Path) -> Identity:
        """Return an identity that nobody has certified yet."""
        return cls(make_key(), file)

    @classmethod
    def load(cls, file: Path) -> Identity:
        """Return the identity that `keep` wrote."""
        pem = file.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        node_id = file.with_suffix(".id").read_text("ascii")
        return cls(key, file, node_id, _key_id(pem))

    def keep(self, chain_pem: bytes, node_id: str) -> None:
        """Take the certificate and write key and chain into the file."""
        key_pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.file.touch(mode=0o600)
        self.file.write_bytes(key_pem + _leaf(chain_pem))
        self.file.with_suffix(".id").write_text(node_id, "ascii")
        self.node_id, self.key_id = node_id, _key_id(chain_pem)

    def context(self, anchors: Path) -> ssl.SSLContext:
        """Return a context that shows this identity, once there is a certificate."""
        return tls_context(anchors, self.file) if self.key_id else _plain_context(anchors)

    def sign(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes,
        *,
        created: int | None = None,
        nonce: str | None = None,
        key_id: str | None = None,
    ) -> Mapping[str, str]:
        """Return the headers that sign a request (RFC 9421); *query* begins with ``?``."""
        digest = wire.content_digest(body)
        parameters = wire.signature_input(
            created=int(time.time()) if created is None else created,  # noqa: TID251  an agent's
            nonce=nonce or secrets.token_urlsafe(16),
            key_id=key_id or self.key_id,
        )
        base = wire.signature_base(
            method=method, path=path, query=query, digest=digest, parameters=parameters
        )
        r, s = decode_dss_signature(self.key.sign(base, ec.ECDSA(hashes.SHA256())))
        raw = r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")
        return {
            "Content-Digest": digest,
            "Signature-Input": f"penstock={parameters}",
            "Signature": f"penstock=:{base64.b64encode(raw).decode()}:",
        }


def _key_id(pem: bytes) -> str:
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.fingerprint(hashes.SHA256()).hex()


def _leaf(chain_pem: bytes) -> bytes:
    """Return the first certificate alone: the broker believes its issuer for itself."""
    end = b"-----END CERTIFICATE-----\n"
    return chain_pem.partition(end)[0] + end
