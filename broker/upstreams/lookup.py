"""Questions to the DNS, asked so that only our own kinds of failure come back."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.txtbase import TXTBase

from broker.issuance.errors import Broken, Unreachable

__all__ = ["Lookup", "NameServer", "address_of"]

QUERY_TIME: Final = timedelta(seconds=5)
"""Default limit for one question, tries at several resolvers included."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """A name server: an address, or a host name where that is allowed, and its port."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


async def address_of(server: NameServer) -> str:
    """Return the first address of a server that may be given by name.

    Raises:
        Unreachable: The name has no address now.
    """
    try:
        return str(ipaddress.ip_address(server.host))
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"name server {server} has no address: {error.strerror}") from error
    return str(found[0][4][0])


class Lookup:
    """Asks resolvers: those given by address, or the system's own."""

    def __init__(
        self, resolvers: Sequence[NameServer] = (), *, timeout: timedelta = QUERY_TIME
    ) -> None:
        self._given = tuple(resolvers)
        self._timeout = timeout
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def alias_of(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the target of the CNAME at *name*, or None where there is none.

        Raises:
            Unreachable: No resolver answers now.
            Broken: The resolvers cannot be used.
        """
        for record in await self._ask(name, dns.rdatatype.CNAME):
            if isinstance(record, CNAME):
                return record.target
        return None

    async def zone_of(self, name: dns.name.Name) -> dns.name.Name:
        """Return the zone that *name* lies in: the nearest name upwards with an SOA record.

        Raises:
            Unreachable: No resolver answers now.
            Broken: Nothing upwards of *name* is a zone to these resolvers.
        """
        candidate = name
        while candidate != dns.name.root:
            if await self._ask(candidate, dns.rdatatype.SOA):
                return candidate
            candidate = candidate.parent()
        raise Broken(f"no zone is found for {name}; is this name server authoritative for it?")

    async def servers_of(self, zone: dns.name.Name) -> list[str]:
        """Return an address of each authoritative server of *zone*, as far as they have one.

        Raises:
            Unreachable: No resolver answers now.
            Broken: The resolvers cannot be used.
        """
        hosts = [r.target for r in await self._ask(zone, dns.rdatatype.NS) if isinstance(r, NS)]
        addresses = []
        for host in sorted(hosts):
            found = await self._ask(host, dns.rdatatype.A)
            found = found or await self._ask(host, dns.rdatatype.AAAA)
            addresses += [record.to_text() for record in found[:1]]
        return addresses

    async def read_txt(self, server: NameServer, name: dns.name.Name) -> frozenset[str]:
        """Return the TXT values that one server shows at *name*, asked directly.

        Raises:
            Unreachable: It does not answer, or not for this name.
        """
        query = dns.message.make_query(name, dns.rdatatype.TXT, flags=0)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query,
                str(ipaddress.ip_address(server.host)),
                self._timeout.total_seconds(),
                server.port,
            )
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
            raise Unreachable(f"{server}: {str(error) or type(error).__name__}") from error
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unreachable(f"{server}: answered {dns.rcode.to_text(answer.rcode())}")
        return frozenset(
            b"".join(record.strings).decode("latin-1")
            for rrset in answer.answer
            if rrset.name == name
            for record in rrset
            if isinstance(record, TXTBase)
        )

    async def _ask(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> list[dns.rdata.Rdata]:
        """Return the records of *kind* at *name* itself, none where there is none."""
        try:
            answer = await self._ready().resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return []
        except dns.resolver.NoNameservers as error:
            if _is_refused_by_all(error):
                raise Broken(f"{name} {kind.name}: every server asked refuses to answer") from error
            raise Unreachable(f"{name} {kind.name}: every server asked failed") from error
        except dns.exception.Timeout as error:
            limit = self._timeout.total_seconds()
            raise Unreachable(f"{name} {kind.name}: no answer within {limit:g} s") from error
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise Unreachable(f"{name} {kind.name}: {error}") from error
        # A resolver follows aliases; what stands behind one does not stand at the name.
        rrset = answer.rrset
        return list(rrset) if rrset is not None and rrset.name == name else []

    def _ready(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            try:
                resolver = dns.asyncresolver.Resolver(configure=not self._given)
                if self._given:
                    resolver.nameservers = [_nameserver(server) for server in self._given]
            except (dns.exception.DNSException, ValueError, OSError) as error:
                raise Broken(f"resolvers cannot be used: {error}") from error
            resolver.lifetime = self._timeout.total_seconds()
            self._resolver = resolver
        return self._resolver


def _is_refused_by_all(error: dns.resolver.NoNameservers) -> bool:
    responses = [attempt[-1] for attempt in error.kwargs.get("errors", ())]
    return bool(responses) and all(
        isinstance(response, dns.message.Message) and response.rcode() == dns.rcode.REFUSED
        for response in responses
    )


def _nameserver(server: NameServer) -> dns.nameserver.Nameserver:
    return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(server.host)), server.port)
