"""Pairs of key and certificate for the servers of this suite."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.peers import authority

NAME: Final = "host.example"
"""What every server here is called."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its certificate."""

    key_pem: bytes
    certificate_pem: bytes
    fingerprint: str


def make_pair(*names: str, is_rsa: bool = False) -> Pair:
    """Return a new pair for *names*, with an EC key or an RSA one."""
    root = authority.make_root("Root of the servers")
    made = authority.make_server(root, names or (NAME,))
    certificate, key_pem = made.certificate, made.key_pem()
    if is_rsa:
        key = rsa.generate_private_key(65537, 2048)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        builder = (
            x509.CertificateBuilder()
            .subject_name(certificate.subject)
            .issuer_name(certificate.issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(certificate.not_valid_before_utc)
            .not_valid_after(certificate.not_valid_after_utc)
        )
        for extension in certificate.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(root.key, hashes.SHA256())
    fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return Pair(key_pem, certificate.public_bytes(Encoding.PEM), fingerprint)


def put(pair: Pair, folder: Path) -> str:
    """Put *pair* into *folder* in both layouts, each file at once; return the fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("fullchain.pem", pair.certificate_pem),
        ("privkey.pem", pair.key_pem),
        ("server.pem", pair.certificate_pem + pair.key_pem),
    ):
        beside = folder / f".{name}"
        beside.write_bytes(content)
        os.replace(beside, folder / name)
    return pair.fingerprint
