"""The section about HashiCorp Vault: where it is, and as whom the broker speaks to it.

Two identities stand apart (docs/adr/0018): *serve* signs and reads and is held all the time,
*rotate* makes and configures keys and is held while a rotation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag

from broker.config.section import Section
from broker.config.values import AbsolutePath, HttpsUrl, MountText, Secret, VaultKeyText
from broker.policy.units import Duration

__all__ = [
    "AppRoleLogin",
    "CertificateLogin",
    "KubernetesLogin",
    "Login",
    "MountIdentities",
    "TokenLogin",
    "Vault",
]

SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/penstock/vault-token")
"""Where the projected service-account token lies unless something else is said."""


class TokenLogin(Section):
    """A token that somebody else made; it is renewed for as long as it lets itself be."""

    method: Literal["token"]
    """How to log in."""

    token: Secret = Field(examples=["file:/run/credentials/penstock/vault-token"])
    """Where the token lies. The file is read again when a new token is needed."""


class AppRoleLogin(Section):
    """AppRole: a role id, and a secret id that is delivered wrapped."""

    method: Literal["approle"]
    """How to log in."""

    mount: MountText = "approle"
    """Where the auth method is mounted."""

    role_id: Secret = Field(examples=["file:/etc/penstock/vault-role-id"])
    """Where the role id lies."""

    secret_id: Secret = Field(examples=["file:/run/penstock/vault-secret-id"])
    """Where the secret id lies, or the wrapping token that it is to be had for, once."""

    is_wrapped: bool = True
    """Whether a wrapping token lies there instead of the secret id itself."""


class KubernetesLogin(Section):
    """The pod's projected service-account token, read from the disk at every login."""

    method: Literal["kubernetes"]
    """How to log in."""

    mount: MountText = "kubernetes"
    """Where the auth method is mounted."""

    role: str = Field(min_length=1, max_length=256, examples=["penstock-serve"])
    """Role to log in as."""

    token_file: AbsolutePath = SERVICE_ACCOUNT_TOKEN
    """The projected token, whose audience has to be the one that the role expects."""


class CertificateLogin(Section):
    """A TLS client certificate."""

    method: Literal["certificate"]
    """How to log in."""

    mount: MountText = "cert"
    """Where the auth method is mounted."""

    role: str | None = Field(
        default=None, min_length=1, max_length=256, examples=["penstock-serve"]
    )
    """Role to log in as. Without it Vault looks for one that fits."""

    certificate: AbsolutePath = Field(examples=["/etc/penstock/vault-client.crt"])
    """PEM chain, leaf first. Read again at every login."""

    key: AbsolutePath = Field(examples=["/etc/penstock/vault-client.key"])
    """PEM private key."""


def _method(value: object) -> str | None:
    word = value.get("method") if isinstance(value, Mapping) else getattr(value, "method", None)
    return word if isinstance(word, str) else None


Login = Annotated[
    Annotated[AppRoleLogin, Tag("approle")]
    | Annotated[TokenLogin, Tag("token")]
    | Annotated[KubernetesLogin, Tag("kubernetes")]
    | Annotated[CertificateLogin, Tag("certificate")],
    Discriminator(
        _method,
        custom_error_type="vault_login",
        custom_error_message="expected method 'approle', 'token', 'kubernetes' or 'certificate'",
    ),
]
"""One way of logging in."""


def _called(name: str) -> dict[str, JsonValue]:
    """Return what the sample shows of an identity: no two are the same."""
    return {
        "inside": {
            "role_id": f"file:/etc/penstock/{name}-role-id",
            "secret_id": f"file:/run/penstock/{name}-secret-id",
            "token": f"file:/run/credentials/penstock/{name}-token",
        }
    }


class MountIdentities(Section):
    """Who the broker is at one mount, where it is not who it is elsewhere."""

    serve: Login = Field(json_schema_extra=_called("vault-ca"))
    """Identity that signs and reads there."""

    rotate: Login | None = Field(default=None, json_schema_extra=_called("vault-ca-rotate"))
    """Identity that makes, rotates and configures keys there. Without it nothing does."""


def _at_least(shortest: timedelta) -> Callable[[timedelta], timedelta]:
    def check(value: timedelta) -> timedelta:
        if value < shortest:
            raise ValueError(f"is shorter than {shortest.total_seconds():g} s")
        return value

    return check


def _without_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError(f"names more than a host and a port, expected 'https://{parts.netloc}'")
    return url


class Vault(Section):
    """HashiCorp Vault, which keeps account keys and whatever else must not lie here."""

    addresses: tuple[Annotated[HttpsUrl, AfterValidator(_without_path)], ...] = Field(
        min_length=1, examples=[["https://vault.corp.example:8200"]]
    )
    """URLs of its servers; the next one is asked when one does not answer."""

    namespace: str | None = Field(default=None, min_length=1, examples=["pki"])
    """Namespace, where there are any."""

    ca_bundle: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/vault-ca.pem"])
    """The only roots that its TLS certificate may lead to. Without it: the system's."""

    timeout: Annotated[Duration, AfterValidator(_at_least(timedelta(milliseconds=100)))] = (
        timedelta(seconds=5)
    )
    """How long one request may take before it counts as not answered."""

    serve: Login
    """Identity that signs and reads: held all the time."""

    rotate: Login | None = Field(default=None, json_schema_extra=_called("vault-rotate"))
    """Identity that makes, rotates and configures keys: held only while a rotation runs. Without it
    no key is made or rotated by the broker."""

    mounts: dict[MountText, MountIdentities] = Field(default_factory=dict)
    """Mounts at which the broker is somebody else: those of CA keys, and those of communities that
    are kept apart. Examples: `transit-ca`, `transit-clinic`."""

    key_prefix: str = Field(default="penstock", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """First part of the name of every key: `penstock.COMMUNITY.UPSTREAM`. Brokers that share a
    mount have one each."""

    kv_mounts: tuple[MountText, ...] = Field(default=(), examples=[["team/kv"]])
    """KV v2 mounts whose path has a '/' in it; of other references the first part is the mount."""

    sealing_key: VaultKeyText | None = Field(
        default=None, examples=["transit-penstock/penstock.sealing"]
    )
    """Transit key of kind aes256-gcm96 under which the store's secrets are encrypted. Without it:
    under the passphrase of the key files."""
