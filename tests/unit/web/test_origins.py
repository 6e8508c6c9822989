"""Where a request came from: only named proxies are believed, and only what they wrote."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict

from broker.issuance.origins import Origin
from broker.web.origins import Origins, ProxyHeader, describe_certificate
from tests.unit.protocol.builders import Authority, private_key

PROXIES = (ipaddress.ip_network("10.0.7.0/24"), ipaddress.ip_network("2001:db8:7::/48"))


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        pytest.param("192.0.2.1", [], "192.0.2.1", id="no-proxy"),
        pytest.param("192.0.2.1", ["10.1.1.1"], "192.0.2.1", id="a-client-that-lies"),
        pytest.param("10.0.7.1", ["192.0.2.9"], "192.0.2.9", id="proxy"),
        pytest.param("10.0.7.1", ["10.1.1.1, 192.0.2.9"], "192.0.2.9", id="client-lied-to-proxy"),
        pytest.param("10.0.7.1", ["192.0.2.9, 10.0.7.2"], "192.0.2.9", id="two-proxies"),
        pytest.param("10.0.7.1", ["192.0.2.9", "10.0.7.2"], "192.0.2.9", id="two-lines"),
        pytest.param("10.0.7.1", [], "10.0.7.1", id="proxy-for-itself"),
        pytest.param("10.0.7.1", ["10.0.7.9"], "10.0.7.9", id="from-among-the-proxies"),
        pytest.param("10.0.7.1", ["unknown"], None, id="unknown"),
        pytest.param("10.0.7.1", [""], None, id="empty"),
        pytest.param("10.0.7.1", ["192.0.2.9, garbage"], None, id="garbage-last"),
        pytest.param("10.0.7.1", ["garbage, 192.0.2.9"], "192.0.2.9", id="garbage-of-the-client"),
        pytest.param("10.0.7.1", ["192.0.2.9:4711"], "192.0.2.9", id="port"),
        pytest.param("10.0.7.1", ["[2001:db8::9]:4711"], "2001:db8::9", id="ipv6-port"),
        pytest.param("2001:db8:7::1", ["2001:db8::9"], "2001:db8::9", id="ipv6"),
        pytest.param("::ffff:10.0.7.1", ["192.0.2.9"], "192.0.2.9", id="mapped-proxy"),
        pytest.param("::ffff:192.0.2.1", ["10.0.0.1"], "192.0.2.1", id="mapped-client"),
        pytest.param("fe80::1%eth0", [], "fe80::1", id="scope"),
        pytest.param(None, [], None, id="unix-socket"),
        pytest.param(None, ["192.0.2.9"], None, id="unix-socket-with-header"),
        pytest.param("10.0.7.1", [", ".join(["10.0.7.2"] * 100)], "10.0.7.2", id="many-hops"),
    ],
)
def test_whose_request_it_is(peer: str | None, headers: Sequence[str], address: str | None) -> None:
    """Read from the right, up to the first that is no proxy of ours."""
    found = Origins(PROXIES).address(peer, headers)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("header", "address"),
    [
        pytest.param("for=192.0.2.9", "192.0.2.9", id="plain"),
        pytest.param('for="[2001:db8::9]:4711"', "2001:db8::9", id="quoted-with-port"),
        pytest.param("proto=https;for=192.0.2.9;by=10.0.7.1", "192.0.2.9", id="among-others"),
        pytest.param("For=192.0.2.9", "192.0.2.9", id="case"),
        pytest.param("for=10.1.1.1, for=192.0.2.9", "192.0.2.9", id="two"),
        pytest.param("for=_hidden", None, id="obfuscated"),
        pytest.param('host="a;for=10.1.1.1";for=192.0.2.9', "192.0.2.9", id="host-that-lies"),
        pytest.param('host="a,for=10.1.1.1";for=192.0.2.9', "192.0.2.9", id="host-with-a-comma"),
        pytest.param(r'host="\",for=10.1.1.1;";for=192.0.2.9', "192.0.2.9", id="escaped-quote"),
        pytest.param('for="x, for=192.0.2.9', "192.0.2.9", id="quote-left-open"),
        pytest.param('host=", for="192.0.2.9"', "192.0.2.9", id="quote-left-open-before-another"),
        pytest.param("for=10.1.1.1;for=192.0.2.9", None, id="twice"),
        pytest.param("by=10.0.7.1", None, id="none"),
    ],
)
def test_the_standard_header(header: str, address: str | None) -> None:
    """RFC 7239 §5.2, where the configuration says so."""
    found = Origins(PROXIES, ProxyHeader.FORWARDED).address("10.0.7.1", [header])
    assert (None if found is None else str(found)) == address


class _Tls:
    """What TLS knows of a connection."""

    def __init__(self, der: bytes) -> None:
        self._der = der

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        """Return the certificate that the other end showed."""
        return self._der if binary_form else None


class _Request:
    """As much of a request as tells where it came from; it is its own transport."""

    def __init__(self, remote: str, der: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.remote = remote
        self.headers = CIMultiDict(headers or {})
        self.transport = self
        self._tls = _Tls(der)

    def get_extra_info(self, name: str) -> object:
        """Return what the transport knows."""
        return self._tls if name == "ssl_object" else None


def test_certificate_of_a_proxy_is_not_its_clients() -> None:
    """Else everybody behind it would be whom its certificate names; a client's own counts."""
    made = Authority.root("Client CA").leaf("proxy.corp.example", key=private_key("ES256", 3))
    der = made.public_bytes(Encoding.DER)
    headers = {"X-Forwarded-For": "192.0.2.9"}
    behind: Any = _Request("10.0.7.1", der, headers)
    assert Origins(PROXIES).of(behind) == Origin(address="192.0.2.9", client_certificate=None)
    direct: Any = _Request("192.0.2.9", der, headers)
    shown = Origins(PROXIES).of(direct).client_certificate
    assert shown is not None
    assert shown.names == ("proxy.corp.example",)


def test_only_proxies_are_unbounded() -> None:
    """The bound on connections of one address is for clients."""
    origins = Origins(PROXIES)
    assert origins.is_proxy("10.0.7.9")
    assert not origins.is_proxy("10.0.8.9")
    assert not origins.is_proxy(None)
    assert not Origins().is_proxy("10.0.7.9")


def test_a_client_certificate_is_described() -> None:
    """Its fingerprint, its DNS names in lower case, its URIs."""
    uri = x509.UniformResourceIdentifier("spiffe://corp.example/web")
    made = Authority.root("Client CA").leaf("WWW.corp.example", uri, key=private_key("ES256", 3))
    shown = describe_certificate(made.public_bytes(Encoding.DER))
    assert shown.names == ("www.corp.example", "spiffe://corp.example/web")
    assert shown.fingerprint == made.fingerprint(hashes.SHA256()).hex()


def test_a_certificate_that_cannot_be_read_has_its_fingerprint() -> None:
    """Rules by fingerprint can speak of it, rules by name cannot."""
    shown = describe_certificate(b"\x30\x00")
    assert shown.names == ()
    assert len(shown.fingerprint) == 64


def test_a_certificate_with_a_name_of_an_odd_kind_has_its_fingerprint() -> None:
    """An x400Address is a name of RFC 5280 §4.2.1.6, and none that is read."""
    made = Authority.root("Client CA").leaf("www.corp.example", key=private_key("ES256", 3))
    der = made.public_bytes(Encoding.DER)
    # The dNSName [2] is made an x400Address [3]; nobody looks at the signature here.
    odd = der.replace(b"\x82\x10www.corp.example", b"\xa3\x10www.corp.example")
    assert odd != der
    assert describe_certificate(odd).names == ()
