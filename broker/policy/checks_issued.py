"""Named checks on the certificate that came back: the last gate before it is released.

A CA is trusted to issue, not to issue the right thing.  Whatever is found here, the certificate
is withheld and revoked, and its upstream is suspended: the sentences say what the upstream did.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.policy.checks import Case, CheckName, cap_text
from broker.policy.checks_csr import CA_KEY_USAGES, allowed_usages, listed, usage_words
from broker.policy.decisions import Finding, IssuedFacts, Lever, RuleRef
from broker.policy.document import USAGE_OIDS
from broker.policy.form import Usage
from broker.policy.units import format_duration
from broker.policy.validity import rule_cap
from broker.protocol.encoding import format_timestamp
from broker.protocol.identifiers import addresses_beyond, folded
from broker.protocol.problems import ProblemType, printable

__all__ = ["MAX_FUTURE_START"]

MAX_FUTURE_START: Final = timedelta(seconds=60)
"""How far in the future a certificate may start when it is received.

CAs date certificates back, up to an hour, and never forward; a minute is for clocks that differ.
"""

SERVER_AUTH_OID: Final = USAGE_OIDS[Usage.SERVER_AUTH]
"""Extended key usage of a TLS server (RFC 5280 §4.2.1.12)."""

MUST_STAPLE_OID: Final = "1.3.6.1.5.5.7.1.24"
"""TLS feature (RFC 7633 §4)."""

_USUAL_OIDS: Final = frozenset(
    {
        "2.5.29.14",  # subject key identifier
        "2.5.29.15",  # key usage
        "2.5.29.17",  # subject alternative names
        "2.5.29.19",  # basic constraints
        "2.5.29.31",  # CRL distribution points
        "2.5.29.32",  # certificate policies
        "2.5.29.35",  # authority key identifier
        "2.5.29.37",  # extended key usage
        "1.3.6.1.5.5.7.1.1",  # authority information access
        "1.3.6.1.4.1.11129.2.4.2",  # signed certificate timestamps (RFC 6962 §3.3)
        "1.3.6.1.4.1.37476.9000.64.1",  # step-ca: the provisioner that issued it
    }
)
"""Extensions that an end-entity certificate may have under any profile."""

_CRITICAL_OIDS: Final = frozenset({"2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"})
"""Extensions of those that may be critical: every TLS stack understands them."""


def _breach(check: CheckName, sentence: str, rule: RuleRef | None = None) -> Finding:
    return Finding(
        check=check,
        type=ProblemType.SERVER_INTERNAL,
        sentence=f"certificate from the upstream {sentence}, so it is withheld",
        rule=rule,
    )


def issued_key(case: Case[IssuedFacts]) -> Finding | None:
    """It certifies the key of the CSR."""
    leaf = case.facts.chain.leaf
    if leaf.spki_der == case.facts.csr.spki_der:
        return None
    return _breach(
        CheckName.ISSUED_KEY, f"certifies another key ({leaf.key_kind}) than that of the CSR"
    )


def issued_names(case: Case[IssuedFacts]) -> Finding | None:
    """It names exactly what the order names, also in its subject."""
    leaf = case.facts.chain.leaf
    expected = frozenset(case.identifiers)
    faults = []
    if missing := expected - leaf.identifiers:
        faults.append(f"lacks {listed(str(name) for name in missing)}")
    extra = [str(name) for name in leaf.identifiers - expected]
    if extra or leaf.other_names:
        faults.append(f"names {listed([*extra, *leaf.other_names])} beyond the order")
    common_name = leaf.common_name
    if common_name and folded(common_name) not in {name.value for name in expected}:
        faults.append(f"has the common name '{printable(common_name, 100)}' beyond the order")
    if beyond := addresses_beyond(leaf.subject_mail, expected):
        faults.append(f"has the e-mail address {beyond} beyond the order in its subject")
    return _breach(CheckName.ISSUED_NAMES, " and ".join(faults)) if faults else None


def issued_end(case: Case[IssuedFacts]) -> Finding | None:
    """It ends within the validity cap, counted from receipt; one that is to be retired, within
    the lifetime that it was accepted for."""
    facts = case.facts
    end = facts.chain.leaf.not_after
    over = end - (facts.received_at + (facts.longest or facts.cap))
    if over <= facts.tolerance:
        return None
    rule = facts.rule or rule_cap(case.document, case.chosen, case.identifiers).rule
    limit = cap_text(facts.cap, rule)
    if facts.longest is not None:
        limit = f"{format_duration(facts.longest)} that this upstream was known to issue"
    found = _breach(
        CheckName.ISSUED_END,
        f"ends {format_timestamp(end)}, {format_duration(over)} past the "
        f"{limit} counted from {format_timestamp(facts.received_at)}, with "
        f"{format_duration(facts.tolerance)} of tolerance",
        rule,
    )
    return replace(found, lever=Lever.VERIFY)


def issued_asked_dates(case: Case[IssuedFacts]) -> Finding | None:
    """The dates that the client asked for were kept, both ways: earlier is a change as well."""
    facts = case.facts
    leaf = facts.chain.leaf
    for word, asked, got in (
        ("starts", facts.not_before, leaf.not_before),
        ("ends", facts.not_after, leaf.not_after),
    ):
        if asked is not None and abs(got - asked) > facts.tolerance:
            return _breach(
                CheckName.ISSUED_ASKED_DATES,
                f"{word} {format_timestamp(got)}, {format_duration(abs(got - asked))} from "
                f"{format_timestamp(asked)} as asked for, with "
                f"{format_duration(facts.tolerance)} of tolerance",
            )
    return None


def issued_start(case: Case[IssuedFacts]) -> Finding | None:
    """It is valid now."""
    leaf, received = case.facts.chain.leaf, case.facts.received_at
    now = format_timestamp(received)
    if leaf.not_before - received > MAX_FUTURE_START:
        ahead = format_duration(leaf.not_before - received)
        return _breach(
            CheckName.ISSUED_START,
            f"starts {format_timestamp(leaf.not_before)}, {ahead} after it was received ({now}); "
            "check the clocks",
        )
    if leaf.not_after <= received:
        return _breach(
            CheckName.ISSUED_START,
            f"ended {format_timestamp(leaf.not_after)}, before it was received ({now}); check the "
            "clocks",
        )
    return None


def issued_ca(case: Case[IssuedFacts]) -> Finding | None:
    """It is no CA certificate and may not sign certificates."""
    leaf = case.facts.chain.leaf
    if leaf.is_ca:
        return _breach(CheckName.ISSUED_CA, "is a CA certificate (CA:TRUE)")
    usages = leaf.key_usages & CA_KEY_USAGES
    if usages:
        return _breach(CheckName.ISSUED_CA, f"has the key usages {listed(usages)} of a CA")
    return None


def issued_key_usages(case: Case[IssuedFacts]) -> Finding | None:
    """Its key usages are among the profile's."""
    beyond = case.facts.chain.leaf.key_usages - case.chosen.key_usages - CA_KEY_USAGES
    if not beyond:
        return None
    return _breach(
        CheckName.ISSUED_KEY_USAGES,
        f"has the key usages {listed(beyond)}, profile '{case.chosen.name}' allows "
        f"{listed(case.chosen.key_usages)}",
        case.chosen.rule,
    )


