"""A transit engine in a Vault, with the two identities that a broker has there, by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.deployments.penstock import secret
from tests.peers.vault import Vault

__all__ = ["PREFIX", "Transit", "vault_section"]

PREFIX: Final = "penstock"
"""What the names of keys begin with unless configured otherwise."""

OWN: Final = """\
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""

SERVE: Final = """\
path "{mount}/sign/{name}/+" {{ capabilities = ["update"] }}
path "{mount}/keys/{name}" {{ capabilities = ["read"] }}
"""

ROTATE: Final = """\
path "{mount}/keys/{name}" {{ capabilities = ["create", "update", "read"] }}
path "{mount}/keys/{name}/rotate" {{ capabilities = ["update"] }}
path "{mount}/keys/{name}/config" {{
  capabilities = ["update"]
  allowed_parameters = {{ "min_encryption_version" = [], "min_decryption_version" = [] }}
}}
"""


class Transit:
    """A transit engine at *mount*, with tokens that may use the keys called *names* and no others.

    Every key is named in full, as docs/adr/0018 asks.
    """

    def __init__(self, vault: Vault, directory: Path, mount: str, names: Sequence[str]) -> None:
        self.vault = vault
        self.mount = mount
        vault.enable("transit", mount)
        policy = mount.replace("/", "-")
        for role, rules in (("serve", SERVE), ("rotate", ROTATE)):
            text = OWN + "".join(rules.format(mount=mount, name=name) for name in names)
            vault.write_policy(f"{policy}-{role}", text)
        self.serve_token = vault.token(f"{policy}-serve")
        self.rotate_token = vault.token(f"{policy}-rotate")
        self.serve = {
            "method": "token",
            "token": secret(directory, f"{policy}-serve.token", self.serve_token),
        }
        self.rotate = {
            "method": "token",
            "token": secret(directory, f"{policy}-rotate.token", self.rotate_token),
        }

    @property
    def store(self) -> str:
        """What configuration calls it."""
        return f"vault:{self.mount}"

    def key(self, name: str) -> dict[str, Any]:
        """Return what Vault says of a key, as root."""
        found: dict[str, Any] = self.vault.ask("GET", f"{self.mount}/keys/{name}")["data"]
        return found

    def make(self, name: str, kind: str = "ecdsa-p256", **options: Any) -> None:
        """Make a key as the security team would."""
        self.vault.ask("POST", f"{self.mount}/keys/{name}", {"type": kind, **options})

    def rotated(self, name: str) -> None:
        """Rotate a key as the security team would."""
        self.vault.ask("POST", f"{self.mount}/keys/{name}/rotate", {})

    def configure(self, name: str, **options: Any) -> None:
        """Configure a key as somebody with every right would."""
        self.vault.ask("POST", f"{self.mount}/keys/{name}/config", options)


def vault_section(
    transit: Transit, *, is_rotating: bool = True, mounts: Sequence[Transit] = (), **more: Any
) -> dict[str, Any]:
    """Return the section ``vault`` of a broker that speaks to *transit*, and as somebody else to
    each of *mounts*."""
    section: dict[str, Any] = {
        "addresses": [transit.vault.url],
        "ca_bundle": str(transit.vault.ca_bundle),
        "serve": transit.serve,
        **more,
    }
    if is_rotating:
        section["rotate"] = transit.rotate
    if mounts:
        section["mounts"] = {
            one.mount: {"serve": one.serve, "rotate": one.rotate} for one in mounts
        }
    return section
