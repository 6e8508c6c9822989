"""Which checks run when, in which order, and the decisions that come of it.

The order is part of the policy's meaning, since an identifier is refused once, by the first
check that finds something: a test pins it.  A chain without checks refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from broker.policy import checks, checks_csr, checks_issued, checks_rules
from broker.policy.checks import Case, Check, CheckName, IdentifierCheck, OrderCheck
from broker.policy.checks_rules import shortfalls
from broker.policy.communities import requirement_for
from broker.policy.decisions import (
    EabGrant,
    FinalizeFacts,
    Finding,
    IssuedFacts,
    NewOrderDecision,
    NewOrderFacts,
)
from broker.policy.document import PolicyDocument
from broker.policy.grounds import Ground, grounds_of
from broker.policy.rulings import (
    NO_RULING,
    Hit,
    Ruling,
    narrowed,
    rule_on,
    subject_of,
    unbudgeted,
)
from broker.policy.validity import CapRuling, Judgement, judge_choices, rule_cap
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import ProblemType

__all__ = [
    "FINALIZE",
    "ISSUED",
    "NEW_ORDER",
    "ONLY_TOLD",
    "UPSTREAM_BREACHES",
    "Explanation",
    "Step",
    "decide_finalize",
    "decide_issued",
    "decide_new_order",
    "explain_name",
    "warn_finalize",
]

F = TypeVar("F")
Facts = TypeVar("Facts", NewOrderFacts, FinalizeFacts, IssuedFacts)

MAX_WARNED_APART: Final = 20
"""Most rules that only warn which are tried each on its own: every one costs a decision."""

NEW_ORDER: Final[tuple[Check[NewOrderFacts], ...]] = (
    OrderCheck(CheckName.PROFILE_OFFERED, checks.profile_offered, is_gate=True),
    OrderCheck(CheckName.IDENTIFIERS_PRESENT, checks.identifiers_present),
    OrderCheck(CheckName.NOT_BEFORE, checks.not_before),
    OrderCheck(CheckName.EAB_PROFILE, checks_rules.eab_profile),
    IdentifierCheck(CheckName.IDENTIFIER_TYPE, checks.identifier_type),
    IdentifierCheck(CheckName.ADDRESS_RESERVED, checks.address_reserved),
    IdentifierCheck(CheckName.PUBLIC_SUFFIX, checks.public_suffix),
    IdentifierCheck(CheckName.NAME_DENIED, checks.name_denied),
    IdentifierCheck(CheckName.NAME_ALLOWED, checks.name_allowed),
    IdentifierCheck(CheckName.PROFILE_NAMES, checks.profile_names),
    IdentifierCheck(CheckName.WILDCARD_ALLOWED, checks.wildcard_allowed),
    IdentifierCheck(CheckName.EAB_NAMES, checks_rules.eab_names),
    OrderCheck(CheckName.RULE_UNSURE, checks_rules.rule_unsure),
    OrderCheck(CheckName.RULE_REFUSED, checks_rules.rule_refused),
    IdentifierCheck(CheckName.RULE_REFUSED_NAME, checks_rules.rule_refused_name),
    OrderCheck(CheckName.OWNER_REQUIRED, checks_rules.owner_required),
    OrderCheck(CheckName.ATTESTATION_REQUIRED, checks_rules.attestation_required),
    IdentifierCheck(CheckName.CONTROL_PROVABLE, checks.control_provable),
    IdentifierCheck(CheckName.PRIVATE_NAME, checks.private_name),
    OrderCheck(CheckName.NOT_AFTER, checks.not_after),
    OrderCheck(CheckName.CAP_PLAN, checks.cap_plan, needs_all=True),
)
"""What is asked before an order is made."""

FINALIZE: Final[tuple[Check[FinalizeFacts], ...]] = (
    OrderCheck(CheckName.PROFILE_OFFERED, checks.profile_offered, is_gate=True),
    OrderCheck(CheckName.IDENTIFIERS_PRESENT, checks.identifiers_present),
    OrderCheck(CheckName.EAB_PROFILE, checks_rules.eab_profile),
    IdentifierCheck(CheckName.IDENTIFIER_TYPE, checks.identifier_type),
    IdentifierCheck(CheckName.NAME_DENIED, checks.name_denied),
    IdentifierCheck(CheckName.NAME_ALLOWED, checks.name_allowed),
    IdentifierCheck(CheckName.PROFILE_NAMES, checks.profile_names),
    IdentifierCheck(CheckName.WILDCARD_ALLOWED, checks.wildcard_allowed),
    IdentifierCheck(CheckName.EAB_NAMES, checks_rules.eab_names),
    OrderCheck(CheckName.RULE_UNSURE, checks_rules.rule_unsure),
    OrderCheck(CheckName.RULE_REFUSED, checks_rules.rule_refused),
    IdentifierCheck(CheckName.RULE_REFUSED_NAME, checks_rules.rule_refused_name),
    OrderCheck(CheckName.OWNER_REQUIRED, checks_rules.owner_required),
    OrderCheck(CheckName.ATTESTATION_REQUIRED, checks_rules.attestation_required),
    IdentifierCheck(CheckName.GRANT_STANDS, checks_csr.grant_stands),
    OrderCheck(CheckName.CSR_NAMES, checks_csr.csr_names),
    OrderCheck(CheckName.CSR_SUBJECT, checks_csr.csr_subject),
    OrderCheck(CheckName.CSR_CA, checks_csr.csr_ca),
    OrderCheck(CheckName.CSR_KEY_USAGES, checks_csr.csr_key_usages),
    OrderCheck(CheckName.CSR_EXTENDED_KEY_USAGES, checks_csr.csr_extended_key_usages),
    OrderCheck(CheckName.CSR_EXTENSIONS, checks_csr.csr_extensions),
    OrderCheck(CheckName.CSR_MUST_STAPLE, checks_csr.csr_must_staple),
    OrderCheck(CheckName.KEY_KIND, checks_csr.key_kind),
    OrderCheck(CheckName.KEY_IS_ACCOUNT_KEY, checks_csr.key_is_account_key),
    OrderCheck(CheckName.KEY_WEAK, checks_csr.key_weak),
)
"""What is asked when a CSR arrives: policy may have changed since newOrder, and the stricter of
the two versions holds."""

ISSUED: Final[tuple[Check[IssuedFacts], ...]] = (
    OrderCheck(CheckName.PROFILE_OFFERED, checks.profile_offered, is_gate=True),
    OrderCheck(CheckName.IDENTIFIERS_PRESENT, checks.identifiers_present),
    OrderCheck(CheckName.ISSUED_KEY, checks_issued.issued_key),
    OrderCheck(CheckName.ISSUED_NAMES, checks_issued.issued_names),
    OrderCheck(CheckName.ISSUED_END, checks_issued.issued_end),
    OrderCheck(CheckName.ISSUED_ASKED_DATES, checks_issued.issued_asked_dates),
    OrderCheck(CheckName.ISSUED_START, checks_issued.issued_start),
    OrderCheck(CheckName.ISSUED_CA, checks_issued.issued_ca),
    OrderCheck(CheckName.ISSUED_KEY_USAGES, checks_issued.issued_key_usages),
    OrderCheck(CheckName.ISSUED_EXTENDED_KEY_USAGES, checks_issued.issued_extended_key_usages),
    OrderCheck(CheckName.ISSUED_EXTENSIONS, checks_issued.issued_extensions),
    OrderCheck(CheckName.ISSUED_ANCHOR, checks_issued.issued_anchor),
    OrderCheck(CheckName.ISSUED_ONCE, checks_issued.issued_once),
)
"""What is asked of a certificate before it is released."""

ONLY_TOLD: Final = frozenset({CheckName.RULE_NARROWS, CheckName.APPROVAL_REQUIRED})
"""Names under which warnings tell what is no refusal: what would be narrowed, who be asked."""

UPSTREAM_BREACHES: Final = frozenset(
    check.name for check in ISSUED if check.name.startswith("issued-")
)
"""Checks of ISSUED whose finding is the upstream's fault, and a reason to suspend it.

