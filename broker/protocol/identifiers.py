"""Identifiers in their one canonical spelling.

Two names are the same exactly when their canonical texts are equal, so every
later comparison is a comparison of strings.  This module knows what a name may
look like, not who may have it: that is policy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

import idna

from broker.protocol.problems import Problem, ProblemType, printable

MAX_NAME_CHARS: Final = 253
"""Longest DNS name, in characters (RFC 1035 §2.3.4, without the root label)."""

MAX_LABEL_CHARS: Final = 63
"""Longest label of a DNS name, in characters (RFC 1035 §2.3.4)."""

MAX_IP_CHARS: Final = 45
"""Longest text of an IP address, in characters: IPv6 with an IPv4 tail."""

MAX_EMAIL_CHARS: Final = 254
"""Longest e-mail address, in characters (RFC 5321 §4.5.3.1.3, without the brackets)."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_LOCAL_PART: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII
)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class IdentifierType(StrEnum):
    """The identifier types we can read (RFC 8555 §9.7.7, RFC 8738, RFC 8823)."""

    DNS = "dns"
    IP = "ip"
    EMAIL = "email"


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """A type and a value that has one spelling.

    `parse_identifier` makes them from what a client asks for, by the rules for
    names that may be asked for.  A certificate can carry others (``localhost``),
    so construction checks the spelling only: visible ASCII, and lower case where
    case means nothing.

    Raises:
        ValueError: For a value that is not in its one spelling; that is our bug.
    """

    type: IdentifierType
    value: str

    def __post_init__(self) -> None:
        folded = self.value
        if self.type is IdentifierType.EMAIL:
            folded = folded.rpartition("@")[2]
        if folded != folded.lower() or _VISIBLE.fullmatch(self.value) is None:
            raise ValueError(f"not a canonical {self.type} value: {printable(self.value, 300)}")

    def __str__(self) -> str:
        return self.value

    @property
    def is_wildcard(self) -> bool:
        """Return whether this is a wildcard name such as ``*.example.com``."""
        return self.type is IdentifierType.DNS and self.value.startswith("*.")

    @property
    def base(self) -> Identifier:
        """Return the identifier that is authorized: this one without ``*.``."""
        return Identifier(self.type, self.value[2:]) if self.is_wildcard else self

    @property
    def domain(self) -> str:
        """Return the DNS name that it stands at: without ``*.``, of e-mail what follows the ``@``.

        Of an IP address that is its own text.
        """
        return self.base.value.rpartition("@")[2]

    def to_json(self) -> dict[str, str]:
        """Return the identifier object of RFC 8555 §7.1.3."""
        return {"type": str(self.type), "value": self.value}


def parse_identifier(obj: object) -> Identifier:
    """Return the identifier a client asks for, in canonical form.

    Members other than ``type`` and ``value`` are ignored.

    Raises:
        Problem: malformed for a wrong shape, unsupportedIdentifier for a type we
            cannot read, rejectedIdentifier for a value, saying what was expected.
    """
    if not isinstance(obj, Mapping):
        raise Problem(ProblemType.MALFORMED, "identifier is not an object with type and value")
    kind, value = obj.get("type"), obj.get("value")
    if not isinstance(kind, str) or not isinstance(value, str):
        raise Problem(
            ProblemType.MALFORMED, "identifier needs the members type and value, both strings"
        )
    try:
        known = IdentifierType(kind)
    except ValueError:
        raise Problem(
            ProblemType.UNSUPPORTED_IDENTIFIER,
            f"identifier type '{printable(kind, 64)}' is not supported, expected "
            + ", ".join(IdentifierType),
        ) from None
    if known is IdentifierType.DNS:
        return Identifier(known, canonical_dns_name(value))
    if known is IdentifierType.IP:
        return Identifier(known, canonical_ip_address(value))
    return Identifier(known, canonical_email_address(value))


def parse_name_or_address(text: str) -> Identifier:
    """Return what a person means who writes a name or an address and no type.

    Raises:
        Problem: rejectedIdentifier, with a sentence saying what was expected.
    """
    is_address = ":" in text or _NUMBER.fullmatch(text.rpartition(".")[2]) is not None
    kind = IdentifierType.IP if is_address else IdentifierType.DNS
    return parse_identifier({"type": kind, "value": text})


def parse_written_identifier(text: str) -> Identifier:
    """Return the same for an address of e-mail as well, which may have ``email:`` in front.

    Raises:
        Problem: rejectedIdentifier, with a sentence saying what was expected.
    """
    if "@" not in text:
        return parse_name_or_address(text)
    return parse_identifier({"type": IdentifierType.EMAIL, "value": text.removeprefix("email:")})


