"""Where a request came from: the connection's other end, or what a named proxy there reports.

Anybody can write a header, so one is read only from proxies that the configuration names, and of
what it lists only as much as such proxies wrote: from the right, up to the first address that is
none of theirs.  What is left then cannot have been made up by the client.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware
from cryptography import x509

from broker.issuance.origins import NOWHERE, Origin
from broker.policy.decisions import ClientCertificate
from broker.web.problems import Handler

__all__ = ["IpNetwork", "Origins", "ProxyHeader", "origin_of", "peer_of"]

MAX_HOPS: Final = 20
"""Most addresses that are read of one header: more proxies in a row nobody has."""

_ORIGIN: Final = web.RequestKey("origin", Origin)
"""Key of a request under which its origin is kept."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyHeader(StrEnum):
    """The header in which proxies tell whom they speak for."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"
    """RFC 7239 §5.2."""


class Origins:
    """Tells where requests of one listener came from."""

    def __init__(
        self,
        proxies: Sequence[IpNetwork] = (),
        header: ProxyHeader = ProxyHeader.X_FORWARDED_FOR,
    ) -> None:
        """Believe *header* from *proxies* alone."""
        self._proxies = tuple(proxies)
        self._header = header

    @property
    def middleware(self) -> Middleware:
        """Return what notes the origin of each request, as aiohttp takes it."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            request[_ORIGIN] = self.of(request)
            return await handler(request)

        return note

    def of(self, request: web.Request) -> Origin:
        """Return where *request* came from."""
        address = self.address(request.remote, request.headers.getall(self._header, ()))
        # What a proxy shows is its own: it says nothing of whom it speaks for.
        shown = None if self.is_proxy(request.remote) else _client_certificate(request)
        return Origin(address=None if address is None else str(address), client_certificate=shown)

    def is_proxy(self, peer: str | None) -> bool:
        """Return whether *peer* is one of the named proxies."""
        address = _parse(peer or "")
        return address is not None and self._is_named(address)

    def address(self, peer: str | None, headers: Sequence[str]) -> IpAddress | None:
        """Return whose request it is; None: the proxies said something that is no address."""
        address = _parse(peer or "")
        if address is None or not self._is_named(address):
            return address
        hops = (hop for line in reversed(headers) for hop in self._hops(line))
        for hop in itertools.islice(hops, MAX_HOPS):
            address = _parse(self._node(hop))
            if address is None or not self._is_named(address):
                return address
        return address

    def _is_named(self, address: IpAddress) -> bool:
        return any(address in network for network in self._proxies)

    def _hops(self, line: str) -> Iterator[str]:
        """Yield what each proxy wrote of *line*, the last first."""
        if self._header is ProxyHeader.X_FORWARDED_FOR:
            return (hop.strip() for hop in reversed(line.split(",")))
        return _parts_from_right(line, ",")

    def _node(self, hop: str) -> str:
        if self._header is ProxyHeader.X_FORWARDED_FOR:
            return hop
        pairs = (part.partition("=") for part in _parts_from_right(hop, ";"))
        found = [value for name, _, value in pairs if name.lower() == "for"]
        # Each stands there once at most (RFC 7239 §4).
        return found[0].strip('"') if len(found) == 1 else ""


def origin_of(request: web.Request) -> Origin:
    """Return the origin that the middleware noted."""
    found = request.get(_ORIGIN)
    return found if isinstance(found, Origin) else NOWHERE


def peer_of(request: web.Request) -> str | None:
    """Return whom limits by address are about: the client behind named proxies, or the peer."""
    return origin_of(request).address or request.remote


def _parts_from_right(text: str, separator: str) -> Iterator[str]:
    """Yield the parts of *text* between separators that stand in no quotes, the last first.

    A proxy may quote what its client said, such as the host.  From the right, so that a quote which
    a client left open hides nothing of what proxies wrote behind it.
    """
    end, is_quoted = len(text), False
    for place in range(len(text) - 1, -1, -1):
        is_escaped = is_quoted and text[place - 1 : place] == "\\"
        if text[place] == '"' and not is_escaped:
            is_quoted = not is_quoted
        elif text[place] == separator and not is_quoted:
            yield text[place + 1 : end].strip()
            end = place
    yield text[:end].strip()


def _parse(text: str) -> IpAddress | None:
    """Return the address in *text*, which may have a port or brackets, in its one spelling."""
    bare = text.partition("%")[0]
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _client_certificate(request: web.Request) -> ClientCertificate | None:
    transport = request.transport
    tls: Any = None if transport is None else transport.get_extra_info("ssl_object")
    der: bytes | None = None if tls is None else tls.getpeercert(binary_form=True)
    return None if der is None else describe_certificate(der)


def describe_certificate(der: bytes) -> ClientCertificate:
    """Return what rules look at of a certificate that TLS has verified.

    One that cannot be read to the end still has its fingerprint, and no names.
    """
    names: list[str] = []
    try:
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        names += [name.lower() for name in found.value.get_values_for_type(x509.DNSName)]
        names += found.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (
        ValueError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        names.clear()
    return ClientCertificate(fingerprint=hashlib.sha256(der).hexdigest(), names=tuple(names))
