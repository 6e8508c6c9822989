"""A KV engine of Vault as far as reading a secret's latest version goes; it can be away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.issuance.errors import Unreachable
from broker.keys.vault_answers import VaultNotFound


class FakeKv:
    """``keys.vault_kv.KvConnections``, its sessions and their hvac client in one."""

    def __init__(self, **secrets: str) -> None:
        """Hold *secrets*: fields of ``kv/penstock/test``."""
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.is_away = False
        self.reads: list[tuple[str, str]] = []
        """Mount and path of everything that was asked for."""
        if secrets:
            self.put("kv", "penstock/test", **secrets)

    def put(self, mount: str, path: str, **fields: Any) -> None:
        """Write a new version."""
        self.documents[mount, path] = fields

    def serving(self, mount: str) -> FakeKv:
        """Be the identity at every mount."""
        return self

    async def run(self, call: Callable[[Any], Any]) -> Any:
        """Hand *call* what looks like hvac as far as it goes."""
        return call(self)

    @property
    def secrets(self) -> FakeKv:
        """Stand for ``client.secrets``, and for ``kv`` and ``v2`` below it."""
        return self

    kv = v2 = secrets

    def read_secret_version(
        self, path: str, *, mount_point: str, raise_on_deleted_version: bool
    ) -> object:
        """Answer as hvac would."""
        assert raise_on_deleted_version
        self.reads.append((mount_point, path))
        if self.is_away:
            raise Unreachable("Vault is sealed")
        if (mount_point, path) not in self.documents:
            raise VaultNotFound(f"GET {mount_point}/data/{path} answered 404")
        return {"data": {"data": self.documents[mount_point, path], "metadata": {"version": 1}}}
