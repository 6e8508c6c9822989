"""What the configuration says about Vault, as the settings of the room that speaks to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from broker.app.vault_metrics import VaultMetrics
from broker.config import Config
from broker.config.values import SecretRef
from broker.config.vault import AppRoleLogin, KubernetesLogin, Login, TokenLogin, Vault
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.keys.vault_answers import VaultState
from broker.keys.vault_logins import Login as MadeLogin
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

__all__ = ["KeptSecret", "VaultMemory", "open_vault", "vault_findings", "vault_settings"]


@dataclass(frozen=True, slots=True)
class KeptSecret:
    """A secret as it was last read from Vault."""

    value: bytes = field(repr=False)
    ask_at: datetime
    is_stale: bool = False
    """Whether Vault was away when it was asked last."""


class VaultMemory:
    """What one turn of a broker has had from Vault that the next may not have again.

    A secret id that came wrapped is had once, and Vault may be away when the next turn begins.
    """

    def __init__(self) -> None:
        self.logins: dict[LoginSettings, MadeLogin] = {}
        self._ways: list[tuple[Login, LoginSettings]] = []
        self._where: object = None
        self._secrets: dict[SecretRef, KeptSecret] = {}

    def way(self, where: str, login: Login) -> LoginSettings:
        """Return the settings of *login*, the same for as long as it is the same."""
        for known, settings in self._ways:
            if known == login:
                return settings
        made = _login(where, login)
        self._ways.append((login, made))
        return made

    def secrets(self, vault: Vault | None, now: datetime) -> dict[SecretRef, KeptSecret]:
        """Return what was read from this very Vault: it is asked again for each, if it is there."""
        where = None if vault is None else (vault.addresses, vault.namespace, vault.kv_mounts)
        if where != self._where:
            self._where, self._secrets = where, {}
        self._secrets = {
            reference: replace(one, ask_at=now, is_stale=False)
            for reference, one in self._secrets.items()
        }
        return self._secrets


def vault_settings(config: Config, memory: VaultMemory | None = None) -> VaultSettings | None:
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
        identities=_identities(vault, memory or VaultMemory()),
    )


def open_vault(
    config: Config, clock: Clock, telemetry: Telemetry, memory: VaultMemory | None = None
) -> VaultConnections | None:
    """Return the connections to Vault, None where it is not configured; nothing is asked yet.

    *memory* is what was had from it before.

    Raises:
        Broken: What is needed to log in to Vault is said to lie in Vault.
    """
    memory = memory or VaultMemory()
    settings = vault_settings(config, memory)
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
    vault.logins = memory.logins
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


def _identities(vault: Vault, memory: VaultMemory) -> dict[str, Identity]:
    def identity(where: str, serve: Login, rotate: Login | None) -> Identity:
        return Identity(
            serve=memory.way(f"{where}.serve", serve),
            rotate=None if rotate is None else memory.way(f"{where}.rotate", rotate),
        )

    made = {"": identity("vault", vault.serve, vault.rotate)}
    for mount, one in vault.mounts.items():
        made[mount] = identity(f"vault.mounts.{mount}", one.serve, one.rotate)
    return made


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
