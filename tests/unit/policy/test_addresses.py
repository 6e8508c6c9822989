"""Patterns for addresses: what they hold, what is none, what nobody can be given."""

from __future__ import annotations

import ipaddress

import pytest

from broker.policy.addresses import (
    AddressPattern,
    is_private_address,
    parse_address,
    parse_address_pattern,
    reserved_block,
)
from broker.policy.names import PatternSet, is_private_value


@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        pytest.param("10.20.0.0/16", "10.20.0.0", True, id="first"),
        pytest.param("10.20.0.0/16", "10.20.255.255", True, id="last"),
        pytest.param("10.20.0.0/16", "10.21.0.0", False, id="one-past"),
        pytest.param("10.20.0.0/16", "10.19.255.255", False, id="one-before"),
        pytest.param("10.20.0.7", "10.20.0.7", True, id="single"),
        pytest.param("10.20.0.7", "10.20.0.70", False, id="prefix-of-the-text"),
        pytest.param("0.0.0.0/0", "203.0.113.9", True, id="all-of-IPv4"),
        pytest.param("0.0.0.0/0", "::1", False, id="all-of-IPv4-and-none-of-IPv6"),
        pytest.param("::/0", "10.0.0.1", False, id="all-of-IPv6-and-none-of-IPv4"),
        pytest.param("2001:db8::/32", "2001:db8:ffff::1", True, id="IPv6"),
        pytest.param("2001:db8::/32", "2001:db9::1", False, id="IPv6-outside"),
        pytest.param("2001:db8::1", "2001:db8::1", True, id="IPv6-single"),
        pytest.param("**", "10.20.0.7", False, id="every-name"),
        pytest.param("**", "2001:db8::1", False, id="every-name-IPv6"),
        pytest.param("**.0.7.example", "10.20.0.7", False, id="name-with-numbers"),
        pytest.param("10.20.0.0/16", "x.10.20.example", False, id="name"),
        pytest.param("0.0.0.0/0", "host.example1", False, id="name-that-ends-in-a-digit"),
        pytest.param("**", "host.example1", True, id="name-that-ends-in-a-digit-by-name"),
    ],
)
def test_a_network_holds_its_addresses_and_no_name(pattern: str, value: str, holds: bool) -> None:
    """Numbers are compared, not texts; names and addresses never meet."""
    patterns = PatternSet.parse([pattern])
    assert (patterns.covering(value) == 0) is holds
    assert (patterns.touching(value) == (0,)) is holds


def test_a_mixed_set_answers_with_the_first_pattern_and_with_all() -> None:
    """The order is that of the file, whatever the lengths of the prefixes are."""
    texts = ["**.example", "10.0.0.0/8", "10.20.0.0/16", "a.example", "10.20.0.7", "10.0.0.0/8"]
    patterns = PatternSet.parse(texts)
    assert patterns.covering("10.20.0.7") == 1
    assert patterns.touching("10.20.0.7") == (1, 2, 4, 5)
    assert patterns.touching("a.example") == (0, 3)
    networks = [str(network) for network in patterns.networks_holding("10.20.0.7")]
    assert networks == ["10.0.0.0/8", "10.20.0.0/16", "10.20.0.7/32", "10.0.0.0/8"]
    assert patterns.networks_holding("a.example") == ()


