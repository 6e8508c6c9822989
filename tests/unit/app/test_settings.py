"""What the configuration means to the rooms that never see it."""

import base64
import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.app.secrets import Secrets
from broker.app.settings import (
    EVERYWHERE,
    PRIVATE_NETWORKS,
    account_url,
    builtin_settings,
    issuance_settings,
    validation_settings,
    web_rates,
)
from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.records import AccountRecord
from broker.policy.units import Rate
from broker.protocol.resources import AccountStatus
from broker.upstreams.authority import IssuerSet
from broker.upstreams.builtin_leaf import CaProfile
from broker.validation.targets import (
    Endpoint,
    Proxy,
    RefusedTarget,
    ValidationSettings,
    verify_target,
)
from broker.web.limits import WebRates
from tests.fakes.builtin_ca import make_world
from tests.fakes.clock import START, FakeClock
from tests.unit.config.conftest import parsed

MAC_KEY = bytes(range(32))
VAULT: dict[str, Any] = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": {"method": "token", "token": "file:/run/vault-token"},
}


def settings_for(validation: dict[str, Any], **changes: object) -> ValidationSettings:
    """Return the settings of a community with this validation section."""
    section = {"communities": {"default": {"validation": validation}}, **changes}
    return validation_settings(parsed(section))["default"]


def secrets_of(config: Config) -> Secrets:
    """Return what reads the secrets that *config* refers to, without Vault."""
    return Secrets(config, None, FakeClock())


def test_workflows_know_limits_and_communities() -> None:
    """As they stand in the file."""
    config = parsed(
        {
            "communities": {
                "default": {},
                "lab": {
                    "external_account_required": True,
                    "terms_of_service": "https://pki.corp.example/terms",
                    "terms_version": "2",
                    "pre_authorization": "7d",
                },
            },
            "upstreams.local.communities": ["default", "lab"],
            "limits": {"finalize_wait": "1s", "order_lifetime": "1h", "poll_deadline": "9s"},
        }
    )
    made = issuance_settings(config, secrets_of(config))
    assert set(made.communities) == {"default", "lab"}
    assert made.communities["lab"].external_account_required
    assert made.communities["lab"].terms_of_service == "https://pki.corp.example/terms"
    assert made.communities["lab"].terms_version == "2"
    assert made.communities["lab"].pre_authorization == timedelta(days=7)
    assert made.communities["default"].pre_authorization is None
    assert not made.communities["default"].external_account_required
    assert made.finalize_wait == timedelta(seconds=1)
    assert made.order_lifetime == timedelta(hours=1)
    assert made.poll_deadline == timedelta(seconds=9)


def test_rates_are_taken_over_one_by_one() -> None:
    """Each stands under its own name; one that is off is none."""
    rates = {name: f"{n}/1m" for n, name in enumerate(WebRates.__dataclass_fields__, start=1)}
    made = web_rates(parsed({"limits": {"rates": {**rates, "account": "off"}}}))
    for number, name in enumerate(rates, start=1):
        expected = None if name == "account" else Rate(number, timedelta(minutes=1))
        assert getattr(made, name) == expected


async def test_declared_keys_are_read(tmp_path: Path) -> None:
    """From base64url, as clients are given them."""
    path = tmp_path / "farm.key"
    path.write_text(base64.urlsafe_b64encode(MAC_KEY).decode().rstrip("=") + "\n")
    declared = {"key_id": "farm", "mac_key": f"file:{path}", "names": ["*.build.corp.example"]}
    config = parsed({"external_account_bindings": [declared]})
    (key,) = issuance_settings(config, secrets_of(config)).declared_eab_keys
    assert (key.key_id, key.names) == ("farm", ("*.build.corp.example",))
    assert await key.mac_key() == MAC_KEY


def test_without_a_list_public_addresses_are_open_and_private_ones_are_not() -> None:
    """Whoever says nothing must not find the broker looking around inside."""
    settings = settings_for({})
    assert settings.networks_allow == EVERYWHERE
    assert settings.networks_deny == PRIVATE_NETWORKS
    verify_target(ipaddress.ip_address("198.41.0.4"), 80, settings)
    for inside in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "127.0.0.1"):
        with pytest.raises(RefusedTarget):
            verify_target(ipaddress.ip_address(inside), 80, settings)


def test_with_a_list_that_is_all() -> None:
    """A private network that is named is open; everything else is closed."""
    settings = settings_for({"networks": {"allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/24"]}})
    verify_target(ipaddress.ip_address("10.1.2.3"), 80, settings)
    for closed in ("10.0.0.7", "198.41.0.4", "192.168.1.1"):
        with pytest.raises(RefusedTarget):
            verify_target(ipaddress.ip_address(closed), 80, settings)


