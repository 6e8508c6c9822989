"""CAA records: whom a domain allows to issue, and the verdict on one issuer (RFC 8659, RFC 8657).

Whoever looks up returns a `CaaSeen`, facts and no judgement; the verdict is passed here.  A record
that cannot be read forbids: unsure means no.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import printable

__all__ = [
    "CaaIssuer",
    "CaaOutcome",
    "CaaRecord",
    "CaaSeen",
    "CaaVerdict",
    "judge_caa",
]

MAX_SHOWN_CHARS: Final = 100
"""Longest piece of a record that a sentence repeats, in characters.  Records are public."""

CRITICAL: Final = 0x80
"""The issuer critical flag (RFC 8659 §4.1); the other seven bits are ignored."""

_UNDERSTOOD: Final = frozenset({"issue", "issuewild", "iodef", "issuemail"})
"""Properties whose meaning is known: iodef restricts nothing (RFC 8659 §4.4), issuemail nothing
but certificates for e-mail (RFC 9495 §4)."""

_LABEL: Final = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_ISSUER: Final = re.compile(rf"[ \t]*({_LABEL}(?:\.{_LABEL})*)?[ \t]*", re.ASCII)
_PARAMETER: Final = re.compile(rf"[ \t]*({_LABEL})[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)[ \t]*")
_METHOD: Final = re.compile(r"[A-Za-z0-9-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaaRecord:
    """One record: its flags, its tag in lower case, its value."""

    flags: int
    tag: str
    value: str

    @property
    def is_critical(self) -> bool:
        """Return whether an issuer that does not understand it must not issue."""
        return bool(self.flags & CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaSeen:
    """What was found for one identifier by climbing from its name towards the root.

    Attributes:
        identifier: Asked for, with its wildcard label.
        found_at: The name at which the records stand; None when there are none anywhere.
        records: All records there.
        failure: Why nothing could be looked up, or None.
    """

    identifier: Identifier
    found_at: str | None = None
    records: tuple[CaaRecord, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaIssuer:
    """Who would issue, as records may describe it.

    Attributes:
        identities: Its issuer domain names, in lower case.
        account_uri: The account that orders; None where it has none.
        methods: For each identifier the ways in which control of it may be validated.
    """

    identities: frozenset[str]
    account_uri: str | None = None
    methods: Mapping[Identifier, frozenset[str]] = field(default_factory=dict)


class CaaOutcome(StrEnum):
    """What records say about an issuer."""

    ABSENT = "absent"
    """There are none, or none that restrict: anyone may issue."""
    PERMITS = "permits"
    FORBIDS = "forbids"
    FAILED = "failed"
    """They could not be looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaVerdict:
    """What the records for one identifier say about an issuer, and a sentence about it."""

    identifier: Identifier
    outcome: CaaOutcome
    found_at: str | None
    sentence: str

    @property
    def is_against(self) -> bool:
        """Return whether an issuer that heeds CAA would not issue."""
        return self.outcome in (CaaOutcome.FORBIDS, CaaOutcome.FAILED)


def judge_caa(seen: CaaSeen, issuer: CaaIssuer) -> CaaVerdict:
    """Return what *seen* says about *issuer* (RFC 8659 §3)."""

    def verdict(outcome: CaaOutcome, sentence: str) -> CaaVerdict:
        return CaaVerdict(
            identifier=seen.identifier,
            outcome=outcome,
            found_at=seen.found_at,
            sentence=sentence,
        )

    if seen.failure is not None:
        return verdict(CaaOutcome.FAILED, f"CAA cannot be looked up: {seen.failure}")
    if seen.found_at is None:
        return verdict(CaaOutcome.ABSENT, "there are no CAA records")
    where = f"CAA at {seen.found_at}"
    for record in seen.records:
        if record.is_critical and record.tag not in _UNDERSTOOD:
            tag = printable(record.tag, MAX_SHOWN_CHARS)
            return verdict(
                CaaOutcome.FORBIDS, f"{where} has the critical property '{tag}', which is unknown"
            )
    restricting = _restricting(seen)
    if not restricting:
        return verdict(CaaOutcome.ABSENT, f"{where} restricts nothing")
    faults = [_check_issue(record.value, seen.identifier, issuer) for record in restricting]
    if None in faults:
        return verdict(CaaOutcome.PERMITS, f"{where} names the issuer")
    told = "; ".join(dict.fromkeys(fault for fault in faults if fault is not None))
    return verdict(CaaOutcome.FORBIDS, f"{where} forbids it: {told}")


def _restricting(seen: CaaSeen) -> Sequence[CaaRecord]:
    """Return the records that decide: of a wildcard issuewild alone, where there is any, and of
    e-mail issuemail alone."""
    if seen.identifier.type is IdentifierType.EMAIL:
        return [record for record in seen.records if record.tag == "issuemail"]
    wild = [record for record in seen.records if record.tag == "issuewild"]
    if seen.identifier.is_wildcard and wild:
        return wild
    return [record for record in seen.records if record.tag == "issue"]


def _check_issue(value: str, identifier: Identifier, issuer: CaaIssuer) -> str | None:
    """Return why one property does not allow *issuer*, or None when it does."""
    name, _, rest = value.partition(";")
    matched = _ISSUER.fullmatch(name)
    parameters = _parameters(rest)
    if matched is None or parameters is None:
        # RFC 8659 §4.2: what does not parse allows nobody.
        return "a property does not parse"
    domain = (matched[1] or "").lower()
    if not domain:
        return "it allows nobody"
    if domain not in issuer.identities:
        return f"it allows {printable(domain, MAX_SHOWN_CHARS)}"
    return _check_account(parameters, issuer) or _check_method(parameters, identifier, issuer)


def _parameters(text: str) -> Sequence[tuple[str, str]] | None:
    """Return tags in lower case with their values; None when the grammar is broken."""
    if not text.strip(" \t"):
        return ()
    found = [_PARAMETER.fullmatch(part) for part in text.split(";")]
    return None if None in found else [(one[1].lower(), one[2]) for one in found if one]


def _values(parameters: Sequence[tuple[str, str]], tag: str) -> Sequence[str]:
    return [value for name, value in parameters if name == tag]


def _check_account(parameters: Sequence[tuple[str, str]], issuer: CaaIssuer) -> str | None:
    """Return why another account is meant (RFC 8657 §3), or None."""
    uris = _values(parameters, "accounturi")
    if len(uris) > 1:
        return "it names several accounts in one property"
    if uris and uris[0] != issuer.account_uri:
        return f"it allows the account {printable(uris[0], MAX_SHOWN_CHARS)} alone"
    return None


def _check_method(
    parameters: Sequence[tuple[str, str]], identifier: Identifier, issuer: CaaIssuer
) -> str | None:
    """Return why another validation method is meant (RFC 8657 §4), or None."""
    lists = _values(parameters, "validationmethods")
    if not lists:
        return None
    methods = lists[0].split(",") if lists[0] else []
    if len(lists) > 1 or not all(_METHOD.fullmatch(method) for method in methods):
        return "its validation methods do not parse"
    if issuer.methods.get(identifier, frozenset()) & {method.lower() for method in methods}:
        return None
    shown = printable(", ".join(methods), MAX_SHOWN_CHARS) or "no method"
    return f"it allows validation by {shown} alone"
