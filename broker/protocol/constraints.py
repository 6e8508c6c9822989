"""Name constraints of an issuing certificate (RFC 5280 §4.2.1.10).

Understood are DNS names, IP addresses, e-mail addresses and directory names.  A name
of another kind under a constraint of its kind is a finding: unsure means no.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509

from broker.protocol.extensions import general_name_kind
from broker.protocol.identifiers import Identifier, IdentifierType


@dataclass(frozen=True, slots=True)
class ConstrainedNames:
    """The names of one certificate that constraints above it speak of."""

    identifiers: frozenset[Identifier]
    other_kinds: frozenset[str]
    subject: x509.Name


def check_name_constraints(
    constraints: x509.NameConstraints, names: ConstrainedNames
) -> str | None:
    """Return what breaks the constraints, or None."""
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    for identifier in sorted(names.identifiers):
        of_type = [s for s in permitted if general_name_kind(s) == identifier.type]
        if of_type and not any(_is_within(identifier, subtree) for subtree in of_type):
            return f"'{identifier}' is outside the permitted names"
        if any(_is_touching(identifier, subtree) for subtree in excluded):
            return f"'{identifier}' is among the excluded names"
    constrained_kinds = {general_name_kind(s) for s in (*permitted, *excluded)}
    if unclear := constrained_kinds & names.other_kinds:
        return f"names of kind {', '.join(sorted(unclear))} are constrained and cannot be judged"
    return _check_subject(permitted, excluded, names.subject)


def _check_subject(
    permitted: Iterable[x509.GeneralName], excluded: Iterable[x509.GeneralName], subject: x509.Name
) -> str | None:
    if not subject.rdns:
        return None
    roots = [s.value for s in permitted if isinstance(s, x509.DirectoryName)]
    if roots and not any(_is_below(subject, root) for root in roots):
        return "the subject is outside the permitted directory names"
    barred = [s.value for s in excluded if isinstance(s, x509.DirectoryName)]
    if any(_is_below(subject, root) for root in barred):
        return "the subject is among the excluded directory names"
    return None


def _is_below(subject: x509.Name, root: x509.Name) -> bool:
    return _folded(subject)[: len(root.rdns)] == _folded(root)


def _folded(name: x509.Name) -> list[str]:
    return [" ".join(rdn.rfc4514_string().lower().split()) for rdn in name.rdns]


def _is_touching(identifier: Identifier, subtree: x509.GeneralName) -> bool:
    """Return whether an excluded subtree holds the name, or a name its wildcard stands for."""
    if _is_within(identifier, subtree):
        return True
    if not identifier.is_wildcard or not isinstance(subtree, x509.DNSName):
        return False
    parent = _labels(subtree.value.lower().lstrip("."))[1:]
    return parent == _labels(identifier.base.value)


def _is_within(identifier: Identifier, subtree: x509.GeneralName) -> bool:
    if isinstance(subtree, x509.DNSName) and identifier.type is IdentifierType.DNS:
        return _is_within_domain(identifier.value, subtree.value.lower())
    if isinstance(subtree, x509.IPAddress) and identifier.type is IdentifierType.IP:
        network = ipaddress.ip_network(str(subtree.value))
        return ipaddress.ip_address(identifier.value) in network
    if isinstance(subtree, x509.RFC822Name) and identifier.type is IdentifierType.EMAIL:
        return _is_within_mail(identifier.value, subtree.value)
    return False


def _is_within_domain(name: str, root: str) -> bool:
    """Return whether *name* is *root* or below; a leading dot leaves out *root* itself."""
    if not root:
        return True
    labels, suffix = _labels(name), _labels(root.lstrip("."))
    is_below = len(labels) > len(suffix) and labels[-len(suffix) :] == suffix
    return is_below or (labels == suffix and not root.startswith("."))


def _is_within_mail(address: str, root: str) -> bool:
    if "@" in root:
        local, _, domain = root.rpartition("@")
        return address == f"{local}@{domain.lower()}"
    host = address.rpartition("@")[2]
    return _is_within_domain(host, root.lower()) if root.startswith(".") else host == root.lower()


def _labels(name: str) -> Sequence[str]:
    return name.split(".")
