"""Named checks on who may order which name: each looks at a case and finds something, or nothing.

``chains`` says which checks run when, and in which order.  A check that is about one identifier
runs for each of them, so that a refusal can name every name that is refused; a check that is
about the order runs once.  Checks on the validity cap stand here too; those on the CSR are in
``checks_csr``, those on the certificate that came back in ``checks_issued``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from broker.policy.addresses import parse_address, reserved_block
from broker.policy.communities import requirement_for
from broker.policy.decisions import EabGrant, Finding, Lever, NewOrderFacts, RuleRef
from broker.policy.document import PolicyDocument, Profile
from broker.policy.rulings import NO_RULING, Ruling
from broker.policy.units import format_duration
from broker.policy.validity import is_kept_private, judge_choices, rule_cap
from broker.protocol.encoding import format_timestamp
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType, printable

__all__ = [
    "Case",
    "Check",
    "CheckName",
    "IdentifierCheck",
    "OrderCheck",
    "cap_text",
    "place",
    "refused",
]

F = TypeVar("F")

_PROFILE_CAP: Final = re.compile(r'profiles(?:\.([^.\[]+)|\["(.+)"\])\.cap')


class CheckName(StrEnum):
    """The name of every check, as findings, audit records and ``policy explain`` show it."""

    PROFILE_OFFERED = "profile-offered"
    IDENTIFIERS_PRESENT = "identifiers-present"
    NOT_BEFORE = "not-before"
    IDENTIFIER_TYPE = "identifier-type"
    ADDRESS_RESERVED = "address-reserved"
    PUBLIC_SUFFIX = "public-suffix"
    NAME_DENIED = "name-denied"
    NAME_ALLOWED = "name-allowed"
    PROFILE_NAMES = "profile-names"
    WILDCARD_ALLOWED = "wildcard-allowed"
    EAB_NAMES = "eab-names"
    EAB_PROFILE = "eab-profile"
    CONTROL_PROVABLE = "control-provable"
    PRIVATE_NAME = "private-name"
    NOT_AFTER = "not-after"
    CAP_PLAN = "cap-plan"

    GRANT_STANDS = "grant-stands"
    CSR_NAMES = "csr-names"
    CSR_SUBJECT = "csr-subject"
    CSR_CA = "csr-ca"
    CSR_KEY_USAGES = "csr-key-usages"
    CSR_EXTENDED_KEY_USAGES = "csr-extended-key-usages"
    CSR_EXTENSIONS = "csr-extensions"
    CSR_MUST_STAPLE = "csr-must-staple"
    KEY_KIND = "key-kind"
    KEY_IS_ACCOUNT_KEY = "key-is-account-key"
    KEY_WEAK = "key-weak"

    ISSUED_KEY = "issued-key"
    ISSUED_NAMES = "issued-names"
    ISSUED_END = "issued-end"
    ISSUED_ASKED_DATES = "issued-asked-dates"
    ISSUED_START = "issued-start"
    ISSUED_CA = "issued-ca"
    ISSUED_KEY_USAGES = "issued-key-usages"
    ISSUED_EXTENDED_KEY_USAGES = "issued-extended-key-usages"
    ISSUED_EXTENSIONS = "issued-extensions"
    ISSUED_ANCHOR = "issued-anchor"
    ISSUED_ONCE = "issued-once"

    RULE_REFUSED = "rule-refused"
    RULE_REFUSED_NAME = "rule-refused-name"
    RULE_UNSURE = "rule-unsure"
    OWNER_REQUIRED = "owner-required"
    ATTESTATION_REQUIRED = "attestation-required"
    APPROVAL_REQUIRED = "approval-required"
    RULE_NARROWS = "rule-narrows"

    CHAIN_EMPTY = "chain-empty"


@dataclass(frozen=True, slots=True)
class Case(Generic[F]):
    """What a check looks at: the policy, and the facts of one order."""

    document: PolicyDocument
    profile: Profile | None
    """None until PROFILE_OFFERED has passed; the chain ends there otherwise."""
    identifiers: tuple[Identifier, ...]
    eab: EabGrant | None
    facts: F
    ruling: Ruling = NO_RULING
    """The rules that speak of the order; *document* and *profile* are narrowed by them."""

    @property
    def chosen(self) -> Profile:
        """Return the profile of a case that has passed PROFILE_OFFERED."""
        if self.profile is None:
            raise LookupError("a check that needs a profile stands before profile-offered")
        return self.profile


@dataclass(frozen=True, slots=True)
class OrderCheck(Generic[F]):
    """A check that is about the whole order."""

    name: CheckName
    look: Callable[[Case[F]], Finding | None]
    is_gate: bool = False
    """Whether the checks behind it need what it proves, so that a finding ends the chain."""
    needs_all: bool = False
    """Whether it asks about an order that passed everything before; otherwise it does not run."""


@dataclass(frozen=True, slots=True)
class IdentifierCheck(Generic[F]):
    """A check that is about one identifier."""

    name: CheckName
    look: Callable[[Case[F], Identifier], Finding | None]


Check = OrderCheck[F] | IdentifierCheck[F]


def place(rule: RuleRef) -> str:
    """Return where *rule* stands, for sentences."""
    return f"{rule.source}:{rule.line}"


def cap_text(cap: timedelta, rule: RuleRef) -> str:
    """Return a cap and whose it is, for sentences: ``7d cap of profile 'short' (file:9)``."""
    whose = rule.path
    if whose == "cap":
        whose = "the community"
    elif match := _PROFILE_CAP.fullmatch(whose):
        whose = f"profile '{match[1] or match[2]}'"
    return f"{format_duration(cap)} cap of {whose} ({place(rule)})"


def refused(
    check: CheckName, identifier: Identifier, sentence: str, rule: RuleRef | None = None
) -> Finding:
    """Return the finding that *identifier* is refused, which *sentence* goes on to explain."""
    return Finding(
        check=check,
        type=ProblemType.REJECTED_IDENTIFIER,
        sentence=f"'{identifier}' {sentence}",
        identifier=identifier,
        rule=rule,
    )


# ------------------------------------------------------------------------------ profile and shape


def profile_offered(case: Case[Any]) -> Finding | None:
    """The profile that is asked for exists, or there is a default one."""
    if case.profile is not None:
        return None
    asked = case.facts.profile
    if asked is None:
        sentence = "the order names no profile, and there is no default one"
    else:
        sentence = f"profile '{printable(asked, 64)}' is not offered"
    offered = ", ".join(case.document.profiles) or "none"
    return Finding(
        check=CheckName.PROFILE_OFFERED,
        type=ProblemType.INVALID_PROFILE,
        sentence=f"{sentence}; offered: {offered}",
        rule=case.document.profiles_rule,
    )


def identifiers_present(case: Case[Any]) -> Finding | None:
    """The order names something: no check on names speaks up about an order without any."""
    if case.identifiers:
        return None
    return Finding(
        check=CheckName.IDENTIFIERS_PRESENT,
        type=ProblemType.MALFORMED,
        sentence="the order names no identifier, expected at least one",
    )


def not_before(case: Case[NewOrderFacts]) -> Finding | None:
    """No start is asked for: no upstream is asked for one, so it could not be kept."""
    if case.facts.not_before is None:
        return None
    return Finding(
        check=CheckName.NOT_BEFORE,
        type=ProblemType.MALFORMED,
        sentence=f"notBefore {format_timestamp(case.facts.not_before)} is not supported, expected "
        "none: a certificate is valid from its issuance on",
    )


def identifier_type(case: Case[Any], identifier: Identifier) -> Finding | None:
    """DNS names and IP addresses are served, and e-mail where any rule speaks of it."""
    allow = case.document.allow
    if identifier.type in (IdentifierType.DNS, IdentifierType.IP):
        return None
    if identifier.type is IdentifierType.EMAIL and allow.has_mail:
        return None
    return Finding(
        check=CheckName.IDENTIFIER_TYPE,
        type=ProblemType.UNSUPPORTED_IDENTIFIER,
        sentence=f"'{identifier}' is of type {identifier.type}, expected dns or ip: no rule "
        f"allows others ({place(allow.ref)})",
        identifier=identifier,
        rule=allow.ref,
    )


# ------------------------------------------------------------------------------------------ names


def address_reserved(case: Case[Any], identifier: Identifier) -> Finding | None:
    """Nobody has an address that is no host's, or every host's where no rule means just that."""
    address = parse_address(identifier.value)
    if address is None:
        return None
    allow = case.document.allow
    why = reserved_block(address, allow.networks_holding(identifier.value))
    if why is None:
        return None
    return refused(CheckName.ADDRESS_RESERVED, identifier, f"{why} ({place(allow.ref)})")


def public_suffix(case: Case[NewOrderFacts], identifier: Identifier) -> Finding | None:
    """Nobody holds a public suffix, or all that is below one; no rule can allow it."""
    if identifier.domain not in case.facts.public_suffixes:
        return None
    is_what = "covers a whole public suffix" if identifier.is_wildcard else "is a public suffix"
    if identifier.type is IdentifierType.EMAIL:
        is_what = "is an address at a public suffix"
    sentence = f"{is_what}, expected a name below '{identifier.domain}'"
    return refused(CheckName.PUBLIC_SUFFIX, identifier, sentence)


def name_denied(case: Case[Any], identifier: Identifier) -> Finding | None:
    """No deny rule speaks of the name, or of any name that a wildcard stands for."""
    denied = case.document.deny.touching(identifier.value)
    if not denied:
        return None
    return refused(
        CheckName.NAME_DENIED, identifier, f"is denied by policy ({place(denied[0])})", denied[0]
    )


def name_allowed(case: Case[Any], identifier: Identifier) -> Finding | None:
    """An allow rule covers the name, and every name that a wildcard stands for."""
    allow = case.document.allow
    if allow.covering(identifier.value) is not None:
        return None
    return refused(
        CheckName.NAME_ALLOWED, identifier, f"is allowed by no rule ({place(allow.ref)})", allow.ref
    )


def profile_names(case: Case[Any], identifier: Identifier) -> Finding | None:
    """The profile's own list, if it has one, covers the name."""
    names = case.chosen.names
    if names is None or names.covering(identifier.value) is not None:
        return None
    return refused(
        CheckName.PROFILE_NAMES,
        identifier,
        f"is outside the names of profile '{case.chosen.name}' ({place(names.ref)})",
        names.ref,
    )


