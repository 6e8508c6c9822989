"""Patterns for IP addresses, and addresses that nobody can be given.

    10.20.0.7            that address and no other
    10.20.0.0/16         every address of that network
    2001:db8::/32        the same for IPv6

No pattern for names speaks of an address: ``**`` is every DNS name and not one address, so that a
policy which was written for names opens nothing when addresses are asked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from broker.protocol.problems import printable

__all__ = [
    "AddressPattern",
    "AddressSet",
    "IpAddress",
    "IpNetwork",
    "is_private_address",
    "parse_address",
    "parse_address_pattern",
    "reserved_block",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NUMBERS: Final = re.compile(r"[0-9.]+", re.ASCII)

_NOBODYS: Final[tuple[tuple[IpNetwork, str], ...]] = tuple(
    (ipaddress.ip_network(text), what)
    for text, what in (
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
    )
)
"""Addresses of no one host (RFC 6890): no rule can allow them."""

_EVERYBODYS: Final[tuple[tuple[IpNetwork, str], ...]] = tuple(
    (ipaddress.ip_network(text), what)
    for text, what in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("192.0.2.0/24", "for documents"),
        ("198.51.100.0/24", "for documents"),
        ("203.0.113.0/24", "for documents"),
        ("2001:db8::/32", "for documents"),
        ("198.18.0.0/15", "for benchmarks"),
        # Other spellings of IPv4 addresses, under which a network may or may not reach a host.
        ("::/96", "IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("2001::/32", "Teredo"),
        ("2002::/16", "6to4"),
    )
)
"""Addresses that mean another host to everyone: a wide rule does not allow them, only one that
names a network inside the block."""


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """A network, or the network of one address.  ``parse_address_pattern`` makes them."""

    network: IpNetwork

    def __str__(self) -> str:
        is_single = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address) if is_single else str(self.network)


def parse_address_pattern(text: str) -> AddressPattern | None:
    """Return the pattern that *text* stands for, or None when it is one for names.

    Raises:
        ValueError: It is meant for addresses and is no network in its one spelling.
    """
    if "/" not in text and ":" not in text and _NUMBERS.fullmatch(text) is None:
        return None
    shown = printable(text, 300)
    try:
        network = ipaddress.ip_network(text if "%" not in text else "", strict=False)
    except ValueError:
        raise ValueError(
            f"'{shown}' is no IP address and no network, expected such as '10.20.0.0/16'"
        ) from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            raise ValueError(f"'{shown}' is IPv4-mapped, expected the IPv4 network")
    right = str(network) if "/" in text else str(network.network_address)
    if right != text:
        raise ValueError(f"'{shown}' is not the usual spelling of a network, expected '{right}'")
    return AddressPattern(network)


def parse_address(value: str) -> IpAddress | None:
    """Return the address that an identifier's value is, or None for a name.

    No DNS name of ours ends in a number or has a colon (``protocol.identifiers``), so that a
    value is one or the other.
    """
    if ":" not in value and not value[-1:].isdigit():
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


class AddressSet:
    """Address patterns, asked which of them hold an address.

    A question costs a look-up per prefix length that occurs, however many patterns there are.
    """

    __slots__ = ("_places",)

    def __init__(self, patterns: Sequence[tuple[int, AddressPattern]]) -> None:
        """Take patterns, each with the place that an answer names."""
        self._places: dict[tuple[int, int], dict[int, list[int]]] = {}
        for place, pattern in patterns:
            network = pattern.network
            of_length = self._places.setdefault((network.version, network.prefixlen), {})
            of_length.setdefault(int(network.network_address), []).append(place)

    def holding(self, address: IpAddress) -> Iterator[int]:
        """Yield the place of every pattern that holds *address*, in no order."""
        number, bits = int(address), address.max_prefixlen
        for (version, length), networks in self._places.items():
            if version == address.version:
                shift = bits - length
                yield from networks.get(number >> shift << shift, ())


def reserved_block(address: IpAddress, allowed_by: Sequence[IpNetwork]) -> str | None:
    """Return why nobody may be given *address*, or None.

    *allowed_by* are the networks of the rules that allow it: one that lies inside a block which
    is everybody's shows that somebody meant it.
    """
    for network, what in _NOBODYS:
        if address in network:
            return f"is {what}, and the address of no one host"
    for network, what in _EVERYBODYS:
        if address in network and not any(_is_inside(one, network) for one in allowed_by):
            return f"is {what}, and no rule within {network} allows it"
    return None


def is_private_address(address: IpAddress) -> bool:
    """Return whether *address* means something inside a private network only.

    A public CA could not issue for it, and the attempt alone may write it into a log for ever.
    """
    return not address.is_global


def _is_inside(network: IpNetwork, outer: IpNetwork) -> bool:
    if isinstance(network, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return network.subnet_of(outer)
    if isinstance(network, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return network.subnet_of(outer)
    return False
