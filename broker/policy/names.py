"""The pattern language for DNS names and e-mail, and sets of patterns that answer fast.

    www.example.com      that name and no other
    *.example.com        exactly one label below example.com
    **.example.com       any number of labels below example.com, not example.com itself
    **                   every DNS name
    @corp.example        every e-mail address of that domain; its domain may have stars as above
    jane@corp.example    that e-mail address and no other

Addresses have patterns of their own, such as ``10.20.0.0/16`` (``addresses``).  A set may hold all
kinds; a pattern of one kind speaks of nothing of another.

Labels are compared whole, in their one spelling (lower case A-labels): no suffix of a text and
no regular expression can be fooled by ``evil-example.com`` or ``example.com.evil.net``.

A wildcard name such as ``*.a.example`` stands for every name one label below ``a.example``.  A
pattern *covers* it when it covers all of those, which allowing needs; a pattern *touches* it
when it covers any of those, which is enough for denying and for a tighter cap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.policy.addresses import (
    AddressPattern,
    AddressSet,
    IpNetwork,
    is_private_address,
    parse_address,
    parse_address_pattern,
)
from broker.protocol.identifiers import MAX_NAME_CHARS, canonical_dns_name
from broker.protocol.problems import Problem, printable

__all__ = [
    "MailPattern",
    "NamePattern",
    "Pattern",
    "PatternSet",
    "Reach",
    "is_private_name",
    "is_private_value",
    "parse_pattern",
]


FEW: Final = 16
"""Most patterns whose tables are made when they are first asked: it takes 20 µs, and whoever asks
is an order that is being decided."""

_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", re.ASCII)


class Reach(StrEnum):
    """How far below its base a pattern reaches."""

    EXACT = ""
    ONE = "*"
    ANY = "**"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern, taken apart.  ``parse_pattern`` makes them."""

    reach: Reach
    base: str
    """The name without stars; empty for ``**`` alone."""

    def __str__(self) -> str:
        return ".".join(part for part in (self.reach.value, self.base) if part)


@dataclass(frozen=True, slots=True)
class MailPattern:
    """Addresses of e-mail below a domain, or one of them.  ``parse_pattern`` makes them."""

    local: str | None
    """What stands in front of the ``@``; None: anything."""
    domain: NamePattern

    def __str__(self) -> str:
        return f"{self.local or ''}@{self.domain}"


