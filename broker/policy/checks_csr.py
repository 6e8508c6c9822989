"""Named checks on the CSR of a finalize, and on what may have changed since newOrder.

What a CA copies from a CSR without looking is how a server becomes a CA: everything in it that
the profile does not allow is refused before the upstream sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from broker.policy.checks import Case, CheckName, place
from broker.policy.communities import grant_for
from broker.policy.decisions import FinalizeFacts, Finding, RuleRef
from broker.policy.document import USAGE_OIDS
from broker.protocol.csr import verify_csr_names
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["CA_KEY_USAGES", "allowed_usages", "listed", "usage_words"]

CA_KEY_USAGES: Final = frozenset({"keyCertSign", "cRLSign"})
"""Key usages that belong to CAs alone (RFC 5280 §4.2.1.3)."""

MAX_LISTED: Final = 10
"""Most items that a sentence lists."""

_USAGE_WORDS: Final = {oid: str(usage) for usage, oid in USAGE_OIDS.items()}


def listed(items: Iterable[str]) -> str:
    """Return *items* sorted and joined for a sentence, the first ten of them."""
    ordered = sorted(items)
    shown = ", ".join(printable(item, 100) for item in ordered[:MAX_LISTED]) or "none"
    more = len(ordered) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def usage_words(oids: Iterable[str]) -> str:
    """Return extended key usages for a sentence, by name where they have one."""
    return listed(_USAGE_WORDS.get(oid, oid) for oid in oids)


def _bad(check: CheckName, sentence: str, rule: RuleRef | None = None) -> Finding:
    return Finding(check=check, type=ProblemType.BAD_CSR, sentence=f"CSR {sentence}", rule=rule)


def grant_stands(case: Case[FinalizeFacts], identifier: Identifier) -> Finding | None:
    """A name that was granted without a challenge still is (a rule may be gone by now)."""
    if identifier not in case.facts.granted:
        return None
    if grant_for(case.document, case.chosen, case.eab, identifier) is not None:
        return None
    return Finding(
        check=CheckName.GRANT_STANDS,
        type=ProblemType.UNAUTHORIZED,
        sentence=f"'{identifier}' was granted without a challenge by a rule that no longer stands, "
        "expected a new order",
        identifier=identifier,
    )


def csr_names(case: Case[FinalizeFacts]) -> Finding | None:
    """The CSR names exactly what the order names."""
    try:
        verify_csr_names(case.facts.csr, case.identifiers)
    except Problem as problem:
        return Finding(check=CheckName.CSR_NAMES, type=ProblemType.BAD_CSR, sentence=problem.detail)
    return None


def csr_subject(case: Case[FinalizeFacts]) -> Finding | None:
    """The subject has no attribute but the common name and those that the profile allows."""
    refused = [
        attribute
        for attribute in case.facts.csr.subject_other
        if attribute.partition("=")[0] not in case.chosen.subject
    ]
    if not refused:
        return None
    return _bad(
        CheckName.CSR_SUBJECT,
        f"has the subject attributes {listed(refused)}, profile '{case.chosen.name}' allows "
        f"{listed({'CN', *case.chosen.subject})}",
        case.chosen.rule,
    )


def csr_ca(case: Case[FinalizeFacts]) -> Finding | None:
    """The CSR does not ask to become a CA; no profile can allow it."""
    csr = case.facts.csr
    if csr.requests_ca:
        return _bad(CheckName.CSR_CA, "asks for CA:TRUE, expected an end-entity certificate")
    asked = csr.key_usages & CA_KEY_USAGES
    if asked:
        return _bad(CheckName.CSR_CA, f"asks for the key usages {listed(asked)} of a CA")
    return None


def csr_key_usages(case: Case[FinalizeFacts]) -> Finding | None:
    """The key usages are among the profile's."""
    beyond = case.facts.csr.key_usages - case.chosen.key_usages - CA_KEY_USAGES
    if not beyond:
        return None
    return _bad(
        CheckName.CSR_KEY_USAGES,
        f"asks for the key usages {listed(beyond)}, profile '{case.chosen.name}' allows "
        f"{listed(case.chosen.key_usages)}",
        case.chosen.rule,
    )


