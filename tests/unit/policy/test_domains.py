"""What certificates are counted by."""

import pytest
from hypothesis import given

from broker.policy.domains import registered_domain, registered_domains
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.property.strategies import names

SUFFIXES = {"com", "uk", "co.uk", "ck", "compute.example.com", "internal"}


def is_suffix(name: str) -> bool:
    """Return whether *name* is one of the suffixes here, or a label of its own."""
    return name in SUFFIXES or "." not in name


def identifier(kind: str, value: str) -> Identifier:
    """Return an identifier."""
    return Identifier(IdentifierType(kind), value)


@pytest.mark.parametrize(
    ("kind", "value", "domain"),
    [
        pytest.param("dns", "www.example.com", "example.com", id="below"),
        pytest.param("dns", "example.com", "example.com", id="itself"),
        pytest.param("dns", "*.example.com", "example.com", id="wildcard"),
        pytest.param("dns", "a.b.example.co.uk", "example.co.uk", id="longer suffix"),
        pytest.param("dns", "co.uk", "co.uk", id="a suffix itself"),
        pytest.param(
            "dns", "x.y.compute.example.com", "y.compute.example.com", id="private suffix below"
        ),
        pytest.param("dns", "host.corp.internal", "corp.internal", id="private name"),
        pytest.param("ip", "192.0.2.7", "192.0.2.7", id="IPv4"),
        pytest.param("ip", "2001:db8:1:2:3::4", "2001:db8:1:2::/64", id="IPv6"),
        pytest.param("ip", "::1", "::/64", id="IPv6 that looks small"),
        pytest.param("email", "ann@mail.example.com", "example.com", id="mail"),
    ],
)
def test_registered_domain(kind: str, value: str, domain: str) -> None:
    """One label more than the public suffix."""
    assert registered_domain(identifier(kind, value), is_suffix) == domain


def test_each_domain_counts_once() -> None:
    """However many of its names are in one certificate."""
    given_names = [identifier("dns", one) for one in ("a.x.com", "b.x.com", "y.com", "x.com")]
    assert registered_domains(given_names, is_suffix) == ("x.com", "y.com")


@given(names)
def test_domain_holds_the_name(name: str) -> None:
    """It is the name or stands above it, and names below it have the same."""
    domain = registered_domain(identifier("dns", name), is_suffix)
    assert name == domain or name.endswith(f".{domain}")
    assert registered_domain(identifier("dns", f"a.{name}"), is_suffix).endswith(domain)
