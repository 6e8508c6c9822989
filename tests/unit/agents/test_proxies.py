"""Which way a connection takes."""

import pytest

from agents.proxies import Proxy, ProxyFault, find_proxy

ENVIRONMENT = {"HTTPS_PROXY": "http://user:p%40ss@proxy.test:3128"}


def test_the_environment_names_a_proxy_with_its_login() -> None:
    """HTTPS_PROXY is what every program here knows."""
    assert find_proxy(None, "broker.test", 443, ENVIRONMENT) == Proxy(
        "proxy.test", 3128, "Basic dXNlcjpwQHNz"
    )


def test_what_is_configured_goes_before_the_environment() -> None:
    """NO_PROXY is for the environment's proxy alone."""
    environment = {**ENVIRONMENT, "NO_PROXY": "*"}
    assert find_proxy("http://other.test:8080", "broker.test", 443, environment) == Proxy(
        "other.test", 8080
    )


@pytest.mark.parametrize(
    ("entry", "host", "is_direct"),
    [
        ("*", "broker.test", True),
        ("broker.test", "broker.test", True),
        (".test", "broker.test", True),
        ("*.test", "broker.test", True),
        ("roker.test", "broker.test", False),
        ("broker.test:443", "broker.test", True),
        ("broker.test:8443", "broker.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "broker.test", False),
        ("[::1]:443", "::1", True),
        ("a b:x", "broker.test", False),
    ],
)
def test_no_proxy_covers_names_addresses_and_networks(
    entry: str, host: str, is_direct: bool
) -> None:
    """A name covers all below it, and nothing that merely ends like it."""
    environment = {**ENVIRONMENT, "NO_PROXY": f"other.example, {entry}"}
    assert (find_proxy(None, host, 443, environment) is None) is is_direct


@pytest.mark.parametrize("text", ["https://proxy.test", "socks5://proxy.test", "http://:80", "x:y"])
def test_a_proxy_that_cannot_be_used_is_told(text: str) -> None:
    """It would else be passed over, and what should not leave the site would."""
    with pytest.raises(ProxyFault):
        find_proxy(None, "broker.test", 443, {"HTTPS_PROXY": text})


def test_a_login_is_never_shown() -> None:
    """A proxy is named in errors."""
    found = find_proxy(None, "broker.test", 443, ENVIRONMENT)
    assert repr(found) == "proxy proxy.test:3128"
