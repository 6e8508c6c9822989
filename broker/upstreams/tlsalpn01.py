"""The certificates that Penstock's own listener shows to CAs (RFC 8737, RFC 8738 §6).

Only a table: the listener stands elsewhere.  It is empty but for the minutes in which a CA looks,
and a name that nobody asked us for gets no handshake.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.protocol.challenges import (
    ACME_IDENTIFIER_OID,
    ACME_TLS_PROTOCOL,
    tls_alpn01_server_name,
)
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["TlsAlpn01Answers", "proof_certificate"]

BACKDATE: Final = timedelta(days=1)
"""How far back the certificate begins: no CA checks its times, and none shall stumble on them."""

LIFETIME: Final = timedelta(days=7)
"""How long it lasts; a challenge takes minutes."""

_SHA256_OCTET_STRING: Final = b"\x04\x20"
"""DER header of an OCTET STRING of 32 octets."""


class TlsAlpn01Answers:
    """Which name is answered with which certificate.

    Two challenges for one name at a time (two orders, or two CAs) cannot both be answered: a
    handshake names the host and nothing else.  The last one stands, and the other is answered
    again when that is withdrawn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._contexts: dict[str, dict[str, ssl.SSLContext]] = {}

    def __len__(self) -> int:
        return len(self._contexts)

    def add(self, identifier: Identifier, key_authorization: str) -> None:
        """Answer for *identifier* with a certificate that proves *key_authorization*.

        Raises:
            Broken: The certificate cannot be loaded here.
        """
        name = tls_alpn01_server_name(identifier)
        if key_authorization in self._contexts.get(name, {}):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = proof_certificate(identifier, key_authorization, key, self._clock)
        context = _context(certificate, key)
        self._contexts.setdefault(name, {})[key_authorization] = context

    def remove(self, identifier: Identifier, key_authorization: str) -> None:
        """Answer no more with that certificate; one that is not there is no error."""
        name = tls_alpn01_server_name(identifier)
        left = self._contexts.get(name, {})
        left.pop(key_authorization, None)
        if not left:
            self._contexts.pop(name, None)

    def find(self, server_name: str) -> ssl.SSLContext | None:
        """Return what a handshake for *server_name* is answered with, or None for nothing."""
        found = self._contexts.get(server_name.lower().removesuffix("."), {})
        return next(reversed(found.values()), None)


def proof_certificate(
    identifier: Identifier,
    key_authorization: str,
    key: ec.EllipticCurvePrivateKey,
    clock: Clock,
) -> x509.Certificate:
    """Return the self-signed certificate of RFC 8737 §3: one name, and the proof, critical."""
    name: x509.GeneralName
    if identifier.type is IdentifierType.IP:
        name = x509.IPAddress(ipaddress.ip_address(identifier.value))
    else:
        name = x509.DNSName(identifier.value)
    digest = hashlib.sha256(key_authorization.encode("ascii")).digest()
    proof = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(ACME_IDENTIFIER_OID), _SHA256_OCTET_STRING + digest
    )
    now = clock.now()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME Challenge")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(proof, critical=True)
        .sign(key, hashes.SHA256())
    )


def _context(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    """Return a TLS context that shows *certificate* and speaks nothing but ``acme-tls/1``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ACME_TLS_PROTOCOL])
    pem = certificate.public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The library reads files alone.  This one lies in memory and has no name elsewhere.
    handle = os.memfd_create("acme-tls")
    try:
        os.write(handle, pem)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    except (OSError, ssl.SSLError) as error:
        raise Broken(f"certificate of a tls-alpn-01 answer cannot be loaded: {error}") from error
    finally:
        os.close(handle)
    return context
