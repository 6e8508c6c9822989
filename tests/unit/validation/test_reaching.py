"""From a host to the addresses that may be contacted."""

import ipaddress
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.validation.failures import Unobserved
from broker.validation.reaching import Reaching
from broker.validation.targets import Proxy, ValidationSettings
from tests.fakes.fake_resolver import FakeResolver

NAME = "www.corp.example"
SETTINGS = ValidationSettings(
    networks_allow=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
)


def reaching(*addresses: str, settings: ValidationSettings = SETTINGS) -> Reaching:
    """Return the way to a name that has these addresses."""
    resolver = FakeResolver()
    resolver.hosts[NAME] = [addresses]
    return Reaching(settings, resolver, is_own=lambda _: False)


async def test_two_of_each_family_are_tried_ipv6_first() -> None:
    """Enough for a broken one of each."""
    found = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3"]
    targets = await reaching(*found).targets(NAME, 80)
    assert [str(one.address) for one in targets] == ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"]
    assert {one.port for one in targets} == {80}


async def test_forbidden_addresses_among_others_are_passed_over() -> None:
    """Hosts with a second, internal address are common."""
    targets = await reaching("192.0.2.1", "10.0.0.1").targets(NAME, 80)
    assert [str(one.address) for one in targets] == ["10.0.0.1"]


async def test_without_a_fit_address_the_first_refusal_is_told() -> None:
    """What stood in the way, and no connection."""
    with pytest.raises(Unobserved, match=r"192\.0\.2\.1 is refused") as caught:
        await reaching("192.0.2.1", "192.0.2.2").targets(NAME, 80)
    assert caught.value.failure.kind == "refused-address"


async def test_only_configured_ports_are_reached() -> None:
    """80 and 443, or where a laboratory has them."""
    assert await reaching("10.0.0.1").targets(NAME, 443)
    with pytest.raises(Unobserved, match="port 22 is refused, expected 80 or 443"):
        await reaching("10.0.0.1").targets(NAME, 22)
    moved = replace(SETTINGS, tls_alpn_port=5001)
    assert await reaching("10.0.0.1", settings=moved).targets(NAME, 5001)


async def test_an_attempt_has_a_share_of_the_time() -> None:
    """So that four of them leave one for the answer."""
    patient = replace(SETTINGS, timeout=timedelta(seconds=10))
    assert reaching(settings=patient).connect_timeout == timedelta(seconds=2)


def test_the_communitys_proxy_is_dialled_through() -> None:
    """Plain HTTP is handed to it only where that was chosen."""
    tunnel = Proxy(address=("proxy.corp.example", 3128))
    assert reaching(settings=replace(SETTINGS, proxy=tunnel)).dialer.forwarder is None
    forwarder = replace(tunnel, is_forwarding=True)
    assert reaching(settings=replace(SETTINGS, proxy=forwarder)).dialer.forwarder == forwarder
