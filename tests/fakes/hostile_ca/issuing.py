"""Signing for real, and as wrongly as the behaviour of an order says."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.hostile_ca.script import Behaviour, Chain
from tests.peers import authority

MANY: int = 50
BIG_BYTES: int = 10 * 1024 * 1024


class Issuer:
    """The keys of the CA: a root, an intermediate, and a stranger with the same name."""

    def __init__(self) -> None:
        self.root = authority.make_root("hostile root")
        self.intermediate = authority.make_intermediate(self.root, "hostile intermediate")
        self.stranger = authority.make_intermediate(
            authority.make_root("stranger root"), "hostile intermediate"
        )

    def sign(
        self,
        csr: x509.CertificateSigningRequest,
        names: Sequence[str],
        behaviour: Behaviour,
        not_after: datetime.datetime | None,
        lifetime_seconds: int,
    ) -> x509.Certificate:
        """Return a certificate for *csr*, with everything *behaviour* gets wrong."""
        start, end = validity(behaviour, not_after, lifetime_seconds)
        key = csr.public_key()
        if behaviour.other_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        granted = [name for name in names if name not in behaviour.missing_names]
        granted += behaviour.extra_names
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.intermediate.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )
        signer = self.stranger if behaviour.self_issued else self.intermediate
        for extension, critical in extensions(behaviour, granted, signer):
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer.key, hashes.SHA256())

    def answer(self, certificate: x509.Certificate, shape: Chain) -> bytes:
        """Return the body that a client gets for *certificate*."""
        leaf = certificate.public_bytes(serialization.Encoding.PEM)
        middle, root = self.intermediate.certificate_pem, self.root.certificate_pem
        match shape:
            case Chain.HONEST:
                return leaf + middle
            case Chain.INTERMEDIATE_FIRST:
                return middle + leaf
            case Chain.NO_INTERMEDIATE:
                return leaf
            case Chain.WITH_ROOT:
                return leaf + middle + root
            case Chain.WITH_STRANGER:
                return leaf + middle + self.stranger.certificate_pem
            case Chain.WITH_KEY:
                return leaf + middle + self.stranger.key_pem()
            case Chain.FIFTY:
                return leaf + middle * (MANY - 1)
            case Chain.TEN_MEGABYTES:
                return leaf + middle * (BIG_BYTES // len(middle))
            case Chain.HTML:
                return b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
            case Chain.EMPTY:
                return b""
            case Chain.NEWLINE:
                return b"\n"


def validity(
    behaviour: Behaviour, not_after: datetime.datetime | None, lifetime_seconds: int
) -> tuple[datetime.datetime, datetime.datetime]:
    """Return start and end of a certificate; the end is where most lies are."""
    now = authority.real_now().replace(microsecond=0)
    start = now + datetime.timedelta(seconds=behaviour.starts_in_seconds)
    if behaviour.ends_in_seconds is not None:
        end = now + datetime.timedelta(seconds=behaviour.ends_in_seconds)
        return min(start, end - datetime.timedelta(days=1)), end
    end = not_after or now + datetime.timedelta(seconds=lifetime_seconds)
    end += datetime.timedelta(seconds=behaviour.extra_lifetime_seconds)
    return start, end


def extensions(
    behaviour: Behaviour, names: Sequence[str], signer: authority.Signer
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of a leaf, with criticality."""
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=behaviour.is_ca,
        crl_sign=behaviour.is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    usages = [x509.ObjectIdentifier(each) for each in behaviour.extended_key_usages]
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=behaviour.is_ca, path_length=None), True),
        (usage, True),
        (authority.key_identifier_of(signer), False),
    ]
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        found.append((san, True))  # critical, for the subject is empty: RFC 5280 §4.2.1.6
    if usages:
        found.append((x509.ExtendedKeyUsage(usages), False))
    for identifier, value in behaviour.extra_extensions.items():
        oid = x509.ObjectIdentifier(identifier)
        found.append((x509.UnrecognizedExtension(oid, bytes.fromhex(value)), False))
    return found