def csr_extended_key_usages(case: Case[FinalizeFacts]) -> Finding | None:
    """The extended key usages are among the profile's."""
    asked, kept = case.facts.csr.extended_key_usages, case.facts.usages
    beyond = asked - case.chosen.usages
    if not beyond and kept is not None and not asked <= kept:
        return _bad(
            CheckName.CSR_EXTENDED_KEY_USAGES,
            f"asks for the extended key usages {usage_words(asked - kept)}, which were not allowed "
            "when the order was made",
        )
    if not beyond:
        return None
    return _bad(
        CheckName.CSR_EXTENDED_KEY_USAGES,
        f"asks for the extended key usages {usage_words(beyond)}, {allowed_usages(case)}",
        case.chosen.usages_rule or case.chosen.rule,
    )


def allowed_usages(case: Case[Any]) -> str:
    """Return which extended key usages are allowed, and by what, for sentences."""
    words = usage_words(case.chosen.usages)
    narrowing = case.chosen.usages_rule
    if narrowing is None:
        return f"profile '{case.chosen.name}' allows {words}"
    return f"{narrowing.path} ({place(narrowing)}) leaves {words}"


def csr_extensions(case: Case[FinalizeFacts]) -> Finding | None:
    """No extension is asked for that the profile does not list."""
    beyond = case.facts.csr.other_extensions - case.chosen.csr_extensions
    if not beyond:
        return None
    return _bad(
        CheckName.CSR_EXTENSIONS,
        f"asks for the extensions {listed(beyond)}, profile '{case.chosen.name}' allows "
        f"{listed(case.chosen.csr_extensions)} beside names and usages",
        case.chosen.rule,
    )


def csr_must_staple(case: Case[FinalizeFacts]) -> Finding | None:
    """OCSP must-staple is asked for only where the profile allows it."""
    if not case.facts.csr.must_staple or case.chosen.must_staple:
        return None
    return _bad(
        CheckName.CSR_MUST_STAPLE,
        f"asks for OCSP must-staple, which profile '{case.chosen.name}' does not allow",
        case.chosen.rule,
    )


def key_kind(case: Case[FinalizeFacts]) -> Finding | None:
    """The kind and size of the key are on the policy's list, now and when the order was made."""
    document = case.document
    kind, kept = case.facts.csr.key_kind, case.facts.key_kinds
    if kind in document.key_kinds and kept is not None and kind not in kept:
        return Finding(
            check=CheckName.KEY_KIND,
            type=ProblemType.BAD_PUBLIC_KEY,
            sentence=f"key of the CSR is {printable(kind, 64)}, and when the order was made "
            f"{listed(kept)} was allowed: expected that, or a new order",
        )
    if kind in document.key_kinds:
        return None
    allowed = ", ".join(document.key_kinds) or "none"
    return Finding(
        check=CheckName.KEY_KIND,
        type=ProblemType.BAD_PUBLIC_KEY,
        sentence=f"key of the CSR is {printable(kind, 64)}, allowed: {allowed} "
        f"({place(document.keys_rule)})",
        rule=document.keys_rule,
    )


def key_is_account_key(case: Case[FinalizeFacts]) -> Finding | None:
    """The certificate key is nobody's account key (RFC 8555 §11.1)."""
    if not case.facts.is_account_key:
        return None
    return _bad(
        CheckName.KEY_IS_ACCOUNT_KEY, "has an account key as its key, expected a key of its own"
    )


def key_weak(case: Case[FinalizeFacts]) -> Finding | None:
    """No weakness of the key is known."""
    if not case.facts.weaknesses:
        return None
    return Finding(
        check=CheckName.KEY_WEAK,
        type=ProblemType.BAD_PUBLIC_KEY,
        sentence=f"key of the CSR is refused: {listed(case.facts.weaknesses)}",
    )
