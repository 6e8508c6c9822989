"""Which addresses a validation may contact.

Whoever asks for a certificate chooses the name, and so the address that is contacted: without
limits the broker would be everyone's way into its own network.  A community lists the networks
it validates in, and what it does not list is not contacted.  Nothing here opens a connection;
a `Target` exists only for an address and port that were found fit, and only a target is
connected to.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

__all__ = [
    "Endpoint",
    "IpAddress",
    "IpNetwork",
    "Proxy",
    "RefusedTarget",
    "Target",
    "ValidationSettings",
    "canonical_address",
    "is_own_address",
    "verify_target",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_TIMEOUT: Final = timedelta(seconds=10)
"""How long one validation may take in all; Boulder allows the same."""

HTTP_PORT: Final = 80
"""Where http-01 looks (RFC 8555 §8.3)."""

HTTPS_PORT: Final = 443
"""Where an https redirect leads (RFC 9110 §4.2.2)."""

TLS_ALPN_PORT: Final = 443
"""Where tls-alpn-01 looks (RFC 8737 §3)."""

_NEVER: Final[tuple[tuple[IpNetwork, str], ...]] = tuple(
    (ipaddress.ip_network(text), what)
    for text, what in (
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("255.255.255.255/32", "broadcast"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
        # Metadata services that lie outside the link-local ranges, where anyone who is let in
        # reads the machine's credentials: Alibaba, Oracle classic, Azure, AWS, Google.
        ("100.100.100.200/32", "a metadata service"),
        ("192.0.0.192/32", "a metadata service"),
        ("168.63.129.16/32", "a metadata service"),
        ("fd00:ec2::254/128", "a metadata service"),
        ("fd20:ce::254/128", "a metadata service"),
    )
)
_ONLY_IF_NAMED: Final[tuple[tuple[IpNetwork, str], ...]] = tuple(
    (ipaddress.ip_network(text), what)
    for text, what in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        # Other spellings of IPv4 addresses, which a network may or may not translate.
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("2001::/32", "Teredo"),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port; an unspecified address stands for every address of this machine."""

    address: IpAddress
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The way out of a network that has no other: an HTTP proxy.

    Attributes:
        address: Host and port.  They are the operator's and are judged by nobody.
        is_forwarding: Whether plain HTTP is handed over as a request, for proxies that tunnel to
            port 443 alone.  The proxy then looks the name up again for itself.  Otherwise it is
            asked for a tunnel to the very address that was judged.
        authorization: Value of Proxy-Authorization.
    """

    address: tuple[str, int]
    is_forwarding: bool = False
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """How one community's challenges are validated.

    Attributes:
        resolvers: DNS resolvers, asked in this order; empty: the machine's own.
        hosts: Addresses of names, as exact lower case names; looked at before DNS.
        http_port: Where http-01 looks, and where an http redirect without a port leads.
        https_port: Where an https redirect without a port leads.
        tls_alpn_port: Where tls-alpn-01 looks.
        networks_allow: The only networks that may be contacted.  Loopback, and IPv6 ranges that
            stand for IPv4 addresses, count only when a network listed here lies inside them:
            ``0.0.0.0/0`` does not open ``127.0.0.1``.
        networks_deny: Exceptions to ``networks_allow``.
        timeout: How long one validation may take in all.
        proxy: The HTTP proxy through which all connections go; None: straight.
        own_endpoints: Where the broker itself listens: never contacted, whatever is allowed.
            To have one contacted nevertheless, leave it out.
    """

    resolvers: tuple[Endpoint, ...] = ()
    hosts: Mapping[str, tuple[IpAddress, ...]] = field(default_factory=dict)
    http_port: int = HTTP_PORT
    https_port: int = HTTPS_PORT
    tls_alpn_port: int = TLS_ALPN_PORT
    networks_allow: tuple[IpNetwork, ...] = ()
    networks_deny: tuple[IpNetwork, ...] = ()
    timeout: timedelta = DEFAULT_TIMEOUT
    proxy: Proxy | None = None
    own_endpoints: frozenset[Endpoint] = frozenset()

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the only ports that may be contacted."""
        return tuple(dict.fromkeys((self.http_port, self.https_port, self.tls_alpn_port)))


@dataclass(frozen=True, slots=True)
class Target:
    """An address and port that may be contacted.  Only `verify_target` makes one."""

    address: IpAddress
    port: int


class RefusedTarget(Exception):
    """An address or port that may not be contacted; the text is the reason."""


def canonical_address(address: IpAddress) -> IpAddress:
    """Return the address that a connection really goes to: IPv4 for an IPv4-mapped one."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_own_address(address: IpAddress) -> bool:
    """Return whether *address* belongs to this machine.

    A socket can be bound to an address only where it is local; nothing is sent.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def verify_target(
    address: IpAddress,
    port: int,
    settings: ValidationSettings,
    *,
    is_own: Callable[[IpAddress], bool] = is_own_address,
) -> Target:
    """Return the target, proven fit to be contacted by this community.

    An IPv6 address that stands for an IPv4 address (6to4, NAT64) has to be fit as both.

    Raises:
        RefusedTarget: Do not contact it.
    """
    address = canonical_address(address)
    if port not in settings.ports:
        expected = " or ".join(str(one) for one in settings.ports)
        raise RefusedTarget(f"port {port} is refused, expected {expected}")
    for form in (address, *_embedded(address)):
        fault = _check_address(form, settings)
        if fault is not None:
            named = f"{address}" if form == address else f"{address} (that is {form})"
            raise RefusedTarget(f"address {named} is refused: {fault}")
        if _is_own_endpoint(form, port, settings, is_own):
            raise RefusedTarget(f"address {address} port {port} is refused: the broker's own")
    return Target(address, port)


def _check_address(address: IpAddress, settings: ValidationSettings) -> str | None:
    if getattr(address, "scope_id", None) is not None:
        return "it has a zone"
    for network, what in _NEVER:
        if address in network:
            return what
    for network in settings.networks_deny:
        if address in network:
            return f"{network} is denied"
    allowing = [network for network in settings.networks_allow if address in network]
    for network, what in _ONLY_IF_NAMED:
        if address in network and not any(_is_inside(allowed, network) for allowed in allowing):
            return f"{what}, and no allowed network is part of {network}"
    return None if allowing else "no allowed network contains it"


def _is_own_endpoint(
    address: IpAddress,
    port: int,
    settings: ValidationSettings,
    is_own: Callable[[IpAddress], bool],
) -> bool:
    mine = [canonical_address(own.address) for own in settings.own_endpoints if own.port == port]
    if address in mine:
        return True
    # A listener on 0.0.0.0 may be reached at ::1 by way of its IPv6 twin, and the other way
    # round, so the families are not told apart.
    return any(own.is_unspecified for own in mine) and is_own(address)


def _embedded(address: IpAddress) -> tuple[ipaddress.IPv4Address, ...]:
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    return ()


def _is_inside(network: IpNetwork, outer: IpNetwork) -> bool:
    if isinstance(network, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return network.subnet_of(outer)
    if isinstance(network, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return network.subnet_of(outer)
    return False