The others can find that policy changed while the upstream was at work: the certificate is
withheld and revoked all the same, and the upstream did nothing wrong.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One check that ran, and what it found."""

    check: CheckName
    findings: tuple[Finding, ...]
    grounds: tuple[Ground, ...] = ()
    """The rules that let it pass; filled by `explain_name` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a newOrder is decided as it is."""

    decision: NewOrderDecision
    steps: tuple[Step, ...]
    """Every check of NEW_ORDER that ran, in order."""
    not_run: tuple[CheckName, ...]
    """Checks that would have asked about an order that passed those before."""
    ruling: CapRuling | None
    """The cap and every rule that had a say; None without a profile."""
    choices: tuple[Judgement, ...]
    """What became of each upstream of the profile."""
    rules: Ruling = NO_RULING
    """The rules that speak of the order, enforced or not."""


def run_chain(chain: Sequence[Check[F]], case: Case[F]) -> tuple[Step, ...]:
    """Return what each check of *chain* finds, up to a gate that finds something.

    An identifier that one check refuses is not looked at by the next.
    """
    if not chain:
        return (Step(CheckName.CHAIN_EMPTY, (_EMPTY_CHAIN,)),)
    steps: list[Step] = []
    refused: set[Identifier] = set()
    for check in chain:
        if isinstance(check, IdentifierCheck):
            standing = [name for name in dict.fromkeys(case.identifiers) if name not in refused]
            seen = [(name, check.look(case, name)) for name in standing]
            refused |= {name for name, finding in seen if finding is not None}
            found = tuple(finding for _, finding in seen if finding is not None)
        elif check.needs_all and any(step.findings for step in steps):
            continue
        else:
            finding = check.look(case)
            found = () if finding is None else (finding,)
        steps.append(Step(check.name, found))
        if found and isinstance(check, OrderCheck) and check.is_gate:
            break
    return tuple(steps)


_EMPTY_CHAIN: Final = Finding(
    check=CheckName.CHAIN_EMPTY,
    type=ProblemType.SERVER_INTERNAL,
    sentence="there are no checks to run, so nothing is allowed",
)


def decide_new_order(document: PolicyDocument, facts: NewOrderFacts) -> NewOrderDecision:
    """Return the findings against an order, or what its names need and how the cap is held.

    Rules that only warn change nothing of the answer; what they would find is in its warnings.
    """
    case = _new_order_case(document, facts)
    decision = _decision(case, run_chain(NEW_ORDER, case))
    return _with_warnings(decision, document, facts, case.ruling)


def decide_finalize(document: PolicyDocument, facts: FinalizeFacts) -> tuple[Finding, ...]:
    """Return what speaks against sending this CSR upstream; empty: nothing does."""
    return _findings(run_chain(FINALIZE, _case(document, facts, eab=facts.eab)))


def warn_finalize(document: PolicyDocument, facts: FinalizeFacts) -> tuple[Finding, ...]:
    """Return what rules that only warn would find against this CSR, and could not before it."""
    case = _case(document, facts, eab=facts.eab)
    if not case.ruling.warned:
        return ()
    found = _findings(run_chain(FINALIZE, case))
    warnings: list[Finding] = []
    for hits in _warned(case.ruling):
        supposed = _case(document, facts, eab=facts.eab, ruling=case.ruling.enforcing(hits))
        warnings += _beyond(found, _findings(run_chain(FINALIZE, supposed)))
    told_before = {check.name for check in NEW_ORDER}
    return tuple(one for one in dict.fromkeys(warnings) if one.check not in told_before)


def decide_issued(document: PolicyDocument, facts: IssuedFacts) -> tuple[Finding, ...]:
    """Return what speaks against releasing this certificate; empty: nothing does."""
    return _findings(run_chain(ISSUED, _case(document, facts, eab=None)))


def explain_name(document: PolicyDocument, facts: NewOrderFacts) -> Explanation:
    """Return the decision on an order together with all that led to it."""
    case = _new_order_case(document, facts)
    steps = run_chain(NEW_ORDER, case)
    ruling: CapRuling | None = None
    choices: tuple[Judgement, ...] = ()
    if case.profile is not None:
        ruling = rule_cap(case.document, case.profile, facts.identifiers)
        choices = judge_choices(case.document, case.profile, facts, ruling)
    return Explanation(
        decision=_with_warnings(_decision(case, steps), document, facts, case.ruling),
        steps=tuple(
            step if step.findings else replace(step, grounds=grounds_of(step.check, case, choices))
            for step in steps
        ),
        not_run=tuple(c.name for c in NEW_ORDER if c.name not in {step.check for step in steps}),
        ruling=ruling,
        choices=choices,
        rules=case.ruling,
    )


def _case(
    document: PolicyDocument,
    facts: Facts,
    *,
    eab: EabGrant | None,
    ruling: Ruling | None = None,
) -> Case[Facts]:
    """Return the case of *facts*, narrowed by the rules that speak of it, or by *ruling*."""
    profile = document.profile(facts.profile)
    name = None if profile is None else profile.name
    if ruling is None:
        ruling = rule_on(document, subject_of(facts, profile=name, eab=eab))
    left, chosen = narrowed(document, profile, ruling)
    if chosen is not None and eab is not None and eab.cluster is not None:
        chosen = replace(chosen, unbudgeted=unbudgeted(chosen, ruling))
    return Case(left, chosen, facts.identifiers, eab, facts, ruling)


def _new_order_case(
    document: PolicyDocument, facts: NewOrderFacts, ruling: Ruling | None = None
) -> Case[NewOrderFacts]:
    return _case(document, facts, eab=facts.eab, ruling=ruling)


def _findings(steps: Sequence[Step]) -> tuple[Finding, ...]:
    return tuple(finding for step in steps for finding in step.findings)


def _decision(case: Case[NewOrderFacts], steps: Sequence[Step]) -> NewOrderDecision:
    findings = _findings(steps)
    refusal = NewOrderDecision(
        findings=findings,
        checks=tuple(str(step.check) for step in steps),
        policy_sha256=case.document.policy_sha256,
        document_sha256=case.document.sha256,
        profile=case.profile.name if case.profile is not None else None,
        rules=tuple(hit.rule.ref for hit in case.ruling.hits),
        # Of a refusal too: what is spared the refusal is not spared what was taken back.
        approval=case.ruling.approval,
    )
    if findings or case.profile is None:
        return refusal
    cap = rule_cap(case.document, case.profile, case.identifiers)
    judged = judge_choices(case.document, case.profile, case.facts, cap)
    needed = {
        identifier: requirement_for(case.document, case.profile, case.eab, identifier)
        for identifier in case.identifiers
    }
    return replace(
        refusal,
        requirements={name: need for name, need in needed.items() if need is not None},
        plan=next((judgement.plan for judgement in judged if judgement.plan is not None), None),
        quotas=case.ruling.quotas,
        key_kinds=case.document.key_kinds,
        usages=case.profile.usages,
        renew_at=case.profile.renew_at,
    )


# ---------------------------------------------------------------------------------------- warnings


def _with_warnings(
    decision: NewOrderDecision, document: PolicyDocument, facts: NewOrderFacts, ruling: Ruling
) -> NewOrderDecision:
    """Return *decision* with what the rules that only warn would make of it."""
    if not ruling.warned:
        return decision
    warnings: list[Finding] = []
    for hits in _warned(ruling):
        case = _new_order_case(document, facts, ruling.enforcing(hits))
        supposed = _decision(case, run_chain(NEW_ORDER, case))
        warnings += _beyond(decision.findings, supposed.findings)
        if not supposed.is_refused:
            warnings += shortfalls(decision, supposed, hits)
    return replace(decision, warnings=tuple(dict.fromkeys(warnings)))


def _warned(ruling: Ruling) -> Iterator[tuple[Hit, ...]]:
    """Yield the rules that only warn one by one, as far as that is bounded, and the rest at once:
    what one rule refuses hides what the next would."""
    warned = ruling.warned
    for hit in warned[:MAX_WARNED_APART]:
        yield (hit,)
    if len(warned) > MAX_WARNED_APART:
        yield warned[MAX_WARNED_APART:]


def _beyond(found: Sequence[Finding], supposed: Sequence[Finding]) -> Iterator[Finding]:
    known = set(found)
    return (finding for finding in supposed if finding not in known)
