"""A certificate authority for CSRs that devices make, and the agent's side of a device."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from agents.config import CertificateSection, DriverSection, ExpectsSection, KeyKind, KeySection
from tests.peers import authority

NAMES = ("bmc-1.example", "192.0.2.7")


def program(driver: str, settings: Path) -> tuple[str, ...]:
    """Return the command of a worked driver with its file of settings."""
    home = Path(__file__).parents[3]
    python = ("/usr/bin/env", f"PYTHONPATH={home}", sys.executable)
    return (*python, "-m", f"agents.drivers_{driver}", str(settings))


def section_of(
    command: tuple[str, ...], *names: str, kind: KeyKind = KeyKind.EC_P256
) -> CertificateSection:
    """Return the configuration of a certificate whose device is reached by *command*."""
    return CertificateSection(
        name="device",
        names=names or NAMES,
        key=KeySection(kind=kind),
        files=None,
        expects=ExpectsSection(anchors=None),
        driver=DriverSection(command=command),
    )


def sign(csr_der: bytes, issuer: authority.Signer) -> tuple[str, str]:
    """Return the chain that *issuer* makes of a CSR, and the leaf's fingerprint."""
    csr = x509.load_der_x509_csr(csr_der)
    assert csr.is_signature_valid
    public = csr.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    now = authority.real_now()
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - authority.BACKDATE)
        .not_valid_after(now + authority.LIFETIME)
        .add_extension(names, critical=True)
        .sign(issuer.key, hashes.SHA256())
    )
    chain = made.public_bytes(Encoding.PEM) + issuer.certificate_pem
    return chain.decode(), hashlib.sha256(made.public_bytes(Encoding.DER)).hexdigest()


def names_in(csr_der: bytes) -> set[str]:
    """Return the names that a CSR asks for."""
    csr = x509.load_der_x509_csr(csr_der)
    found = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in found}


def write(path: Path, text: str) -> Path:
    """Write *text* as a program."""
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path
