"""From the configuration to the settings of the rooms that may not read it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from broker.app.secrets import Secrets
from broker.config import Config, Endpoint
from broker.config.communities import ValidationProxy
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.ports import AccountUrl
from broker.issuance.settings import CommunitySettings, DeclaredEabKey, IssuanceSettings
from broker.upstreams.authority import IssuerSet
from broker.upstreams.builtin import BuiltinSettings
from broker.upstreams.builtin_leaf import CaProfile
from broker.validation.targets import Endpoint as Target
from broker.validation.targets import IpNetwork, Proxy, ValidationSettings
from broker.web.limits import WebRates
from broker.web.links import Links

__all__ = [
    "account_url",
    "builtin_settings",
    "issuance_settings",
    "validation_settings",
    "web_rates",
]

PRIVATE_NETWORKS: Final[tuple[IpNetwork, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
"""What validation does not contact where no network is listed: a community on private addresses
says so, and is then open to these and nothing else."""

EVERYWHERE: Final[tuple[IpNetwork, ...]] = (
    ipaddress.ip_network("0.0.0.0/0"),
    ipaddress.ip_network("::/0"),
)
"""Every address; loopback and the like need naming all the same."""

_ANY_OF_OURS: Final = ipaddress.ip_address("0.0.0.0")  # noqa: S104 - compared with, never bound


def issuance_settings(config: Config, secrets: Secrets) -> IssuanceSettings:
    """Return what the workflows are to know.

    Raises:
        Broken: The MAC key of a declared binding does not lie in Vault, and cannot be read.
    """
    return IssuanceSettings(
        communities={
            name: CommunitySettings(
                name=name,
                terms_of_service=made.terms_of_service,
                external_account_required=made.external_account_required,
                terms_version=made.terms_version,
                terms_instance=made.terms_instructions,
                pre_authorization=made.pre_authorization,
            )
            for name, made in config.communities.items()
        },
        declared_eab_keys=tuple(
            DeclaredEabKey(
                key_id=key.key_id,
                community=key.community,
                mac_key=secrets.octets(key.mac_key, "base64url"),
                names=key.names,
                profiles=key.profiles,
                is_reusable=key.is_reusable,
                owner=key.owner,
                contact=key.contact,
            )
            for key in config.external_account_bindings
        ),
        order_lifetime=config.limits.order_lifetime,
        finalize_wait=config.limits.finalize_wait,
        poll_deadline=config.limits.poll_deadline,
    )


def account_url(config: Config) -> AccountUrl:
    """Return what tells an account's URL as its client knows it."""
    links = Links(config.external_url, config.communities)
    return lambda account: links.of(account.community).account(account.account_id)


def web_rates(config: Config) -> WebRates:
    """Return how often clients may ask."""
    rates = config.limits.rates
    return WebRates(
        address=rates.address,
        new_accounts=rates.new_accounts,
        account=rates.account,
        new_orders=rates.new_orders,
        failed_validations=rates.failed_validations,
    )


def validation_settings(
    config: Config, credentials: Mapping[str, bytes] | None = None
) -> Mapping[str, ValidationSettings]:
    """Return how each community's challenges are looked at, and where never to look.

    *credentials* are those for its proxy, ``user:password``, by community.
    """
    known = credentials or {}
    own = frozenset(_own(endpoint) for endpoint in _listening(config))
    settings = {}
    for name, community in config.communities.items():
        validation = community.validation
        networks = validation.networks
        is_listed = bool(networks.allow)
        settings[name] = ValidationSettings(
            resolvers=tuple(_target(one) for one in validation.resolvers),
            hosts=validation.hosts,
            http_port=validation.http_port,
            https_port=validation.https_port,
            tls_alpn_port=validation.tls_alpn_port,
            networks_allow=networks.allow if is_listed else EVERYWHERE,
            networks_deny=networks.deny if is_listed else (*networks.deny, *PRIVATE_NETWORKS),
            timeout=validation.timeout,
            proxy=None if validation.proxy is None else _proxy(validation.proxy, known.get(name)),
            own_endpoints=own,
        )
    return settings


def _proxy(section: ValidationProxy, credentials: bytes | None) -> Proxy:
    authorization = None
    if credentials is not None:
        pair = base64.b64encode(credentials).decode("ascii")
        authorization = f"Basic {pair}"
    return Proxy(
        address=(section.address.host, section.address.port),
        is_forwarding=section.forward_http,
        authorization=authorization,
    )


def builtin_settings(name: str, config: BuiltinUpstream, issuers: IssuerSet) -> BuiltinSettings:
    """Return how the built-in CA *name* issues."""
    return BuiltinSettings(
        name=name,
        base_url=config.base_url,
        profiles={
            profile: CaProfile(
                lifetime=made.lifetime,
                max_lifetime=made.max_lifetime,
                extended_key_usages=made.extended_key_usages,
                key_usages=made.rfc_key_usages,
                policy_oids=made.policy_oids,
                has_common_name=made.common_name,
            )
            for profile, made in config.profiles.items()
        },
        default_profile=next(iter(config.profiles)),
        issuers=issuers,
        crl_lifetime=config.crl_lifetime,
        backdate=config.backdate,
    )


def _listening(config: Config) -> Sequence[Endpoint]:
    listen = config.listen
    plain = [] if listen.plain is None else [listen.plain.address]
    tls_alpn = [] if listen.tls_alpn is None else [listen.tls_alpn.address]
    agents = [] if listen.agents is None else [listen.agents.address]
    return [listen.acme.address, listen.health.address, *plain, *tls_alpn, *agents]


def _target(endpoint: Endpoint) -> Target:
    return Target(ipaddress.ip_address(endpoint.host), endpoint.port)


def _own(endpoint: Endpoint) -> Target:
    """Return where a listener is; one that is given by name may be at any address of ours."""
    try:
        return _target(endpoint)
    except ValueError:
        return Target(_ANY_OF_OURS, endpoint.port)
