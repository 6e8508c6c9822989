"""The id of a key in Vault: one version of a transit key, and never *the latest*."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from broker.issuance.errors import Broken

__all__ = ["SCHEME", "VaultKeyId", "is_vault_id", "parse_vault_key_id"]

SCHEME: Final = "vault:"
"""What the id of a key in Vault begins with; no key file's name has a ':' in it."""

_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ID: Final = re.compile(rf"vault:({_PART}(?:/{_PART})*)/({_PART})#([1-9][0-9]{{0,8}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class VaultKeyId:
    """``vault:MOUNT/NAME#VERSION``: the mount may have a '/' in it, the name has none."""

    mount: str
    name: str
    version: int

    def __str__(self) -> str:
        return f"{SCHEME}{self.mount}/{self.name}#{self.version}"

    @property
    def key(self) -> str:
        """Return ``MOUNT/NAME``, which all versions share."""
        return f"{self.mount}/{self.name}"


def is_vault_id(key_id: str) -> bool:
    """Return whether this names a key in Vault, well formed or not."""
    return key_id.startswith(SCHEME)


def parse_vault_key_id(text: str) -> VaultKeyId:
    """Return the id that *text* is.

    Nothing that Vault's paths give a meaning to can stand in it, so that it goes into a URL as it
    is.

    Raises:
        Broken: It is none, or names no version.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise Broken(
            f"key id {text!r} is not of the form 'vault:MOUNT/NAME#VERSION' with a version from 1"
        )
    mount, name, version = found.groups()
    return VaultKeyId(mount, name, int(version))