def canonical_dns_name(text: str) -> str:
    """Return a DNS name in lower case A-labels; ``*.`` may stand in front.

    Raises:
        Problem: rejectedIdentifier, with a sentence saying what was expected.
    """
    if not text:
        _reject(text, "is empty, expected a DNS name")
    if len(text) > MAX_NAME_CHARS:
        _reject(text, f"is {len(text)} characters long, the limit is {MAX_NAME_CHARS}")
    if not text.isascii():
        _reject(text, "is not ASCII, expected A-labels" + _a_label_hint(text))
    name = text.lower()
    if name.endswith("."):
        _reject(text, "ends with a dot, expected the name without it")
    labels = name.split(".")
    if labels[0] == "*":
        if len(labels) == 1:
            _reject(text, "is a bare wildcard, expected a name such as *.example.com")
        labels = labels[1:]
    for label in labels:
        _check_label(text, label)
    if len(labels) == 1:
        _reject(text, "is a single label, expected a fully qualified name")
    if _NUMBER.fullmatch(labels[-1]):
        _reject(text, "ends in a number like an IP address, expected a DNS name; see type 'ip'")
    return name


def _check_label(text: str, label: str) -> None:
    if not label:
        _reject(text, "has an empty label")
    if len(label) > MAX_LABEL_CHARS:
        _reject(text, f"has a label of {len(label)} characters, the limit is {MAX_LABEL_CHARS}")
    if "*" in label:
        _reject(text, "has a '*' that is not the whole leftmost label")
    if "_" in label:
        _reject(text, "has an underscore, expected letters, digits and hyphens (RFC 5890 §2.3.1)")
    if _LABEL.fullmatch(label) is None:
        _reject(
            text,
            "has a label that is not made of letters, digits and inner hyphens (RFC 5890 §2.3.1)",
        )
    if label[2:4] == "--":
        _check_reserved_label(text, label)


def _check_reserved_label(text: str, label: str) -> None:
    # The length was checked above, before idna sees the text (CVE-2024-3651).
    if not label.startswith("xn--"):
        _reject(text, "has a label with '--' in third place that is no A-label (RFC 5890 §2.3.1)")
    try:
        again = idna.alabel(idna.ulabel(label)).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        _reject(text, f"has '{label}', which is no valid A-label (RFC 5891 §5.4)")
    if again != label:
        _reject(text, f"has '{label}', expected the A-label '{again}'")


def _a_label_hint(text: str) -> str:
    try:
        return f" such as '{idna.encode(text, uts46=True).decode('ascii')}'"
    except (idna.IDNAError, UnicodeError):
        return ""


def canonical_ip_address(text: str) -> str:
    """Return an IP address, proven to be spelled as RFC 8738 §3 wants it.

    That is four decimal numbers for IPv4 (RFC 1123 §2.1), RFC 5952 §4 for IPv6.  Another spelling
    is refused and not mended: a client that looks for its own spelling in our answers would not
    find it, and is better told which one to write.

    Raises:
        Problem: rejectedIdentifier, with a sentence saying what was expected.
    """
    if len(text) > MAX_IP_CHARS:
        _reject(text, f"is {len(text)} characters long, the limit is {MAX_IP_CHARS}")
    if "%" in text:
        _reject(text, "has a zone, expected an IP address without one")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        _reject(text, "is not an IP address")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        _reject(text, f"is an IPv4-mapped address, expected '{address.ipv4_mapped}'")
    if str(address) != text:
        _reject(text, f"is not in the form of RFC 5952 §4, expected '{address}'")
    return text


def canonical_email_address(text: str) -> str:
    """Return an e-mail address with its domain in canonical form.

    The local part keeps its case: only its mail server may say whether case
    matters (RFC 5321 §2.4).  Quoted local parts and address literals are refused.

    Raises:
        Problem: rejectedIdentifier, with a sentence saying what was expected.
    """
    if len(text) > MAX_EMAIL_CHARS:
        _reject(text, f"is {len(text)} characters long, the limit is {MAX_EMAIL_CHARS}")
    local, at, domain = text.rpartition("@")
    if not at or len(local) > 64 or _LOCAL_PART.fullmatch(local) is None:
        _reject(text, "is not an e-mail address of the form local@domain")
    if domain.startswith("*"):
        _reject(text, "has a wildcard as its domain")
    return f"{local}@{canonical_dns_name(domain)}"


def addresses_beyond(texts: Iterable[str], identifiers: Iterable[Identifier]) -> str:
    """Return those e-mail addresses that are none of *identifiers*, for a sentence; empty: none."""
    known = {one.value for one in identifiers if one.type is IdentifierType.EMAIL}
    return ", ".join(f"'{printable(text, 300)}'" for text in texts if folded(text) not in known)


def folded(text: str) -> str:
    """Return *text* in lower case but for the local part of an e-mail address."""
    local, at, domain = text.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def _reject(text: str, sentence: str) -> NoReturn:
    raise Problem(ProblemType.REJECTED_IDENTIFIER, f"'{printable(text, 300)}' {sentence}")
