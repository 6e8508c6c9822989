"""How Vault is reached and as whom, as values; secrets are read by functions and never kept here.

What a configuration file says about it is none of this module's business: ``broker.app.vault``
makes these values of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

__all__ = [
    "DEFAULT_TIMEOUT",
    "AppRoleSettings",
    "CertificateSettings",
    "Identity",
    "KubernetesSettings",
    "LoginSettings",
    "TokenSettings",
    "VaultSettings",
]

DEFAULT_TIMEOUT: Final = timedelta(seconds=5)
"""How long one request may take: a signature takes 2 ms, a login with TokenReview under 1 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """A token that somebody else made."""

    read_token: Callable[[], bytes]
    """Reads it from where it lies; raises Broken."""
    place: str
    """Where that is, for messages: ``file:/run/vault-token``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoleSettings:
    """AppRole (developer.hashicorp.com/vault/docs/auth/approle)."""

    mount: str = "approle"
    read_role_id: Callable[[], bytes]
    read_secret_id: Callable[[], bytes]
    """Reads the secret id, or the wrapping token that it is to be had for, once."""
    place: str
    """Where the secret id lies, for messages."""
    is_wrapped: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """The projected token of the pod's service account."""

    mount: str = "kubernetes"
    role: str
    token_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSettings:
    """A TLS client certificate, in PEM files."""

    mount: str = "cert"
    role: str | None = None
    certificate: Path
    key: Path


LoginSettings = TokenSettings | AppRoleSettings | KubernetesSettings | CertificateSettings
"""One way of logging in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the broker is at Vault: *serve* always, *rotate* while a rotation runs."""

    serve: LoginSettings
    rotate: LoginSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """Where Vault is, and who the broker is there."""

    addresses: tuple[str, ...]
    """Base URLs without a path, the preferred one first."""
    state_dir: Path
    """Where it is remembered which wrapping tokens were opened."""
    identities: Mapping[str, Identity] = field(default_factory=dict)
    """By mount; the one of ``""`` is for every mount that is not named."""
    namespace: str | None = None
    ca_bundle: Path | None = None
    """PEM file of the only roots that are trusted; None: those of the system."""
    timeout: timedelta = DEFAULT_TIMEOUT

    def identity_at(self, mount: str) -> tuple[str, Identity]:
        """Return the identity that is used at *mount*, after the name that it goes by."""
        name = mount if mount in self.identities else ""
        return name, self.identities[name]