def wildcard_allowed(case: Case[Any], identifier: Identifier) -> Finding | None:
    """Wildcard names are allowed as such."""
    if not identifier.is_wildcard or case.document.wildcards:
        return None
    rule = case.document.wildcards_rule
    sentence = f"is a wildcard, which policy does not allow ({place(rule)})"
    return refused(CheckName.WILDCARD_ALLOWED, identifier, sentence, rule)


def control_provable(case: Case[Any], identifier: Identifier) -> Finding | None:
    """A challenge is offered that can prove control of the name, or a rule grants it."""
    if requirement_for(case.document, case.chosen, case.eab, identifier) is not None:
        return None
    rule = case.document.challenges_rule
    sentence = "needs a challenge, and policy offers none"
    if identifier.is_wildcard:
        sentence = "is a wildcard and needs dns-01, which policy does not offer"
    elif identifier.type is IdentifierType.IP:
        sentence = "is an address and needs http-01 or tls-alpn-01, and policy offers neither"
    elif identifier.type is IdentifierType.EMAIL:
        sentence = (
            "is an e-mail address, which no challenge here can prove: have an entry of the "
            "policy's 'trusted' give it to the requester's EAB key under profile "
            f"'{case.chosen.name}'"
        )
    return refused(CheckName.CONTROL_PROVABLE, identifier, f"{sentence} ({place(rule)})", rule)