@pytest.mark.parametrize(
    "text", ["10.20.0.0/16", "10.20.0.7", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0", "::/0"]
)
def test_a_pattern_is_written_as_it_was_read(text: str) -> None:
    """So that what is shown can be put into a file."""
    assert str(parse_address_pattern(text)) == text


@pytest.mark.parametrize("text", ["a.example", "**", "*.1a.example", "x1.2.example"])
def test_what_is_meant_for_names_is_left_to_them(text: str) -> None:
    """None, not a fault."""
    assert parse_address_pattern(text) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("10.20.0.1/16", "expected '10.20.0.0/16'", id="host-bits"),
        pytest.param("10.20.0.0/255.255.0.0", "expected '10.20.0.0/16'", id="netmask"),
        pytest.param("2001:DB8::/32", "expected '2001:db8::/32'", id="upper-case"),
        pytest.param("2001:db8:0::1", "expected '2001:db8::1'", id="long"),
        pytest.param("10.20/16", "is no IP address and no network", id="short"),
        pytest.param("10.20.0.0/33", "is no IP address and no network", id="prefix-too-long"),
        pytest.param("10.20.0.256", "is no IP address and no network", id="octet-too-large"),
        pytest.param("10.20.0.07", "is no IP address and no network", id="leading-zero"),
        pytest.param("1.2", "is no IP address and no network", id="two-numbers"),
        pytest.param("a.example/24", "is no IP address and no network", id="name-with-a-prefix"),
        pytest.param("10.20.0.0/", "is no IP address and no network", id="no-prefix"),
        pytest.param("::ffff:10.0.0.0/104", "expected the IPv4 network", id="IPv4-mapped"),
        pytest.param("fe80::1%eth0", "is no IP address and no network", id="zone"),
    ],
)
def test_what_is_no_network_is_refused_with_a_reason(text: str, sentence: str) -> None:
    """At load, not when the first address meets it."""
    with pytest.raises(ValueError, match=r".") as caught:
        PatternSet.parse([text])
    assert sentence in str(caught.value)


def test_a_pattern_is_a_value() -> None:
    """The same network is the same pattern."""
    network = ipaddress.ip_network("10.0.0.0/8")
    assert parse_address_pattern("10.0.0.0/8") == AddressPattern(network)


@pytest.mark.parametrize(
    ("address", "allowed_by", "is_reserved"),
    [
        pytest.param("10.0.0.1", ["10.0.0.0/8"], False, id="private"),
        pytest.param("8.8.8.8", ["0.0.0.0/0"], False, id="public"),
        pytest.param("0.0.0.0", ["0.0.0.0/32"], True, id="unspecified"),
        pytest.param("::", ["::/128"], True, id="unspecified-IPv6"),
        pytest.param("255.255.255.255", ["255.255.255.255/32"], True, id="broadcast"),
        pytest.param("224.0.0.1", ["224.0.0.0/4"], True, id="multicast"),
        pytest.param("fe80::1", ["fe80::/10"], True, id="link-local"),
        pytest.param("127.0.0.1", [], True, id="loopback"),
        pytest.param("127.0.0.1", ["0.0.0.0/0"], True, id="loopback-by-a-wide-rule"),
        pytest.param("127.0.0.1", ["127.0.0.0/8"], False, id="loopback-by-name"),
        pytest.param("::1", ["::/0"], True, id="loopback-IPv6-by-a-wide-rule"),
        pytest.param("::1", ["::1/128"], False, id="loopback-IPv6-by-name"),
        pytest.param("192.0.2.1", ["192.0.2.0/24"], False, id="documents-by-name"),
        pytest.param("2002:7f00:1::", ["::/0"], True, id="6to4"),
        pytest.param("64:ff9b::7f00:1", ["::/0"], True, id="NAT64"),
    ],
)
def test_an_address_of_nobody_or_everybody_is_reserved(
    address: str, allowed_by: list[str], is_reserved: bool
) -> None:
    """Some by no rule, some by none but a rule that means just them."""
    networks = [ipaddress.ip_network(text) for text in allowed_by]
    assert (reserved_block(ipaddress.ip_address(address), networks) is not None) is is_reserved


@pytest.mark.parametrize(
    ("value", "is_private"),
    [
        ("10.0.0.1", True),
        ("100.64.0.1", True),
        ("127.0.0.1", True),
        ("fd00::1", True),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("www.example.com", False),
        ("www.corp.internal", True),
    ],
)
def test_what_a_public_ca_could_not_issue_for_is_private(value: str, is_private: bool) -> None:
    """Addresses that are not reachable from everywhere, like names of private zones."""
    address = parse_address(value)
    if address is not None:
        assert is_private_address(address) is is_private
    assert is_private_value(value) is is_private