def test_proxy_is_taken_over_with_its_credentials() -> None:
    """They are sent as RFC 7617 wants them, and never shown."""
    proxy = {"address": "proxy.corp.example:3128", "credentials": "vault:kv/proxy#pair"}
    validation = {"proxy": proxy, "tls_alpn_port": 5001}
    config = parsed({"vault": VAULT, "communities": {"default": {"validation": validation}}})
    made = validation_settings(config, {"default": b"anna:secret"})["default"]
    assert made.tls_alpn_port == 5001
    assert made.proxy == Proxy(
        address=("proxy.corp.example", 3128),
        authorization=f"Basic {base64.b64encode(b'anna:secret').decode()}",
    )
    assert "YW5uYTpzZWNyZXQ" not in repr(made)
    plain = settings_for({"proxy": {"address": "10.0.0.1:3128", "forward_http": True}})
    assert plain.proxy == Proxy(address=("10.0.0.1", 3128), is_forwarding=True)
    assert settings_for({}).proxy is None


def test_account_is_known_by_the_url_that_its_client_was_given() -> None:
    """Octet by octet: the label of a dns-account-01 record is made of it."""
    account = AccountRecord(
        account_id="a1",
        community="default",
        status=AccountStatus.VALID,
        jwk_json="{}",
        thumbprint="thumbprint",
        contacts=(),
        terms_agreed=True,
        eab_key_id=None,
        created_at=START,
    )
    config = parsed({"external_url": "https://acme.corp.example"})
    assert account_url(config)(account) == "https://acme.corp.example/acme/default/account/a1"


def test_ports_hosts_and_resolvers_are_taken_over() -> None:
    """As they stand in the file."""
    settings = settings_for(
        {
            "resolvers": ["10.0.0.53:5353", "[fd00::53]:53"],
            "hosts": {"printer.corp.example": ["10.1.2.3"]},
            "http_port": 5002,
            "https_port": 5001,
            "timeout": "3s",
        }
    )
    assert [str(one.address) for one in settings.resolvers] == ["10.0.0.53", "fd00::53"]
    assert [one.port for one in settings.resolvers] == [5353, 53]
    assert settings.hosts == {"printer.corp.example": (ipaddress.ip_address("10.1.2.3"),)}
    assert (settings.http_port, settings.https_port) == (5002, 5001)
    assert settings.timeout == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("listen", "own"),
    [
        pytest.param("127.0.0.1:9000", "127.0.0.1", id="address"),
        pytest.param("localhost:9000", "0.0.0.0", id="name"),
    ],
)
def test_own_listeners_are_never_a_target(listen: str, own: str) -> None:
    """One that is given by name may be at any address of this machine, so all count as its."""
    settings = settings_for(
        {"networks": {"allow": ["127.0.0.0/8"]}, "http_port": 9000, "https_port": 9001},
        **{"listen.plain": {"address": listen}},
    )
    assert Endpoint(ipaddress.ip_address(own), 9000) in settings.own_endpoints
    here = ipaddress.ip_address("127.0.0.1")
    with pytest.raises(RefusedTarget, match="the broker's own"):
        verify_target(here, 9000, settings, is_own=lambda _: True)
    verify_target(here, 9001, settings, is_own=lambda _: True)


def test_all_listeners_are_our_own() -> None:
    """ACME, plain and health."""
    settings = settings_for({}, **{"listen.acme.address": "10.0.0.1:8443"})
    ports = sorted(one.port for one in settings.own_endpoints)
    assert ports == [8080, 8081, 8443]


async def test_built_in_ca_issues_as_its_section_says() -> None:
    """Each profile with its usages, policies and lifetimes; the first is the default."""
    profile = {
        "usages": ["server-auth", "client-auth"],
        "key_usages": ["digital-signature"],
        "policy_oids": ["1.3.6.1.4.1.55555.1"],
        "common_name": True,
        "lifetime": "1d",
        "max_lifetime": "2d",
    }
    config = parsed(
        {"upstreams.local.profiles": {"both": profile}, "upstreams.local.crl_lifetime": "1d"}
    )
    section = config.upstreams["local"]
    assert isinstance(section, BuiltinUpstream)
    world = await make_world()
    made = builtin_settings("local", section, IssuerSet(world.issuing))
    assert (made.default_profile, made.crl_lifetime) == ("both", timedelta(days=1))
    assert made.profiles["both"] == CaProfile(
        lifetime=timedelta(days=1),
        max_lifetime=timedelta(days=2),
        extended_key_usages=("serverAuth", "clientAuth"),
        key_usages=("digitalSignature",),
        policy_oids=("1.3.6.1.4.1.55555.1",),
        has_common_name=True,
    )
