"""The registered domain of a name: what CAs, and quotas, count certificates by.

It is one label more than a public suffix.  Of an address there is none: an IPv4 address stands for
itself, and an IPv6 address for its /64, as CAs that publish a limit count them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final

from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["registered_domain", "registered_domains"]

IPV6_NETWORK_BITS: Final = 64
"""What one customer of a provider is given at the least (RFC 6177 §2), in bits of prefix."""

IsPublicSuffix = Callable[[str], bool]
"""Tells whether a name is itself a public suffix."""


def registered_domain(identifier: Identifier, is_public_suffix: IsPublicSuffix) -> str:
    """Return what a certificate for *identifier* is counted by.

    A name that is a public suffix itself is counted by itself.
    """
    if identifier.type is IdentifierType.IP:
        address = ipaddress.ip_address(identifier.value)
        if address.version == 4:
            return identifier.value
        return str(ipaddress.IPv6Network((int(address), IPV6_NETWORK_BITS), strict=False))
    name = identifier.domain
    labels = name.split(".")
    # The longest public suffix counts: one may stand below the registered domain of another.
    for first in range(len(labels)):
        if is_public_suffix(".".join(labels[first:])):
            return ".".join(labels[max(first - 1, 0) :])
    return name


def registered_domains(
    identifiers: Iterable[Identifier], is_public_suffix: IsPublicSuffix
) -> tuple[str, ...]:
    """Return the registered domains of *identifiers*, each once, sorted."""
    return tuple(sorted({registered_domain(one, is_public_suffix) for one in identifiers}))
