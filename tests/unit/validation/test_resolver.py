"""The parts of looking up that need no DNS server; the others are in tests/contract/validation."""

import ipaddress

from broker.validation.resolver import DnsResolver
from broker.validation.targets import Endpoint

NOBODY = Endpoint(ipaddress.ip_address("192.0.2.53"), 53)


async def test_static_hosts_are_answered_without_dns() -> None:
    """A name in the community's hosts needs no resolver, and IPv6 comes first."""
    addresses = [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")]
    resolver = DnsResolver([NOBODY], {"www.corp.example": addresses})
    assert await resolver.addresses("www.corp.example") == addresses[::-1]
