"""What the configuration says about Vault, as the settings of the room that speaks to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.app.vault_metrics import VaultMetrics
from broker.config import Config
from broker.config.values import SecretRef
from broker.config.vault import AppRoleLogin, KubernetesLogin, Login, TokenLogin, Vault
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.keys.vault_answers import VaultState
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import (
    AppRoleSettings,
    CertificateSettings,
    Identity,
    KubernetesSettings,
    LoginSettings,
    TokenSettings,
    VaultSettings,
)
from broker.telemetry import Telemetry

__all__ = ["open_vault", "vault_findings", "vault_settings"]


def vault_settings(config: Config) -> VaultSettings | None:
    """Return how Vault is reached, None where it is not configured.

    Raises:
        Broken: What is needed to log in to Vault is said to lie in Vault.
    """
    vault = config.vault
    if vault is None:
        return None
    return VaultSettings(
        addresses=vault.addresses,
        namespace=vault.namespace,
        ca_bundle=vault.ca_bundle,
        timeout=vault.timeout,
        state_dir=config.state,
        identities=_identities(vault),
    )


def open_vault(config: Config, clock: Clock, telemetry: Telemetry) -> VaultConnections | None:
    """Return the connections to Vault, None where it is not configured; nothing is asked yet.

    Raises:
        Broken: What is needed to log in to Vault is said to lie in Vault.
    """
    settings = vault_settings(config)
    if settings is None:
        return None
    names = [name or "default" for name in settings.identities]
    rotating = [
        f"{name or 'default'}:rotate"
        for name, one in settings.identities.items()
        if one.rotate is not None
    ]
    metrics = VaultMetrics(telemetry.registry, [*names, *rotating])
    vault = VaultConnections(settings, clock, observer=metrics)
    telemetry.before_render.append(lambda: metrics.show(vault.health()))
    return vault


async def vault_findings(config: Config, vault: VaultConnections) -> Sequence[dict[str, Any]]:
    """Return a row for each identity that cannot be used now, or may do everything.

    One that was not entered yet is entered, unless that would use up what only the broker may: a
    wrapping token is opened once.
    """
    section = config.vault
    session = vault.serving("")
    is_untried = session.health().state is VaultState.UNTRIED
    serve = None if section is None else section.serve
    if not (is_untried and isinstance(serve, AppRoleLogin) and serve.is_wrapped):
        await session.look()
    rows = []
    for one in vault.health().identities:
        named = {"key": "", "use": f"Vault, as '{one.identity}'", "kind": "vault"}
        if not one.is_up:
            rows.append({**named, "finding": f"{one.state}: {one.reason}"})
        if one.is_root:
            finding = (
                "the token is a root token, which may have every key exported or deleted: hand "
                "over one with the policies of penstock vault setup --print"
            )
            rows.append({**named, "finding": finding})
    return rows


def _identities(vault: Vault) -> dict[str, Identity]:
    made = {"": _identity("vault", vault.serve, vault.rotate)}
    for mount, one in vault.mounts.items():
        made[mount] = _identity(f"vault.mounts.{mount}", one.serve, one.rotate)
    return made


def _identity(where: str, serve: Login, rotate: Login | None) -> Identity:
    return Identity(
        serve=_login(f"{where}.serve", serve),
        rotate=None if rotate is None else _login(f"{where}.rotate", rotate),
    )


def _login(where: str, login: Login) -> LoginSettings:
    if isinstance(login, TokenLogin):
        _check_outside(f"{where}.token", login.token)
        return TokenSettings(read_token=login.token.resolve, place=str(login.token))
    if isinstance(login, AppRoleLogin):
        _check_outside(f"{where}.role_id", login.role_id)
        _check_outside(f"{where}.secret_id", login.secret_id)
        return AppRoleSettings(
            mount=login.mount,
            read_role_id=login.role_id.resolve,
            read_secret_id=login.secret_id.resolve,
            place=str(login.secret_id),
            is_wrapped=login.is_wrapped,
        )
    if isinstance(login, KubernetesLogin):
        return KubernetesSettings(
            mount=login.mount, role=login.role, token_file=Path(login.token_file)
        )
    return CertificateSettings(
        mount=login.mount, role=login.role, certificate=login.certificate, key=login.key
    )


def _check_outside(where: str, reference: SecretRef) -> None:
    if reference.scheme == "vault":
        raise Broken(
            f"{where} refers to Vault itself ({reference}), expected 'file:' or 'env:': it is what "
            "Vault is entered with"
        )
