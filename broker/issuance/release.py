"""The release gate: what came back from an upstream is read before anybody gets it.

House rule: mandatory code, not policy.  Policy says what is asked of the certificate; this module
makes sure that the question is put, and turns the answer into a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from broker.issuance.accounts import new_id
from broker.issuance.planning import decided_rule
from broker.issuance.ports import CertificateStore, Clock, Policies
from broker.issuance.records import CertificateRecord, OrderRecord
from broker.policy.chains import decide_issued
from broker.policy.decisions import Finding, IssuedFacts
from broker.protocol.certificates import (
    Chain,
    ChainError,
    ParsedCertificate,
    cert_id,
    parse_chain,
    verify_chain_anchored,
)
from broker.protocol.csr import parse_csr
from broker.protocol.identifiers import Identifier

__all__ = ["Anchors", "Gate", "Received"]


class Anchors(Protocol):
    """The trust anchors that an upstream's chains have to end at."""

    def of(self, upstream: str, community: str) -> Sequence[bytes] | None:
        """Return DER certificates, or None when none are configured."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A certificate as it came, judged."""

    certificate: CertificateRecord
    """``is_released`` says whether the gate let it through."""
    findings: tuple[Finding, ...]
    is_known: bool
    """Whether this very certificate was kept before: then it is somebody's, and stays valid."""


class Gate:
    """Judges what upstreams send."""

    def __init__(
        self,
        certificates: CertificateStore,
        policies: Policies,
        anchors: Anchors,
        clock: Clock,
    ) -> None:
        self._certificates = certificates
        self._policies = policies
        self._anchors = anchors
        self._clock = clock

    async def judge(self, order: OrderRecord, pem: bytes) -> Received:
        """Return the certificate with the findings against it.

        Raises:
            ChainError: What came is no certificate chain at all; ask the CA for it again.
        """
        received_at = self._clock.now()
        chain = parse_chain(pem)
        is_known = await self._certificates.is_fingerprint_known(chain.leaf.fingerprint)
        facts = self._facts(order, chain, received_at, is_known=is_known)
        findings = decide_issued(self._policies.current(order.community), facts)
        record = _record(order, chain, received_at, is_released=not findings)
        return Received(certificate=record, findings=findings, is_known=is_known)

    def _facts(
        self, order: OrderRecord, chain: Chain, received_at: datetime, *, is_known: bool
    ) -> IssuedFacts:
        if order.csr_der is None:
            raise ValueError(f"order {order.order_id} is fulfilled without a CSR")
        fault = self._anchor_fault(order, chain, received_at)
        anchors = self._anchors.of(order.upstream, order.community)
        tolerance = order.decision.get("tolerance_seconds")
        return IssuedFacts(
            identifiers=order.identifiers,
            profile=order.profile,
            csr=parse_csr(order.csr_der),
            chain=chain,
            is_chain_anchored=None if anchors is None else fault is None,
            anchor_fault=fault,
            is_known=is_known,
            received_at=received_at,
            cap=timedelta(seconds=order.cap_seconds),
            tolerance=timedelta(seconds=tolerance if isinstance(tolerance, int) else 0),
            not_before=order.not_before,
            not_after=order.not_after,
            rule=decided_rule(order.decision),
        )

    def _anchor_fault(self, order: OrderRecord, chain: Chain, at: datetime) -> str | None:
        anchors = self._anchors.of(order.upstream, order.community)
        if anchors is None:
            return None
        try:
            verify_chain_anchored(chain, anchors, at)
        except ChainError as fault:
            return str(fault)
        return None


def _record(
    order: OrderRecord, chain: Chain, received_at: datetime, *, is_released: bool
) -> CertificateRecord:
    leaf = chain.leaf
    return CertificateRecord(
        certificate_id=new_id(),
        order_id=order.order_id,
        account_id=order.account_id,
        community=order.community,
        upstream=order.upstream,
        fingerprint=leaf.fingerprint,
        serial=leaf.serial,
        cert_id=_cert_id(leaf),
        chain_pem=chain.pem,
        leaf_der=leaf.der,
        identifiers=_sorted(leaf.identifiers),
        spki_sha256=hashlib.sha256(leaf.spki_der).hexdigest(),
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        received_at=received_at,
        is_released=is_released,
    )


def _cert_id(leaf: ParsedCertificate) -> str | None:
    return cert_id(leaf) if leaf.authority_key_id else None


def _sorted(identifiers: frozenset[Identifier]) -> tuple[Identifier, ...]:
    return tuple(sorted(identifiers))