Pattern = NamePattern | AddressPattern | MailPattern
"""A pattern of any kind."""


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that *text* stands for, of names, of addresses or of e-mail.

    Raises:
        ValueError: With a sentence for whoever wrote it, naming the A-label where one is meant.
    """
    if "@" in text:
        return _parse_mail_pattern(text)
    addresses = parse_address_pattern(text)
    if addresses is not None:
        return addresses
    shown = printable(text, 300)
    if text == "**":
        return NamePattern(Reach.ANY, "")
    if text.strip("*") in {"", "."}:
        raise ValueError(f"'{shown}' is no pattern, expected a name, '*.name', '**.name' or '**'")
    head, _, rest = text.partition(".")
    reach = {"*": Reach.ONE, "**": Reach.ANY}.get(head, Reach.EXACT)
    base = text if reach is Reach.EXACT else rest
    if "*" in base:
        raise ValueError(f"'{shown}' has a '*' that is not the whole leftmost label")
    return NamePattern(reach, _canonical_base(base, is_exact=reach is Reach.EXACT))


def _parse_mail_pattern(text: str) -> MailPattern:
    local, _, rest = text.rpartition("@")
    shown = printable(text, 300)
    domain = None if "@" in rest or not rest else parse_pattern(rest)
    if not isinstance(domain, NamePattern):
        raise ValueError(f"'{shown}' is no pattern of e-mail, expected such as '@corp.example'")
    if local and (domain.reach is not Reach.EXACT or _LOCAL.fullmatch(local) is None):
        raise ValueError(
            f"'{shown}' is no address of e-mail, expected one such as 'jane@corp.example', or "
            "'@corp.example' for all of a domain"
        )
    return MailPattern(local or None, domain)


def _canonical_base(base: str, *, is_exact: bool) -> str:
    if is_exact:
        try:
            return canonical_dns_name(base)
        except Problem as problem:
            raise ValueError(problem.detail) from None
    # A base may be one label ('**.internal'), which no name may: judge a name below it.
    if len(base) > MAX_NAME_CHARS - 2:
        raise ValueError(f"'{printable(base, 60)}…' is too long to have names below it")
    try:
        return canonical_dns_name(f"x.{base}").removeprefix("x.")
    except Problem as problem:
        raise ValueError(problem.detail.replace("'x.", "'")) from None


def _parent(name: str) -> str:
    return name.partition(".")[2]


class PatternSet:
    """Patterns in the order of their file, asked which of them speaks of a name.

    The answers are positions in the sequence it was made from.  A question costs a look-up per
    label of the name, however many patterns there are.  What few patterns are looked up in is made
    at the first question: most of ten thousand rules are asked nothing for days.
    """

    __slots__ = ("_tables", "patterns")

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._tables = _Tables(self.patterns) if len(self.patterns) > FEW else None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> PatternSet:
        """Return the set of *texts*; raises ValueError for the first that is no pattern."""
        return cls([parse_pattern(text) for text in texts])

    def __len__(self) -> int:
        return len(self.patterns)

    @property
    def has_mail(self) -> bool:
        """Return whether any pattern is one of e-mail."""
        return bool(self.patterns) and bool(self._made().mail or self._made().mailboxes)

    def covering(self, name: str) -> int | None:
        """Return the first pattern that covers *name* or holds that address, or None."""
        return min(self._find(name), default=None)

    def touching(self, name: str) -> tuple[int, ...]:
        """Return every pattern that touches *name*, in order."""
        found = set(self._find(name))
        if name.startswith("*."):
            found.update(self._made().below.get(name[2:], ()))
        elif "@" in name:
            found.update(self._made().alike.get(name.lower(), ()))
        return tuple(sorted(found))

    def networks_holding(self, value: str) -> tuple[IpNetwork, ...]:
        """Return the network of every pattern that holds the address *value*, in order."""
        found = (self.patterns[place] for place in sorted(self._find(value)))
        return tuple(one.network for one in found if isinstance(one, AddressPattern))

    def _made(self) -> _Tables:
        if self._tables is None:
            self._tables = _Tables(self.patterns)
        return self._tables

    def _find(self, name: str) -> Sequence[int]:
        """Return every pattern that covers *name* or holds that address, in no order.

        Texts are looked up rather than patterns: making and hashing those took most of a decision.
        """
        if not self.patterns:
            return ()
        tables = self._made()
        if "@" in name:
            domain = name.rpartition("@")[2]
            found = [tables.mail[n] for n in tables.mail_domains.touching(domain)]
            return [*found, *tables.mailboxes.get(name, ())]
        address = parse_address(name)
        if address is not None:
            return tuple(tables.addresses.holding(address))
        found = []
        if not name.startswith("*."):
            found += tables.exact.get(name, ())
        base = _parent(name)
        found += tables.one.get(base, ()) if base else ()
        while base:
            found += tables.any.get(base, ())
            base = _parent(base)
        found += tables.any.get("", ())
        return found


class _Tables:
    """Positions of patterns, by the text that they are looked up by."""

    __slots__ = (
        "addresses", "alike", "any", "below", "exact", "mail", "mail_domains", "mailboxes", "one"
    )  # fmt: skip

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.exact: dict[str, list[int]] = {}
        self.one: dict[str, list[int]] = {}
        self.any: dict[str, list[int]] = {}
        self.below: dict[str, list[int]] = {}
        self.addresses = AddressSet(
            [(n, one) for n, one in enumerate(patterns) if isinstance(one, AddressPattern)]
        )
        self.mailboxes: dict[str, list[int]] = {}
        # Whether case matters is known to the mail server alone: one spelling is allowed, and all
        # are denied.
        self.alike: dict[str, list[int]] = {}
        domains: list[NamePattern] = []
        self.mail: list[int] = []
        of_reach = {Reach.EXACT: self.exact, Reach.ONE: self.one, Reach.ANY: self.any}
        for place, pattern in enumerate(patterns):
            if isinstance(pattern, MailPattern) and pattern.local is None:
                self.mail.append(place)
                domains.append(pattern.domain)
            elif isinstance(pattern, MailPattern):
                self.mailboxes.setdefault(str(pattern), []).append(place)
                self.alike.setdefault(str(pattern).lower(), []).append(place)
            if not isinstance(pattern, NamePattern):
                continue
            of_reach[pattern.reach].setdefault(pattern.base, []).append(place)
            if pattern.reach is Reach.EXACT:
                self.below.setdefault(_parent(pattern.base), []).append(place)

        self.mail_domains = PatternSet(domains)


_PRIVATE: Final = PatternSet.parse(
    [
        "**.internal",  # reserved by ICANN in July 2024 for private use
        "**.local",  # RFC 6762 §3: multicast DNS
        "**.localhost",  # RFC 6761 §6.3
        "**.home.arpa",  # RFC 8375 §3: residential networks
        "**.test",  # RFC 6761 §6.2
        "**.invalid",  # RFC 6761 §6.4
        "**.alt",  # RFC 9476 §2: names outside the DNS
        # RFC 6762 appendix G: in private use for so long that they will not be delegated.
        "**.intranet",
        "**.private",
        "**.corp",
        "**.home",
        "**.lan",
    ]
)


def is_private_name(name: str) -> bool:
    """Return whether *name* can mean something inside a private network only.

    A public CA could not issue for it, and the attempt alone may write the name into a
    Certificate Transparency log for ever.  ``.example`` is left out: it is for documents, nobody
    names a host by it.
    """
    bare = name.removeprefix("*.")
    return "." not in bare or bare == "home.arpa" or _PRIVATE.covering(name) is not None


def is_private_value(value: str) -> bool:
    """Return whether a name or address can mean something inside a private network only."""
    address = parse_address(value)
    return is_private_name(value) if address is None else is_private_address(address)
