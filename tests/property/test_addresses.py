"""Address patterns against the standard library's own arithmetic."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.addresses import parse_address
from broker.policy.names import PatternSet, parse_pattern

Address = st.ip_addresses().filter(lambda address: getattr(address, "ipv4_mapped", None) is None)


@given(st.data())
def test_a_set_finds_the_networks_that_hold_an_address(data: st.DataObject) -> None:
    """As many as there are, in their order, and the first of them."""
    address = data.draw(Address)
    lengths = data.draw(st.lists(st.integers(0, address.max_prefixlen), max_size=5))
    around = [ipaddress.ip_network(f"{address}/{length}", strict=False) for length in lengths]
    others = [
        ipaddress.ip_network(f"{one}/{one.max_prefixlen}")
        for one in data.draw(st.lists(Address, max_size=3))
    ]
    mixed = data.draw(st.permutations([*around, *others]))
    usable = [one for one in mixed if getattr(one.network_address, "ipv4_mapped", None) is None]
    patterns = PatternSet.parse([str(one) for one in usable])
    expected = tuple(place for place, network in enumerate(usable) if address in network)
    assert patterns.touching(str(address)) == expected
    assert patterns.covering(str(address)) == (expected[0] if expected else None)


@given(Address)
def test_an_address_is_its_own_pattern(address: ipaddress.IPv4Address) -> None:
    """What is read from an identifier can be written into a policy."""
    assert parse_address(str(address)) == address
    assert str(parse_pattern(str(address))) == str(address)
