"""The name constraints that a CA certificate of ours is made with (RFC 5280 §4.2.1.10).

Only written here.  Reading them, in certificates of ours and of others, is
``protocol.constraints``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from broker.issuance.errors import Broken
from broker.policy.names import MailPattern, Reach, parse_pattern
from broker.protocol.identifiers import canonical_dns_name
from broker.protocol.problems import Problem

__all__ = [
    "UNCONSTRAINED",
    "IpNetwork",
    "PermittedNames",
    "certifiable_types",
    "mail_subtree",
    "name_constraints_extension",
    "permitted_names",
]

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_EVERY_ADDRESS: Final[tuple[IpNetwork, ...]] = (
    ipaddress.IPv4Network("0.0.0.0/0"),
    ipaddress.IPv6Network("::/0"),
)


@dataclass(frozen=True, slots=True)
class PermittedNames:
    """What a CA may certify: DNS names at or below these suffixes, addresses in these networks,
    e-mail of these addresses, hosts or, behind a dot, domains.

    With all empty there is no constraint.  With one given, the others mean what they say: no
    networks, no IP addresses.
    """

    dns_suffixes: tuple[str, ...] = ()
    networks: tuple[IpNetwork, ...] = ()
    mail: tuple[str, ...] = ()


UNCONSTRAINED: Final = PermittedNames()
"""Any name: for a CA whose constraints are written elsewhere, or nowhere."""


def name_constraints_extension(permitted: PermittedNames) -> x509.NameConstraints | None:
    """Return the extension that holds a CA to *permitted*, or None for no constraint.

    Raises:
        Broken: A suffix is no DNS name.
    """
    if permitted == UNCONSTRAINED:
        return None
    subtrees: list[x509.GeneralName] = [
        x509.DNSName(_suffix(text)) for text in permitted.dns_suffixes
    ]
    subtrees += [x509.IPAddress(network) for network in permitted.networks]
    # No subtree excludes all e-mail for every verifier: where none is permitted, none is certified
    # (`certifiable_types`).
    subtrees += [x509.RFC822Name(subtree) for subtree in permitted.mail]
    # A type that no permitted subtree mentions is unconstrained (RFC 5280 §4.2.1.10), so what
    # may not be certified at all has to be excluded.
    versions = {network.version for network in permitted.networks}
    excluded: list[x509.GeneralName] = [
        x509.IPAddress(network) for network in _EVERY_ADDRESS if network.version not in versions
    ]
    if not permitted.dns_suffixes:
        excluded.append(x509.DNSName(""))
    return x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=excluded or None)


def certifiable_types(constraints: Iterable[x509.NameConstraints]) -> frozenset[str]:
    """Return which of ``dns``, ``ip`` and ``email`` is left to certify under all of *constraints*.

    A type of which everything is excluded is none to offer: an order for it would be found out
    only when it is finalized.  Nor is e-mail under constraints that say nothing of it: whoever
    held a CA to names did not mean it to certify every address of e-mail.
    """
    constraints = tuple(constraints)
    excluded = {
        str(subtree.value)
        for one in constraints
        for subtree in one.excluded_subtrees or ()
        if isinstance(subtree, x509.DNSName | x509.IPAddress)
    }
    has_addresses = not {str(network) for network in _EVERY_ADDRESS} <= excluded
    has_mail = all(
        any(isinstance(subtree, x509.RFC822Name) for subtree in one.permitted_subtrees or ())
        for one in constraints
    )
    types = {"dns": "" not in excluded, "ip": has_addresses, "email": has_mail}
    return frozenset(type_ for type_, is_left in types.items() if is_left)


def _suffix(text: str) -> str:
    name = text.lower()
    try:
        # A single label such as `internal` is a fair suffix, though never a name to ask for.
        canonical_dns_name(f"any.{name}")
    except Problem as problem:
        raise Broken(f"permitted suffix '{text}' is no DNS name: {problem.detail}") from None
    return name


def mail_subtree(text: str) -> str:
    """Return how a constraint writes what the pattern *text* of e-mail covers.

    Raises:
        Broken: It is no such pattern, or covers every address.
    """
    try:
        pattern = parse_pattern(text)
    except ValueError as error:
        raise Broken(f"permitted e-mail: {error}") from None
    if not isinstance(pattern, MailPattern) or not pattern.domain.base:
        raise Broken(f"permitted e-mail '{text}' names no domain, expected such as '@corp.example'")
    base = pattern.domain.base
    if pattern.local is not None:
        return f"{pattern.local}@{base}"
    return base if pattern.domain.reach is Reach.EXACT else f".{base}"


def permitted_names(certificate: x509.Certificate) -> PermittedNames:
    """Return what a CA certificate of ours was permitted, so that its successor can be too."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return UNCONSTRAINED
    subtrees = found.permitted_subtrees or []
    return PermittedNames(
        dns_suffixes=tuple(one.value for one in subtrees if isinstance(one, x509.DNSName)),
        networks=tuple(
            one.value
            for one in subtrees
            if isinstance(one, x509.IPAddress)
            and isinstance(one.value, ipaddress.IPv4Network | ipaddress.IPv6Network)
        ),
        mail=tuple(one.value for one in subtrees if isinstance(one, x509.RFC822Name)),
    )
