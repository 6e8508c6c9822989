"""An order of a case, carried through the three times that policy is asked about it.

The CSR and the certificate of a case are described, never made: the values that checks look at are
put together here, as the parsers would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from broker.policy.case_form import Given, GivenCertificate, GivenCsr, Stage
from broker.policy.chains import decide_finalize, decide_issued, decide_new_order
from broker.policy.decisions import (
    CapPlan,
    EabGrant,
    FinalizeFacts,
    Finding,
    IssuedFacts,
    NewOrderDecision,
    NewOrderFacts,
)
from broker.policy.document import KEY_USAGE_NAMES, PolicyDocument
from broker.policy.requesters import ClientCertificate, Requester
from broker.policy.upstream_facts import UpstreamDescription, facts_for
from broker.policy.words import USAGE_OIDS
from broker.protocol.certificates import Chain, ParsedCertificate
from broker.protocol.csr import ParsedCsr
from broker.protocol.identifiers import Identifier, parse_written_identifier

__all__ = ["Story", "requester_of", "tell_story"]

_THE_KEY: Final = b"the key of the case's CSR"
"""What stands for the key of a CSR: checks compare it and read nothing in it."""

_ANOTHER_KEY: Final = b"another key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What became of an order."""

    decision: NewOrderDecision
    stage: Stage
    """The last time that policy was asked."""
    findings: tuple[Finding, ...]
    """What was found then."""
    is_refused: bool


def tell_story(
    document: PolicyDocument, given: Given, descriptions: Mapping[str, UpstreamDescription]
) -> Story:
    """Return what *document* makes of the order that *given* describes.

    Raises:
        Problem: A name is neither a DNS name nor an address.
        UnknownDescription: An upstream's description is not there.
    """
    facts = _facts(document, given, descriptions)
    decision = decide_new_order(document, facts)
    plan, profile = decision.plan, decision.profile
    if decision.is_refused or plan is None or profile is None:
        return Story(
            decision=decision,
            stage=Stage.NEW_ORDER,
            findings=decision.findings,
            is_refused=True,
        )
    last = Story(decision=decision, stage=Stage.NEW_ORDER, findings=(), is_refused=False)
    if given.csr is None and given.certificate is None:
        return last
    csr = _csr(given.csr or GivenCsr(), facts.identifiers)
    found = decide_finalize(document, _finalize_facts(given, facts, decision, csr))
    if found or given.certificate is None:
        return Story(
            decision=decision, stage=Stage.FINALIZE, findings=found, is_refused=bool(found)
        )
    issued = _issued_facts(document, given, facts, plan, csr)
    found = decide_issued(document, issued)
    return Story(decision=decision, stage=Stage.ISSUED, findings=found, is_refused=bool(found))


def requester_of(given: Given) -> Requester:
    """Return who asks, as rules look at it."""
    who = given.requester
    shown = who.client_certificate
    return Requester(
        thumbprint=who.account or "",
        eab_key_id=None if given.eab is None else given.eab.key_id,
        node=who.node,
        cluster=who.cluster,
        namespace=who.namespace,
        service_account=who.service_account,
        attestation=who.attestation,
        address=who.address,
        client_certificate=None
        if shown is None
        else ClientCertificate(fingerprint=shown.fingerprint, names=shown.names),
        owner=who.owner,
    )


BUILT_IN: Final = "built-in"
"""What the description of a CA of our own is called."""


def _grant(given: Given) -> EabGrant | None:
    eab, who = given.eab, given.requester
    if eab is not None:
        return EabGrant(key_id=eab.key_id, names=eab.names, profiles=eab.profiles)
    if who.node is None:
        return None
    return EabGrant(
        key_id="",
        names=(),
        profiles=(),
        node=who.node,
        cluster=who.cluster,
        namespace=who.namespace,
        service_account=who.service_account,
        attestation=who.attestation,
    )


