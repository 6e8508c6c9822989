"""A certificate authority made for one test: keys, root, intermediate, server leaf.

The peers' own HTTPS certificates and step-ca's chain come from here.  What a CA
under test signs for its clients doesn't.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME: Final = datetime.timedelta(days=30)
"""Validity of what is made here: beyond any test's life, and soon worthless."""

BACKDATE: Final = datetime.timedelta(hours=1)
"""How far back validity begins, for a test that turns its clock a little."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """Return the private key as PKCS#8 in PEM, encrypted where *password* is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


def real_now() -> datetime.datetime:
    """Return the wall clock's time: what foreign programs verify is dated for real."""
    return datetime.datetime.now(datetime.UTC)  # noqa: TID251  peers can't be handed a time


def make_root(common_name: str) -> Signer:
    """Return a new self-signed root, able to sign one level of intermediates."""
    return _sign_authority(common_name, None, path_length=1)


def make_intermediate(root: Signer, common_name: str) -> Signer:
    """Return a new issuing CA under *root* that can sign no further CA."""
    return _sign_authority(common_name, root, path_length=0)


def make_server(issuer: Signer, hosts: Sequence[str]) -> Signer:
    """Return a TLS server certificate for names and addresses in *hosts*."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begin(hosts[0], issuer.certificate.subject, key.public_key())
    server_auth = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(server_auth, critical=False)
        .add_extension(names, critical=False)
        .add_extension(key_identifier_of(issuer), critical=False)
    )
    return Signer(builder.sign(issuer.key, hashes.SHA256()), key)


def make_client(issuer: Signer, common_name: str) -> Signer:
    """Return a TLS client certificate that says *common_name*."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begin(common_name, issuer.certificate.subject, key.public_key())
    client_auth = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(client_auth, critical=False)
        .add_extension(key_identifier_of(issuer), critical=False)
    )
    return Signer(builder.sign(issuer.key, hashes.SHA256()), key)


def write_server_files(directory: Path, server: Signer, issuer: Signer) -> tuple[Path, Path, Path]:
    """Write certificate, key and the CA bundle to trust; return their paths in that order."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = (directory / "tls.pem", directory / "tls.key", directory / "tls-ca.pem")
    contents = (server.certificate_pem, server.key_pem(), issuer.certificate_pem)
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def key_identifier_of(issuer: Signer) -> x509.AuthorityKeyIdentifier:
    """Return the extension that points to *issuer*'s key (RFC 5280 §4.2.1.1)."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _sign_authority(common_name: str, issuer: Signer | None, *, path_length: int) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(common_name)
    parent = Signer(issuer.certificate, issuer.key) if issuer else None
    builder = _begin(
        common_name, parent.certificate.subject if parent else subject, key.public_key()
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        builder.add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    if parent:
        builder = builder.add_extension(key_identifier_of(parent), critical=False)
    return Signer(builder.sign(parent.key if parent else key, hashes.SHA256()), key)


def _begin(
    common_name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = real_now()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
