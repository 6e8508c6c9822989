"""Request payloads of our clients, read into values.

Each parser takes the JSON object of a request whose signature has been verified
and answers with a value or with the problem to send back.  Members we do not know
are ignored and never reflected (RFC 8555 §7.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

from broker.protocol import drafts
from broker.protocol.encoding import parse_base64url, parse_json_object, parse_timestamp
from broker.protocol.identifiers import Identifier, canonical_email_address, parse_identifier
from broker.protocol.problems import Problem, ProblemType, ReportedIdentifier, printable
from broker.protocol.renewal import parse_cert_id

__all__ = [
    "AccountUpdate",
    "NewAccount",
    "NewOrder",
    "Revocation",
    "parse_account_update",
    "parse_finalize",
    "parse_json_object",
    "parse_new_account",
    "parse_new_authorization",
    "parse_new_order",
    "parse_revocation",
]

MAX_IDENTIFIERS: Final = 100
"""Most identifiers in one order: the public CAs' limit, so no CA refuses for it later."""

MAX_CONTACTS: Final = 10
"""Most contact URLs of one account.  Nobody writes to more people than that."""

MAX_PROFILE_CHARS: Final = 64
"""Longest profile name that is read, in characters."""

REVOCATION_REASONS: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 8, 9, 10})
"""CRLReason codes (RFC 5280 §5.3.1); 7 is not used there."""

_CONTACT_EXTRAS: Final = (
    ("?", "header fields"),
    (",", "several addresses"),
    ("%", "percent encoding"),
    ("/", "slashes"),
)
"""What a mailto URL may hold beside one plain address, and we do not take (RFC 8555 §7.3)."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A newAccount request (RFC 8555 §7.3)."""

    contacts: tuple[str, ...] = ()
    terms_agreed: bool = False
    only_return_existing: bool = False
    eab: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A newOrder request (RFC 8555 §7.4), its identifiers in the order they came."""

    identifiers: tuple[Identifier, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None
    profile: str | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revokeCert request (RFC 8555 §7.6); ``reason`` is 0 when the client gave none."""

    certificate_der: bytes
    reason: int = 0


@dataclass(frozen=True, slots=True)
class AccountUpdate:
    """An account update (RFC 8555 §7.3.2); ``contacts`` is None when they stay as they are."""

    contacts: tuple[str, ...] | None = None
    deactivate: bool = False
    terms_agreed: bool = False


def parse_new_account(payload: Mapping[str, Any]) -> NewAccount:
    """Return what a newAccount request asks for.

    Raises:
        Problem: malformed, invalidContact or unsupportedContact.  Tell the client.
    """
    binding = payload.get("externalAccountBinding")
    if binding is not None and not isinstance(binding, dict):
        _malformed("externalAccountBinding is not an object")
    return NewAccount(
        contacts=_read_contacts(payload) or (),
        terms_agreed=_read_flag(payload, "termsOfServiceAgreed"),
        only_return_existing=_read_flag(payload, "onlyReturnExisting"),
        eab=binding,
    )


def parse_account_update(payload: Mapping[str, Any]) -> AccountUpdate:
    """Return what an update of an account asks for.

    ``contact``, ``"status": "deactivated"`` and agreeing to terms count, everything else is
    ignored (RFC 8555 §7.3.2, §7.3.3).

    Raises:
        Problem: malformed, invalidContact or unsupportedContact.  Tell the client.
    """
    return AccountUpdate(
        contacts=_read_contacts(payload),
        deactivate=payload.get("status") == "deactivated",
        terms_agreed=payload.get("termsOfServiceAgreed") is True,
    )


def parse_new_order(payload: Mapping[str, Any]) -> NewOrder:
    """Return what a newOrder request asks for.

    An identifier that comes twice is refused, one reading of ours: RFC 8555 §7.4
    does not say, and collapsing it would answer with another list than asked for.

    Raises:
        Problem: malformed; or the problem of the one identifier that is wrong; or
            with several wrong ones, a problem with one subproblem for each.
    """
    items = payload.get("identifiers")
    if not isinstance(items, list) or not items:
        _malformed("identifiers is missing or empty, expected a list of at least one")
    if len(items) > MAX_IDENTIFIERS:
        _malformed(f"identifiers has {len(items)} entries, the limit is {MAX_IDENTIFIERS}")
    return NewOrder(
        identifiers=_read_identifiers(items),
        not_before=_read_time(payload, "notBefore"),
        not_after=_read_time(payload, "notAfter"),
        profile=_read_profile(payload),
        replaces=_read_replaces(payload),
    )


def parse_new_authorization(payload: Mapping[str, Any]) -> Identifier:
    """Return the identifier that a newAuthz request wants to prove (RFC 8555 §7.4.1).

    Raises:
        Problem: malformed, or whatever is wrong with the identifier; rejectedIdentifier for a
            wildcard, which cannot be proven ahead.  Tell the client.
    """
    identifier = parse_identifier(payload.get("identifier"))
    if identifier.is_wildcard:
        raise Problem(
            ProblemType.REJECTED_IDENTIFIER,
            f"'{identifier}' is a wildcard, which is proven with an order alone",
            status=403,
        )
    return identifier