def _facts(
    document: PolicyDocument, given: Given, descriptions: Mapping[str, UpstreamDescription]
) -> NewOrderFacts:
    return NewOrderFacts(
        community=document.community,
        identifiers=tuple(parse_written_identifier(name) for name in given.names),
        profile=given.profile,
        not_before=None,
        not_after=None if given.not_after is None else given.at + given.not_after,
        at=given.at,
        account_thumbprint=given.requester.account or "",
        eab=_grant(given),
        public_suffixes=frozenset(given.public_suffixes),
        upstreams=tuple(
            replace(
                facts_for(upstream.name, upstream.description, upstream.overrides, descriptions),
                is_builtin=upstream.description == BUILT_IN,
            )
            for upstream in given.upstreams
        ),
        suspended=frozenset(
            (upstream.name, profile)
            for upstream in given.upstreams
            for profile in upstream.suspended
        ),
        requester=requester_of(given),
        is_unchanged_renewal=given.renewal,
    )


def _csr(given: GivenCsr, ordered: tuple[Identifier, ...]) -> ParsedCsr:
    names = (
        ordered if given.names is None else tuple(parse_written_identifier(n) for n in given.names)
    )
    return ParsedCsr(
        der=b"",
        spki_der=_THE_KEY,
        spki_sha256="",
        public_key=None,
        key_kind=given.key,
        key_thumbprint=None,
        identifiers=frozenset(names),
        must_staple=given.must_staple,
        requests_ca=given.asks_for_ca,
        key_usages=frozenset(KEY_USAGE_NAMES[usage] for usage in given.key_usages),
        extended_key_usages=frozenset(USAGE_OIDS[usage] for usage in given.usages),
        other_extensions=frozenset(given.extensions),
        subject_other=given.subject,
    )


def _finalize_facts(
    given: Given, facts: NewOrderFacts, decision: NewOrderDecision, csr: ParsedCsr
) -> FinalizeFacts:
    described = given.csr or GivenCsr()
    return FinalizeFacts(
        identifiers=facts.identifiers,
        profile=decision.profile or "",
        csr=csr,
        is_account_key=described.is_account_key,
        weaknesses=described.weaknesses,
        eab=facts.eab,
        at=facts.at,
        granted=frozenset(
            one for one, need in decision.requirements.items() if need.granted_by is not None
        ),
        requester=facts.requester,
        is_unchanged_renewal=facts.is_unchanged_renewal,
    )


def _issued_facts(
    document: PolicyDocument, given: Given, facts: NewOrderFacts, plan: CapPlan, csr: ParsedCsr
) -> IssuedFacts:
    described = given.certificate or GivenCertificate()
    profile = document.profile(given.profile)
    longest = None if plan.retirement is None else plan.retirement.longest
    end = given.not_after or plan.cap
    usages = frozenset() if profile is None else profile.usages
    if described.usages is not None:
        usages = frozenset(USAGE_OIDS[usage] for usage in described.usages)
    names = described.names
    leaf = _leaf(
        given,
        names=frozenset(
            facts.identifiers if names is None else [parse_written_identifier(n) for n in names]
        ),
        usages=usages,
        end=described.lifetime or end,
    )
    return IssuedFacts(
        identifiers=facts.identifiers,
        profile="" if profile is None else profile.name,
        csr=csr,
        chain=Chain(leaf, (), b""),
        is_chain_anchored=described.anchored,
        anchor_fault=None if described.anchored else "the case says so",
        is_known=described.seen_before,
        received_at=given.at,
        cap=plan.cap,
        tolerance=plan.tolerance,
        not_before=None,
        not_after=facts.not_after,
        rule=plan.rule,
        longest=longest,
        requester=facts.requester,
        is_unchanged_renewal=facts.is_unchanged_renewal,
    )


def _leaf(
    given: Given, *, names: frozenset[Identifier], usages: frozenset[str], end: timedelta
) -> ParsedCertificate:
    described = given.certificate or GivenCertificate()
    return ParsedCertificate(
        der=b"",
        fingerprint="",
        serial="01",
        not_before=given.at,
        not_after=given.at + end,
        issuer="CN=the CA of the case",
        subject="",
        common_name=None,
        identifiers=names,
        other_names=(),
        spki_der=_THE_KEY if described.key == "same" else _ANOTHER_KEY,
        key_kind=(given.csr or GivenCsr()).key,
        is_ca=described.is_ca,
        path_length=None,
        key_usages=frozenset({"digitalSignature"}),
        extended_key_usages=usages,
        authority_key_id=None,
        subject_key_id=None,
        extension_oids=frozenset(described.extensions),
        critical_oids=frozenset(),
    )
