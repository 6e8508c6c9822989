"""Values in Vault's KV v2 engine: what has to be a value, such as a secret that is typed elsewhere.

The latest version is read, whichever it is.  No value is ever part of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import hvac

from broker.issuance.errors import Broken
from broker.keys.vault_answers import VaultNotFound

__all__ = ["KvConnections", "KvReader", "KvSession"]

MAX_VALUE_BYTES: Final = 64 * 1024
"""Largest value that is taken, in bytes: the limit of a secret in a file.  Vault itself takes a
document of a megabyte."""

T = TypeVar("T")


class KvSession(Protocol):
    """Somebody who is logged in to Vault; raises Unreachable and Broken alone."""

    async def run(self, call: Callable[[hvac.Client], T]) -> T:
        """Return what *call* returns, made in a thread."""
        ...


class KvConnections(Protocol):
    """Who the broker is at a mount."""

    def serving(self, mount: str) -> KvSession:
        """Return the identity that reads there."""
        ...


class KvReader:
    """Reads single fields."""

    def __init__(self, connections: KvConnections) -> None:
        """Read as *connections* says; nothing is asked before the first call."""
        self._connections = connections

    async def read(self, mount: str, path: str, field: str) -> bytes:
        """Return the field of the secret's latest version, without a line break at its end.

        Raises:
            Unreachable: Vault cannot answer now, or does not let us.
            Broken: There is no such secret, version or field, or it is no text that can be one.
        """
        where = f"secret vault:{mount}/{path}#{field}"

        def ask(client: hvac.Client) -> Any:
            return client.secrets.kv.v2.read_secret_version(
                path, mount_point=mount, raise_on_deleted_version=True
            )

        try:
            answer = await self._connections.serving(mount).run(ask)
        except VaultNotFound:
            raise Broken(
                f"{where} is not in Vault: nothing was ever written there, or its latest version "
                "was deleted; see vault kv metadata get"
            ) from None
        return _field_of(answer, where, field)


def _field_of(answer: object, where: str, field: str) -> bytes:
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(data.get("metadata"), Mapping):
        raise Broken(f"{where} is not in a KV engine of version 2, which is the one that is read")
    values = data.get("data")
    if not isinstance(values, Mapping):
        raise Broken(f"{where} was deleted; see vault kv undelete")
    if field not in values:
        raise Broken(f"{where} has no such field in its latest version")
    value = values[field]
    if not isinstance(value, str):
        raise Broken(f"{where} is no text; write it as one")
    octets = value.encode("utf-8", "surrogatepass").removesuffix(b"\n").removesuffix(b"\r")
    if not octets:
        raise Broken(f"{where} is empty")
    if len(octets) > MAX_VALUE_BYTES:
        raise Broken(f"{where} is larger than the limit of {MAX_VALUE_BYTES} bytes")
    return octets
