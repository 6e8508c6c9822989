"""Which addresses may be contacted, and every way around it that has been tried elsewhere."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.validation.targets import (
    Endpoint,
    IpAddress,
    RefusedTarget,
    Target,
    ValidationSettings,
    canonical_address,
    verify_target,
)

EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
OPEN = ValidationSettings(networks_allow=EVERYWHERE)


def is_own_nowhere(address: IpAddress) -> bool:
    """Stand for a machine that has none of the addresses."""
    return False


def verified(
    address: str, settings: ValidationSettings = OPEN, *, port: int = 80, is_mine: bool = False
) -> Target:
    """Judge one address and port."""
    return verify_target(ipaddress.ip_address(address), port, settings, is_own=lambda _: is_mine)


def is_accepted(
    address: str, settings: ValidationSettings = OPEN, *, port: int = 80, is_mine: bool = False
) -> bool:
    """Tell whether one address and port may be contacted."""
    try:
        verified(address, settings, port=port, is_mine=is_mine)
    except RefusedTarget:
        return False
    return True


def allowing(*networks: str) -> ValidationSettings:
    """Return settings that allow exactly these networks."""
    return ValidationSettings(networks_allow=tuple(ipaddress.ip_network(n) for n in networks))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("0.0.0.0", "unspecified", id="unspecified"),
        pytest.param("0.1.2.3", "unspecified", id="this-network"),
        pytest.param("::", "unspecified", id="unspecified-6"),
        pytest.param("255.255.255.255", "broadcast", id="broadcast"),
        pytest.param("224.0.0.1", "multicast", id="multicast"),
        pytest.param("ff02::1", "multicast", id="multicast-6"),
        pytest.param("169.254.169.254", "link-local", id="metadata"),
        pytest.param("fe80::1", "link-local", id="link-local-6"),
        pytest.param("fe80::1%eth0", "zone", id="link-local-with-zone"),
        pytest.param("2001:db8::1%1", "zone", id="zone"),
        pytest.param("100.100.100.200", "metadata", id="metadata-alibaba"),
        pytest.param("168.63.129.16", "metadata", id="metadata-azure"),
        pytest.param("192.0.0.192", "metadata", id="metadata-oracle"),
        pytest.param("fd00:ec2::254", "metadata", id="metadata-aws-6"),
        pytest.param("fd20:ce::254", "metadata", id="metadata-google-6"),
        pytest.param("127.0.0.1", "loopback", id="loopback"),
        pytest.param("127.8.8.8", "loopback", id="loopback-other"),
        pytest.param("::1", "loopback", id="loopback-6"),
        pytest.param("::ffff:127.0.0.1", "loopback", id="mapped-loopback"),
        pytest.param("::ffff:169.254.169.254", "link-local", id="mapped-metadata"),
        pytest.param("::ffff:0.0.0.0", "unspecified", id="mapped-unspecified"),
        pytest.param("::127.0.0.1", "IPv4-compatible", id="compatible-loopback"),
        pytest.param("::ffff:0:7f00:1", "IPv4-translated", id="translated-loopback"),
        pytest.param("64:ff9b::7f00:1", "loopback", id="nat64-loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", "link-local", id="nat64-metadata"),
        pytest.param("64:ff9b:1::1", "local NAT64", id="nat64-local"),
        pytest.param("2002:7f00:1::1", "loopback", id="6to4-loopback"),
        pytest.param("2002:a9fe:a9fe::1", "link-local", id="6to4-metadata"),
        pytest.param("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo", id="teredo"),
    ],
)
def test_address_is_refused_even_where_everything_is_allowed(address: str, reason: str) -> None:
    """Allowing every network opens neither loopback nor metadata, in no spelling."""
    with pytest.raises(RefusedTarget, match=reason):
        verified(address)


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "192.168.0.9", "100.64.0.1", "2001:db8::1", "fd12::1", "64:ff9b::a01:203"],
)
def test_ordinary_address_is_accepted_where_everything_is_allowed(address: str) -> None:
    """The negative twin: private and public addresses are fit once their network is allowed."""
    target = verified(address)
    assert (target.address, target.port) == (ipaddress.ip_address(address), 80)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        pytest.param("127.0.0.1", "127.0.0.0/8", id="loopback"),
        pytest.param("127.0.0.1", "127.0.0.1/32", id="loopback-host"),
        pytest.param("::1", "::1/128", id="loopback-6"),
        pytest.param("::ffff:127.0.0.1", "127.0.0.0/8", id="mapped-loopback"),
        pytest.param("64:ff9b:1::1", "64:ff9b:1::/48", id="local-nat64"),
    ],
)
def test_special_range_opens_when_a_network_inside_it_is_named(address: str, network: str) -> None:
    """Naming loopback opens it, and naming something around it does not."""
    assert verified(address, allowing(network)).address == canonical_address(
        ipaddress.ip_address(address)
    )
    with pytest.raises(RefusedTarget):
        verified(address, allowing("0.0.0.0/0", "::/0", "126.0.0.0/7"))


def test_metadata_stays_closed_even_when_named() -> None:
    """No configuration opens the link-local range."""
    with pytest.raises(RefusedTarget, match="link-local"):
        verified("169.254.169.254", allowing("169.254.169.254/32"))


def test_nothing_allowed_means_nothing_contacted() -> None:
    """An empty list opens nothing."""
    with pytest.raises(RefusedTarget, match="no allowed network"):
        verified("192.0.2.1", ValidationSettings())


def test_only_listed_networks_are_contacted() -> None:
    """A neighbour of an allowed network is refused, the network itself is not."""
    settings = allowing("10.20.0.0/16")
    assert is_accepted("10.20.255.255", settings)
    with pytest.raises(RefusedTarget, match="no allowed network"):
        verified("10.21.0.0", settings)


def test_denied_network_is_an_exception_to_an_allowed_one() -> None:
    """Deny wins over allow, also through another spelling of the address."""
    settings = replace(OPEN, networks_deny=(ipaddress.ip_network("10.9.0.0/16"),))
    assert is_accepted("10.8.0.1", settings)
    assert is_accepted("64:ff9b::a08:1", settings)
    for address in ("10.9.0.1", "::ffff:10.9.0.1", "64:ff9b::a09:1", "2002:a09:1::1"):
        with pytest.raises(RefusedTarget, match="is denied"):
            verified(address, settings)


def test_nat64_address_has_to_be_allowed_as_the_ipv4_address_it_stands_for() -> None:
    """An IPv6 network alone does not open IPv4 through a translator."""
    with pytest.raises(RefusedTarget, match=r"that is 10\.0\.0\.1"):
        verified("64:ff9b::a00:1", allowing("::/0"))
    assert is_accepted("64:ff9b::a00:1", allowing("::/0", "10.0.0.0/8"))


@pytest.mark.parametrize("port", [22, 8080, 0, 65535])
def test_other_ports_are_refused(port: int) -> None:
    """Only the ports where http and https live are contacted."""
    with pytest.raises(RefusedTarget, match=f"port {port} is refused"):
        verified("192.0.2.1", port=port)


@pytest.mark.parametrize("port", [80, 443])
def test_web_ports_are_accepted(port: int) -> None:
    """The negative twin."""
    assert verified("192.0.2.1", port=port).port == port


def test_configured_ports_replace_the_usual_ones() -> None:
    """A community on other ports is contacted on those and not on 80."""
    settings = replace(OPEN, http_port=5002, https_port=5001)
    assert is_accepted("192.0.2.1", settings, port=5002)
    with pytest.raises(RefusedTarget, match="expected 5002 or 5001"):
        verified("192.0.2.1", settings, port=80)


@pytest.mark.parametrize(
    ("own", "address"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="plain"),
        pytest.param("192.0.2.1", "::ffff:192.0.2.1", id="mapped"),
        pytest.param("192.0.2.1", "64:ff9b::c000:201", id="nat64"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="listening-on-mapped"),
    ],
)
def test_own_endpoint_is_refused_and_its_neighbours_are_not(own: str, address: str) -> None:
    """The broker's own listener is never contacted; other ports and addresses are."""
    endpoint = Endpoint(ipaddress.ip_address(own), 443)
    settings = replace(OPEN, own_endpoints=frozenset({endpoint}))
    with pytest.raises(RefusedTarget, match="the broker's own"):
        verified(address, settings, port=443)
    assert is_accepted(address, settings, port=80)
    assert is_accepted("192.0.2.2", settings, port=443)


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_listener_on_every_address_covers_the_addresses_of_this_machine(wildcard: str) -> None:
    """Listening on 0.0.0.0 closes that port on each address of the machine, on no other's."""
    endpoint = Endpoint(ipaddress.ip_address(wildcard), 443)
    settings = replace(OPEN, own_endpoints=frozenset({endpoint}))
    with pytest.raises(RefusedTarget, match="the broker's own"):
        verified("192.0.2.1", settings, port=443, is_mine=True)
    assert is_accepted("192.0.2.1", settings, port=443, is_mine=False)
    assert is_accepted("192.0.2.1", settings, port=80, is_mine=True)


@given(st.ip_addresses(v=4))
def test_mapping_an_address_never_changes_the_verdict(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address and its mapped form are refused alike, or lead to one target."""
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    try:
        expected: Target | None = verify_target(address, 80, OPEN, is_own=is_own_nowhere)
    except RefusedTarget:
        expected = None
    try:
        found: Target | None = verify_target(mapped, 80, OPEN, is_own=is_own_nowhere)
    except RefusedTarget:
        found = None
    assert found == expected


@given(st.ip_addresses())
def test_target_is_always_inside_an_allowed_network(address: IpAddress) -> None:
    """Whatever is accepted lies in a network that was listed."""
    settings = allowing("10.0.0.0/8", "fd00::/8", "127.0.0.0/8")
    try:
        target = verify_target(address, 80, settings, is_own=is_own_nowhere)
    except RefusedTarget:
        return
    assert any(target.address in network for network in settings.networks_allow)