def issued_extended_key_usages(case: Case[IssuedFacts]) -> Finding | None:
    """Its extended key usages are among the profile's, and it has one.

    A certificate without any may be used for everything (RFC 5280 §4.2.1.12).  One that lacks
    client-auth is let through: public CAs took it out of theirs in 2026.
    """
    usages = case.facts.chain.leaf.extended_key_usages
    allowed = allowed_usages(case)
    if not usages:
        sentence = f"has no extended key usage, {allowed}"
    elif beyond := usages - case.chosen.usages:
        sentence = f"has the extended key usages {usage_words(beyond)}, {allowed}"
    elif SERVER_AUTH_OID in case.chosen.usages - usages:
        sentence = f"lacks the extended key usage server-auth, {allowed}"
    else:
        return None
    rule = case.chosen.usages_rule or case.chosen.rule
    return _breach(_whose_usages(case.facts.usages, usages), sentence, rule)


def _whose_usages(kept: frozenset[str] | None, given: frozenset[str]) -> CheckName:
    """Return whose fault other usages are: a rule's, where they were right at finalize."""
    was_right = kept is not None and given <= kept and SERVER_AUTH_OID not in kept - given
    return CheckName.RULE_REFUSED if given and was_right else CheckName.ISSUED_EXTENDED_KEY_USAGES


def issued_extensions(case: Case[IssuedFacts]) -> Finding | None:
    """It has no extension but the usual ones and those that the profile and the CSR agree on."""
    facts, profile = case.facts, case.chosen
    agreed = profile.certificate_extensions | (facts.csr.other_extensions & profile.csr_extensions)
    if facts.csr.must_staple and profile.must_staple:
        agreed |= {MUST_STAPLE_OID}
    leaf = facts.chain.leaf
    if beyond := leaf.extension_oids - _USUAL_OIDS - agreed:
        sentence = f"has the extensions {listed(beyond)}, which nobody agreed on"
    elif critical := leaf.critical_oids - _CRITICAL_OIDS - agreed:
        sentence = f"has the critical extensions {listed(critical)}, which clients may not know"
    else:
        return None
    return _breach(CheckName.ISSUED_EXTENSIONS, sentence, profile.rule)


def issued_anchor(case: Case[IssuedFacts]) -> Finding | None:
    """Its chain leads to an anchor of its upstream, where anchors are configured."""
    if case.facts.is_chain_anchored is not False:
        return None
    fault = printable(case.facts.anchor_fault or "no reason given", 300)
    return _breach(CheckName.ISSUED_ANCHOR, f"leads to none of its anchors: {fault}")


def issued_once(case: Case[IssuedFacts]) -> Finding | None:
    """It was never received before, for this order or for another."""
    if not case.facts.is_known:
        return None
    leaf = case.facts.chain.leaf
    return _breach(CheckName.ISSUED_ONCE, f"with serial {leaf.serial} was received once before")
