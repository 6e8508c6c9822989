"""Names to addresses, TXT and CAA records, through the resolvers that a community names.

Whoever is being validated writes these answers, so all of them are counted, cut and read
with suspicion.  dnspython parses the wire; what it raises ends here.  Which of the addresses may
be contacted is ``targets``' to say.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.CAA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.txtbase
import dns.resolver

from broker.issuance.errors import Broken
from broker.protocol.caa import CaaRecord
from broker.protocol.problems import printable
from broker.validation.targets import Endpoint, IpAddress

__all__ = ["DnsResolver", "NameNotFound", "ResolutionFailed", "Resolver"]

MAX_ADDRESSES: Final = 16
"""Most addresses of one family that are kept, in the order they came; Boulder tries two."""

MAX_TXT_RECORDS: Final = 64
"""Most TXT records of one name that are looked through.  More is a name that somebody forgot to
clean up, or an attempt to keep us busy; either way its owner is told."""

MAX_TXT_BYTES: Final = 512
"""Longest TXT record that is kept, in bytes.  A dns-01 answer has 43."""

MAX_CAA_RECORDS: Final = 64
"""Most CAA records of one name that are read; a domain names a handful of CAs."""

MAX_CNAMES: Final = 8
"""Most aliases that are followed from one name to another; delegated validation needs one."""

QUERY_TIMEOUT: Final = timedelta(seconds=2)
"""How long one resolver is waited for before the next is asked; resolvers answer in less than
one, or have lost the packet."""

LOOKUP_TIMEOUT: Final = timedelta(seconds=5)
"""How long one lookup may take in all, with its repetitions; it leaves time to connect."""


class NameNotFound(Exception):
    """The name does not exist, or has no such records; the text says which."""


class ResolutionFailed(Exception):
    """There is no usable answer; the text is the reason."""


class Resolver(Protocol):
    """Answers for names; all methods raise ResolutionFailed."""

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        """Return the addresses of *name*, IPv6 first; never empty.

        Raises:
            NameNotFound: There are none.
        """
        ...

    async def texts(self, name: str) -> Sequence[bytes]:
        """Return the TXT records of *name*, the strings of each joined; empty when the name
        exists and has none.

        Raises:
            NameNotFound: The name does not exist.
        """
        ...

    async def caa(self, name: str) -> Sequence[CaaRecord]:
        """Return the CAA records at *name* itself, aliases followed; empty when it has none.

        Raises:
            NameNotFound: The name does not exist.
        """
        ...


class DnsResolver:
    """A `Resolver` that looks into the static hosts first, then asks DNS.

    Without *resolvers* it asks the machine's (``/etc/resolv.conf``, read once, here; the machine's
    own list of hosts is not looked at).

    Raises:
        Broken: The machine has none either.  Configure some.
    """

    def __init__(
        self,
        resolvers: Sequence[Endpoint] = (),
        hosts: Mapping[str, Sequence[IpAddress]] | None = None,
        *,
        lookup_timeout: timedelta = LOOKUP_TIMEOUT,
    ) -> None:
        self._hosts = dict(hosts or {})
        try:
            self._dns = dns.asyncresolver.Resolver(configure=not resolvers)
        except dns.exception.DNSException as error:
            raise Broken(
                f"no resolvers are configured, and the machine has none: {error}"
            ) from error
        if resolvers:
            self._dns.nameservers = [
                dns.nameserver.Do53Nameserver(str(resolver.address), resolver.port)
                for resolver in resolvers
            ]
        self._dns.timeout = min(QUERY_TIMEOUT, lookup_timeout).total_seconds()
        self._dns.lifetime = lookup_timeout.total_seconds()
        # Neither `search` nor `domain` of the machine may turn one name into another.
        self._dns.search = []
        self._dns.use_search_by_default = False

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        """Return the addresses of *name*, IPv6 first; never empty."""
        if static := self._hosts.get(name):
            return sorted(static, key=lambda address: -address.version)
        answers = await asyncio.gather(
            self._lookup(name, dns.rdatatype.AAAA),
            self._lookup(name, dns.rdatatype.A),
            return_exceptions=True,
        )
        found: list[IpAddress] = []
        faults: list[NameNotFound | ResolutionFailed] = []
        for answer in answers:
            if isinstance(answer, NameNotFound | ResolutionFailed):
                faults.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += [_address(record) for record in answer[:MAX_ADDRESSES]]
        if found:
            # One family that cannot be looked up does not matter while the other can.
            return found
        for fault in faults:
            if isinstance(fault, ResolutionFailed):
                raise fault
        raise faults[0] if faults else NameNotFound(f"{name} has no A and no AAAA record")

    async def texts(self, name: str) -> Sequence[bytes]:
        """Return the TXT records of *name*, the strings of each joined."""
        records = await self._lookup(name, dns.rdatatype.TXT)
        if len(records) > MAX_TXT_RECORDS:
            raise ResolutionFailed(
                f"{name} has {len(records)} TXT records, the limit is {MAX_TXT_RECORDS}"
            )
        return [_text(record) for record in records]

    async def caa(self, name: str) -> Sequence[CaaRecord]:
        """Return the CAA records at *name* itself, aliases followed."""
        records = await self._lookup(name, dns.rdatatype.CAA)
        if len(records) > MAX_CAA_RECORDS:
            raise ResolutionFailed(
                f"{name} has {len(records)} CAA records, the limit is {MAX_CAA_RECORDS}"
            )
        return [_caa(record) for record in records]

    async def _lookup(self, name: str, kind: dns.rdatatype.RdataType) -> list[object]:
        """Return the records, an empty list when the name exists without any."""
        try:
            current = dns.name.from_text(name)
            seen = {current}
            while True:
                answer = await self._dns.resolve(current, kind, raise_on_no_answer=False)
                if answer.response.flags & dns.flags.TC:
                    raise ResolutionFailed(f"the answer for {name} is truncated even over TCP")
                if answer.rrset is not None:
                    return list(answer.rrset)
                # A server that does not follow aliases itself leaves that to us.
                current = answer.canonical_name
                if current in seen:
                    return []
                seen.add(current)
                if len(seen) > MAX_CNAMES:
                    raise ResolutionFailed(f"{name} leads through more than {MAX_CNAMES} aliases")
        except dns.resolver.NXDOMAIN:
            raise NameNotFound(f"{name} does not exist (NXDOMAIN)") from None
        except dns.exception.Timeout:
            raise ResolutionFailed(f"no resolver answered for {name} in time") from None
        except dns.resolver.NoNameservers as error:
            raise ResolutionFailed(f"no resolver answers for {name}: {_rcodes(error)}") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            what = printable(type(error).__name__, 64)
            raise ResolutionFailed(f"the answer for {name} cannot be used: {what}") from None


def _address(record: object) -> IpAddress:
    if not isinstance(record, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA):
        raise ResolutionFailed("an answer has records of a type that was not asked for")
    return ipaddress.ip_address(record.address)


def _text(record: object) -> bytes:
    if not isinstance(record, dns.rdtypes.txtbase.TXTBase):
        raise ResolutionFailed("an answer has records of a type that was not asked for")
    return b"".join(record.strings)[:MAX_TXT_BYTES]


def _caa(record: object) -> CaaRecord:
    if not isinstance(record, dns.rdtypes.ANY.CAA.CAA):
        raise ResolutionFailed("an answer has records of a type that was not asked for")
    # Octets beyond ASCII break the grammar of every property, whatever they are taken for.
    tag, value = record.tag.decode("latin-1").lower(), record.value.decode("latin-1")
    return CaaRecord(record.flags, tag, value)


def _rcodes(error: dns.resolver.NoNameservers) -> str:
    # Each entry is (server, over TCP, port, fault, response); a fault is an exception or the
    # text of the answer's code, such as SERVFAIL.  Nothing of the packet itself is repeated.
    faults = error.kwargs.get("errors", [])
    named = {
        printable(fault[3] if isinstance(fault[3], str) else type(fault[3]).__name__, 64)
        for fault in faults
    }
    return ", ".join(sorted(named)) or "no reason given"