def parse_finalize(payload: Mapping[str, Any]) -> bytes:
    """Return the CSR of a finalize request, as the DER the client signed.

    Raises:
        Problem: malformed.  Tell the client.
    """
    return _read_octets(payload, "csr")


def parse_revocation(payload: Mapping[str, Any]) -> Revocation:
    """Return what a revokeCert request asks for.

    Raises:
        Problem: malformed or badRevocationReason.  Tell the client.
    """
    certificate_der = _read_octets(payload, "certificate")
    reason = payload.get("reason", 0)
    if isinstance(reason, bool) or not isinstance(reason, int):
        _malformed("reason is not an integer")
    if reason not in REVOCATION_REASONS:
        raise Problem(
            ProblemType.BAD_REVOCATION_REASON,
            f"reason {reason} is no CRLReason, expected one of "
            + ", ".join(str(code) for code in sorted(REVOCATION_REASONS)),
        )
    return Revocation(certificate_der, reason)


def _read_identifiers(items: list[Any]) -> tuple[Identifier, ...]:
    identifiers: list[Identifier] = []
    problems: list[Problem] = []
    for item in items:
        try:
            identifiers.append(parse_identifier(item))
        except Problem as problem:
            if problem.type is ProblemType.MALFORMED:
                raise
            problems.append(_about(problem, item))
    if len(problems) == 1 and len(items) == 1:
        raise problems[0]
    if problems:
        kinds = {problem.type for problem in problems}
        raise Problem(
            kinds.pop() if len(kinds) == 1 else ProblemType.COMPOUND,
            f"{len(problems)} of {len(items)} identifiers are refused, see subproblems",
            subproblems=problems,
        )
    if len(set(identifiers)) != len(identifiers):
        twice = next(i for n, i in enumerate(identifiers) if i in identifiers[:n])
        _malformed(f"identifier '{twice}' comes twice")
    return tuple(identifiers)


def _about(problem: Problem, item: Mapping[str, Any]) -> Problem:
    subject = ReportedIdentifier(printable(item["type"], 64), printable(item["value"], 300))
    return Problem(problem.type, problem.detail, identifier=subject)


def _read_contacts(payload: Mapping[str, Any]) -> tuple[str, ...] | None:
    contacts = payload.get("contact")
    if contacts is None:
        return None
    if not isinstance(contacts, list) or not all(isinstance(c, str) for c in contacts):
        _malformed("contact is not a list of strings")
    if len(contacts) > MAX_CONTACTS:
        _malformed(f"contact has {len(contacts)} entries, the limit is {MAX_CONTACTS}")
    return tuple(_read_contact(contact) for contact in contacts)


def _read_contact(contact: str) -> str:
    """Return a contact URL that is one ``mailto:`` with one address (RFC 8555 §7.3)."""
    scheme, colon, address = contact.partition(":")
    shown = printable(contact, 300)
    if not colon:
        raise Problem(
            ProblemType.INVALID_CONTACT, f"contact '{shown}' is no URL, expected mailto:address"
        )
    if scheme.lower() != "mailto":
        raise Problem(
            ProblemType.UNSUPPORTED_CONTACT, f"contact '{shown}' has another scheme than mailto"
        )
    for sign, what in _CONTACT_EXTRAS:
        if sign in address:
            raise Problem(
                ProblemType.INVALID_CONTACT, f"contact '{shown}' has {what}, expected one address"
            )
    try:
        return "mailto:" + canonical_email_address(address)
    except Problem as problem:
        raise Problem(ProblemType.INVALID_CONTACT, f"contact {problem.detail}") from None


def _read_flag(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name, False)
    if not isinstance(value, bool):
        _malformed(f"{name} is not true or false")
    return value


def _read_time(payload: Mapping[str, Any], name: str) -> datetime | None:
    value = payload.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        _malformed(f"{name} is not a string")
    try:
        return parse_timestamp(value)
    except ValueError as error:
        _malformed(f"{name} {error}")


def _read_profile(payload: Mapping[str, Any]) -> str | None:
    # eggsampler/acme writes the member as "Profile".
    found = [payload[name] for name in payload if name.lower() == drafts.PROFILE_MEMBER]
    if len(found) > 1:
        _malformed("profile comes twice in different spellings")
    value = found[0] if found else None
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PROFILE_CHARS:
        _malformed(f"profile is not a string of 1 to {MAX_PROFILE_CHARS} characters")
    return value


def _read_replaces(payload: Mapping[str, Any]) -> str | None:
    value = payload.get("replaces")
    if value is None:
        return None
    if not isinstance(value, str):
        _malformed("replaces is no certificate identifier of RFC 9773 §4.1")
    try:
        return parse_cert_id(value)
    except Problem as problem:
        _malformed(f"replaces: {problem.detail}")


def _read_octets(payload: Mapping[str, Any], name: str) -> bytes:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        _malformed(f"{name} is missing, expected base64url of DER")
    try:
        return parse_base64url(value)
    except ValueError as error:
        _malformed(f"{name} {error}")


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)
