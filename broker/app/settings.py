"""From the configuration to the settings of the rooms that may not read it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from broker.config import Config, Endpoint, SecretRef
from broker.issuance.errors import Broken
from broker.issuance.settings import CommunitySettings, DeclaredEabKey, IssuanceSettings
from broker.protocol.encoding import parse_base64url
from broker.protocol.problems import Problem
from broker.validation.targets import Endpoint as Target
from broker.validation.targets import IpNetwork, ValidationSettings

__all__ = ["issuance_settings", "secret_octets", "validation_settings"]

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


def issuance_settings(config: Config) -> IssuanceSettings:
    """Return what the workflows are to know.

    Raises:
        Broken: The MAC key of a declared binding cannot be read.
    """
    return IssuanceSettings(
        communities={
            name: CommunitySettings(
                name=name,
                terms_of_service=made.terms_of_service,
                external_account_required=made.external_account_required,
            )
            for name, made in config.communities.items()
        },
        declared_eab_keys=tuple(
            DeclaredEabKey(
                key_id=key.key_id,
                community=key.community,
                mac_key=secret_octets(key.mac_key, "base64url"),
                names=key.names,
                profiles=key.profiles,
                is_reusable=key.is_reusable,
            )
            for key in config.external_account_bindings
        ),
        order_lifetime=config.limits.order_lifetime,
        finalize_wait=config.limits.finalize_wait,
        poll_deadline=config.limits.poll_deadline,
    )


def validation_settings(config: Config) -> Mapping[str, ValidationSettings]:
    """Return how each community's challenges are looked at, and where never to look."""
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
            networks_allow=networks.allow if is_listed else EVERYWHERE,
            networks_deny=networks.deny if is_listed else (*networks.deny, *PRIVATE_NETWORKS),
            timeout=validation.timeout,
            own_endpoints=own,
        )
    return settings


def secret_octets(reference: SecretRef, form: Literal["base64", "base64url"]) -> bytes:
    """Return the octets of a secret that is written in *form*; the secret is never shown.

    Raises:
        Broken: It cannot be read, or is written in another form.
    """
    text = reference.resolve()
    try:
        if form == "base64":
            return base64.b64decode(text, validate=True)
        return parse_base64url(text.decode("ascii"))
    except (ValueError, Problem):
        raise Broken(f"secret {reference} is not {form}") from None


def _listening(config: Config) -> Sequence[Endpoint]:
    listen = config.listen
    plain = [] if listen.plain is None else [listen.plain.address]
    return [listen.acme.address, listen.health.address, *plain]


def _target(endpoint: Endpoint) -> Target:
    return Target(ipaddress.ip_address(endpoint.host), endpoint.port)


def _own(endpoint: Endpoint) -> Target:
    """Return where a listener is; one that is given by name may be at any address of ours."""
    try:
        return _target(endpoint)
    except ValueError:
        return Target(_ANY_OF_OURS, endpoint.port)
