"""The node CA: the built-in CA that certifies nodes to the broker, and the anchors that follow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.config.agents import NodeIdentity
from broker.issuance.errors import Broken, Refused
from broker.issuance.node_ports import IssuedIdentity
from broker.issuance.ports import UpstreamRequest
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from broker.upstreams.builtin import BuiltinCa

__all__ = ["NodeCa"]

PRIVILEGE_WITHDRAWN: Final = 9
"""Reason of a node's revocation (RFC 5280 §5.3.1)."""


class NodeCa:
    """The port IdentityIssuer over a built-in CA."""

    def __init__(self, section: NodeIdentity, find: Callable[[str], BuiltinCa | None]) -> None:
        self._section = section
        self._find = find

    async def issue(self, node_id: str, spki_der: bytes, reference: str) -> IssuedIdentity:
        """Certify a node's key; the same *reference* has the same certificate."""
        request = UpstreamRequest(
            reference=reference,
            identifiers=(Identifier(IdentifierType.DNS, f"{node_id}.{self._section.domain}"),),
            profile=self._section.profile,
            not_after=None,
        )
        chain_pem = await self._ca().certify(request, spki_der)
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        # The leaf alone: the broker knows its own issuers, and what an agent shows beside it lies
        # in the memory of its connection for as long as that lasts.
        leaf_der = leaf.public_bytes(Encoding.DER)
        return IssuedIdentity(
            chain_pem=leaf.public_bytes(Encoding.PEM),
            certificate_der=leaf_der,
            fingerprint=hashlib.sha256(leaf_der).hexdigest(),
            not_after=leaf.not_valid_after_utc,
        )

    async def revoke(self, certificate_der: bytes) -> None:
        """Put it on the CA's list; one that is there already is no error."""
        try:
            await self._ca().revoke(certificate_der, PRIVILEGE_WITHDRAWN)
        except Refused as refusal:
            if refusal.problem.type is not ProblemType.ALREADY_REVOKED:
                raise

    def anchors(self) -> frozenset[bytes]:
        """Return the DER of every CA that signed an identity which may be alive: all issuers that
        there ever were, and their roots.  Whether one is believed is on record, not here."""
        ca = self._find(self._section.upstream)
        if ca is None:
            return frozenset()
        issuers = (*ca.issuers, *(one.authority for one in ca.issuers.retired))
        certificates = {one.certificate for one in issuers} | {
            one.parent for one in issuers if one.parent is not None
        }
        return frozenset(one.public_bytes(Encoding.DER) for one in certificates)

    def _ca(self) -> BuiltinCa:
        found = self._find(self._section.upstream)
        if found is None:
            raise Broken(
                f"node CA '{self._section.upstream}' has not been made; run penstock ca init first"
            )
        return found
