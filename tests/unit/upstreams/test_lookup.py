"""Questions to the DNS, as far as none is asked; the rest is shown against a name server."""

import dns.name
import pytest

from broker.issuance.errors import Broken
from broker.upstreams.lookup import Lookup, NameServer, address_of


def test_a_server_is_shown_with_its_port() -> None:
    """As it stands in the configuration."""
    assert str(NameServer("192.0.2.1", 5353)) == "192.0.2.1:5353"


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_needs_no_question(host: str) -> None:
    """It is its own answer."""
    assert await address_of(NameServer(host)) == host


async def test_a_resolver_given_by_name_cannot_be_used() -> None:
    """Nobody would be there to resolve it."""
    lookup = Lookup([NameServer("resolver.example")])
    with pytest.raises(Broken, match="resolvers cannot be used"):
        await lookup.alias_of(dns.name.from_text("www.example.com"))