def private_name(case: Case[NewOrderFacts], identifier: Identifier) -> Finding | None:
    """A private name has an upstream to go to that does not log it publicly for ever."""
    if not is_kept_private(case.document, identifier):
        return None
    logged = {upstream.name: upstream.is_ct_logged for upstream in case.facts.upstreams}
    choices = case.chosen.choices
    # An upstream that is not ready may be the private one: then the plan says so.
    if not choices or not all(logged.get(choice.upstream, False) for choice in choices):
        return None
    return refused(
        CheckName.PRIVATE_NAME,
        identifier,
        f"is a private name, and every upstream of profile '{case.chosen.name}' writes names to "
        "public Certificate Transparency logs",
        case.document.ct_rule,
    )


# --------------------------------------------------------------------------------------- validity


def not_after(case: Case[NewOrderFacts]) -> Finding | None:
    """The end that is asked for lies in the future and within the cap; it is never changed."""
    asked, at = case.facts.not_after, case.facts.at
    if asked is None:
        return None
    stamp = format_timestamp(asked)
    if asked <= at:
        return Finding(
            check=CheckName.NOT_AFTER,
            type=ProblemType.MALFORMED,
            sentence=f"notAfter {stamp} is not in the future, it is {format_timestamp(at)} now",
        )
    ruling = rule_cap(case.document, case.chosen, case.identifiers)
    over = asked - at - ruling.cap
    if over.total_seconds() <= 0:
        return None
    past = f"{over.days} days" if over.days > 1 else format_duration(over)
    return Finding(
        check=CheckName.NOT_AFTER,
        type=_validity_type(case.facts),
        sentence=f"notAfter {stamp} is {past} past the {cap_text(ruling.cap, ruling.rule)}",
        rule=ruling.rule,
        lever=Lever.REFUSE,
    )


def cap_plan(case: Case[NewOrderFacts]) -> Finding | None:
    """One of the profile's upstreams can hold the cap, and may be ordered from now."""
    facts = case.facts
    ruling = rule_cap(case.document, case.chosen, case.identifiers)
    judged = judge_choices(case.document, case.chosen, facts, ruling)
    if any(judgement.plan is not None for judgement in judged):
        return None
    reasons = "; ".join(judgement.sentence for judgement in judged) or "it names none"
    if any(judgement.obstacle and judgement.obstacle.is_passing for judgement in judged):
        return Finding(
            check=CheckName.CAP_PLAN,
            type=ProblemType.SERVER_INTERNAL,
            sentence=f"no upstream of profile '{case.chosen.name}' can be ordered from now: "
            f"{reasons}",
            rule=ruling.rule,
        )
    if facts.not_after is None:
        aim = f"hold the {cap_text(ruling.cap, ruling.rule)}"
    else:
        aim = f"issue to notAfter {format_timestamp(facts.not_after)}"
    return Finding(
        check=CheckName.CAP_PLAN,
        type=_validity_type(facts),
        sentence=f"no upstream of profile '{case.chosen.name}' can {aim}: {reasons}",
        rule=ruling.rule,
        lever=Lever.REFUSE,
    )


def _validity_type(facts: NewOrderFacts) -> ProblemType:
    """A profile that does not fit the request is the client's choice if it named one."""
    is_chosen = facts.profile is not None
    return ProblemType.INVALID_PROFILE if is_chosen else ProblemType.REJECTED_IDENTIFIER
