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
from broker.issuance.planning import decided_retirement, decided_rule, decided_words
from broker.issuance.ports import CertificateStore, Clock, Policies
from broker.issuance.records import CertificateRecord, OrderRecord
from broker.issuance.requesting import decided_requester, is_decided_renewal
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
from broker.protocol.chain_choice import is_wanted
from broker.protocol.csr import parse_csr
from broker.protocol.identifiers import Identifier

__all__ = ["Anchors", "Gate", "Received"]


class Anchors(Protocol):
    """The trust anchors that an upstream's chains have to end at."""

    def of(self, upstream: str, community: str) -> Sequence[bytes] | None:
        """Return DER certificates, or None when none are configured."""
        ...

    def preferred_chain(self, upstream: str, community: str) -> str | None:
        """Return where the chain that is served should lead; None: as the CA says."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A certificate as it came, judged."""

    certificate: CertificateRecord
    """``is_released`` says whether the gate let it through."""
    findings: tuple[Finding, ...]
    policy_sha256: str
    """Of the policies that it was judged by."""
    is_known: bool
    """Whether this very certificate was kept before: then it is somebody's, and stays valid."""
    alternates: tuple[bytes, ...] = ()
    """Other chains of the same leaf that were let through as well, in PEM."""
    withheld_chains: tuple[str, ...] = ()
    """Why each of the chains was kept back that were not."""
    is_wish_missed: bool = False
    """Whether a chain is preferred and the CA offers none that leads there."""


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

    async def judge(
        self, order: OrderRecord, pem: bytes, alternates: Sequence[bytes] = ()
    ) -> Received:
        """Return the certificate with the findings against it.

        *alternates* are other chains that the CA offers.  Each is asked the same as the first; one
        of another leaf, or with a finding, is kept back.  Of those that pass the preferred one is
        served, else the first; if the first is found wanting for where it leads, another takes
        its place.

        Raises:
            ChainError: What came is no certificate chain at all; ask the CA for it again.
        """
        received_at = self._clock.now()
        first = parse_chain(pem)
        is_known = await self._certificates.is_fingerprint_known(first.leaf.fingerprint)
        chains, faults = _same_leaf(first, alternates)
        findings: tuple[Finding, ...] = ()
        passed: list[Chain] = []
        document = self._policies.current(order.community)
        for chain in chains:
            facts = self._facts(order, chain, received_at, is_known=is_known)
            found = decide_issued(document, facts)
            if found:
                findings = findings or found
                faults.append("; ".join(each.sentence for each in found))
            else:
                passed.append(chain)
        if not passed:
            record = _record(order, first, received_at, is_released=False)
            return Received(
                certificate=record,
                findings=findings,
                policy_sha256=document.policy_sha256,
                is_known=is_known,
            )
        chosen, is_missed = self._choose(order, passed)
        return Received(
            certificate=_record(order, chosen, received_at, is_released=True),
            findings=(),
            policy_sha256=document.policy_sha256,
            is_known=is_known,
            alternates=tuple(chain.pem for chain in passed if chain is not chosen),
            withheld_chains=tuple(faults),
            is_wish_missed=is_missed,
        )

    def is_choosing(self, order: OrderRecord) -> bool:
        """Return whether other chains can decide what becomes of the order: where a chain is
        preferred, and where the first may lead to no anchor."""
        where = order.upstream, order.community
        return (
            self._anchors.preferred_chain(*where) is not None
            or self._anchors.of(*where) is not None
        )

    def _choose(self, order: OrderRecord, chains: Sequence[Chain]) -> tuple[Chain, bool]:
        """Return the chain to serve, and whether the one that is preferred is not among them."""
        wish = self._anchors.preferred_chain(order.upstream, order.community)
        if wish is None:
            return chains[0], False
        anchors = self._anchors.of(order.upstream, order.community) or ()
        wanted = next((chain for chain in chains if is_wanted(chain, wish, anchors)), None)
        return wanted or chains[0], wanted is None

    def _facts(
        self, order: OrderRecord, chain: Chain, received_at: datetime, *, is_known: bool
    ) -> IssuedFacts:
        if order.csr_der is None:
            raise ValueError(f"order {order.order_id} is fulfilled without a CSR")
        fault = self._anchor_fault(order, chain, received_at)
        anchors = self._anchors.of(order.upstream, order.community)
        tolerance = order.decision.get("tolerance_seconds")
        retirement = decided_retirement(order.decision)
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
            longest=None if retirement is None else retirement.longest,
            requester=decided_requester(order.decision),
            is_unchanged_renewal=is_decided_renewal(order.decision),
            usages=decided_words(order.decision, "usages"),
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


def _same_leaf(first: Chain, alternates: Sequence[bytes]) -> tuple[list[Chain], list[str]]:
    """Return the chains of the one leaf, each once, and why others are none of them."""
    chains, faults = [first], []
    for pem in alternates:
        try:
            chain = parse_chain(pem)
        except ChainError as fault:
            faults.append(str(fault))
            continue
        if chain.leaf.der != first.leaf.der:
            faults.append("chain is for another certificate than the first")
        elif all(chain.issuers != known.issuers for known in chains):
            chains.append(chain)
    return chains, faults


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
