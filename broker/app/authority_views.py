"""A built-in CA as the operator is shown it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.app.authority_register import CaRegistry
from broker.issuance.records import CaMember
from broker.upstreams.authority import Authority
from broker.upstreams.authority_state import CaState

__all__ = ["ca_view"]


async def ca_view(registry: CaRegistry, upstream: str, state: CaState) -> Mapping[str, object]:
    """Return root, issuers with what depends on each, and a waiting request."""
    root = state.root
    issuers = [one for one in state.members if one.certificate_der is not None and one.key_id]
    return {
        "upstream": upstream,
        "root": None if root is None else _certificate_view(root),
        "root_pem": None if root is None else _pem(root),
        "root_key": "offline" if state.root_key_id is None else state.root_key_id,
        "issuers": [
            await _issuer_view(registry, one) for one in issuers if one.key_id != state.root_key_id
        ],
        "pending": None if state.pending is None else state.pending.subject,
    }


async def _issuer_view(registry: CaRegistry, member: CaMember) -> Mapping[str, object]:
    certificate = x509.load_der_x509_certificate(member.certificate_der or b"")
    key_id = member.key_id or ""
    in_force, _ = await registry.store.ca_dependents(member.ca, key_id, registry.clock.now(), 0)
    return {
        "role": member.role.value,
        "key_id": key_id,
        "published_as": Authority(key_id, certificate).published_name,
        **_certificate_view(certificate),
        "in_force": in_force,
        "pem": _pem(certificate),
    }


def _certificate_view(certificate: x509.Certificate) -> Mapping[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": certificate.fingerprint(hashes.SHA256()).hex(),
        "spki_sha256": _spki_sha256(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


def _spki_sha256(certificate: x509.Certificate) -> str:
    """Return what two people compare who want to know that they speak of the same key."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(spki).hexdigest()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
