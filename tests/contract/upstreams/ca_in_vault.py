"""A built-in CA whose keys are in a real Vault, with the policies that are written for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.app.key_places import ConfiguredKeyPlaces
from broker.app.vault import vault_settings
from broker.app.vault_script import write_policies
from broker.app.vault_setup import plan_setup
from broker.config import Config
from broker.keys.keyfile import KeyFileSigner
from broker.keys.rings import KeyRings
from broker.keys.vault import Session, VaultSigner
from broker.keys.vault_session import VaultConnections
from tests.fakes.authority_keeper import Keeper
from tests.fakes.clock import FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.peers.process import PeerFailed
from tests.peers.vault import Vault
from tests.unit.config.conftest import parsed

__all__ = ["ACCOUNTS", "CA", "ISSUING", "ROOT", "Site", "Swapping", "ring_of"]

CA: Final = "transit-ca"
ROOT: Final = "transit-root"
ACCOUNTS: Final = "transit-accounts"
MOUNTS: Final = (CA, ROOT, ACCOUNTS)

PASSPHRASE: Final = b"a passphrase that is long enough for anyone"
ISSUING: Final = f"{CA}/keys/penstock.local.issuing"


@dataclass
class Site:
    """A Vault with mounts for the CA, its root and accounts, and a broker's identities there."""

    vault: Vault
    directory: Path
    root_in_vault: bool = False
    may_rotate: bool = True
    returned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an identity that could not work can again."""

    def config(self) -> Config:
        """Return the configuration of the broker, with a file for each token."""

        def identity(name: str) -> dict[str, Any]:
            made = {"serve": self._login(f"{name}-serve")}
            return {**made, "rotate": self._login(f"{name}-rotate")} if self.may_rotate else made

        return parsed(
            {
                "state": str(self.directory),
                "vault": {
                    "addresses": [self.vault.url],
                    "ca_bundle": str(self.vault.ca_bundle),
                    **identity("accounts"),
                    "mounts": {
                        CA: identity("ca"),
                        **({ROOT: identity("root")} if self.root_in_vault else {}),
                    },
                },
                "upstreams": {
                    "local": {
                        "kind": "built-in",
                        "base_url": "http://pki.corp.example:8080",
                        "key_store": f"vault:{CA}",
                        "root_key_store": f"vault:{ROOT}" if self.root_in_vault else "file",
                    },
                    "outer": {
                        "kind": "acme",
                        "directory": "https://acme.corp.example/directory",
                        "account_key": {"store": f"vault:{ACCOUNTS}"},
                    },
                },
            }
        )

    def _login(self, name: str) -> dict[str, str]:
        return {"method": "token", "token": f"file:{self.directory / name}"}

    def set_up(self) -> None:
        """Mount the engines afresh, write the policies, and hand a token to each identity."""
        for mount in MOUNTS:
            self.vault.ask("DELETE", f"sys/mounts/{mount}")
            self.vault.enable("transit", mount)
        setup = plan_setup(self.config())
        for name, text in _policies(write_policies(setup)).items():
            self.vault.write_policy(name, text)
        for role in setup.roles:
            path = Path(str(getattr(role.login, "token")).removeprefix("file:"))  # noqa: B009
            path.touch(mode=0o600)
            path.write_text(self.vault.token(role.policy.name), "ascii")

    def token(self, name: str) -> str:
        """Return the token of an identity, such as ``ca-serve``."""
        return (self.directory / name).read_text("ascii")

    @asynccontextmanager
    async def keys(self) -> AsyncIterator[KeyRings]:
        """Give the keys of a process, in files and in Vault."""
        settings = vault_settings(self.config())
        assert settings is not None
        connections = VaultConnections(settings, FakeClock())
        connections.on_return = self.returned.set
        connections.watch()
        try:
            yield ring_of(self.directory, connections)
        finally:
            await connections.close()

    @asynccontextmanager
    async def keeper(self, name: str = "store") -> AsyncIterator[Keeper]:
        """Give a keeper of the CA over a store and a folder of its own."""
        folder = self.directory / name
        folder.mkdir()
        store = await open_fresh(folder / "penstock.db")
        try:
            async with self.keys() as rings:
                places = ConfiguredKeyPlaces(self.config(), rings=rings, uses=store)
                yield Keeper(folder, store, rings, places)
        finally:
            await store.close()

    def issuing(self) -> Mapping[str, Any]:
        """Return what Vault says of the issuing key."""
        found: Mapping[str, Any] = self.vault.ask("GET", ISSUING)["data"]
        return found

    def signs(self, key_id: str, token: str | None = None) -> bool:
        """Say whether Vault signs with that version, for root unless a token is given."""
        mount, _, rest = key_id.removeprefix("vault:").rpartition("/")
        name, _, version = rest.partition("#")
        asked = {"input": "AAAA", "key_version": int(version), "marshaling_algorithm": "jws"}
        try:
            self.vault.ask("POST", f"{mount}/sign/{name}/sha2-256", asked, token=token)
        except PeerFailed as refused:
            if re.search("permission denied|minimum|too old", str(refused)) is None:
                raise
            return False
        return True


def ring_of(directory: Path, connections: Any) -> KeyRings:
    """Return the keys in *directory* and behind *connections*."""
    folder = directory / "keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    return KeyRings(KeyFileSigner(folder, PASSPHRASE), VaultSigner(connections))


def _policies(text: str) -> dict[str, str]:
    """Return the policies of a text that has all of them, by name."""
    parts = re.split(r"^# policy ([^:\n]+):.*\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


class Swapping:
    """A session that signs something else than it was asked to."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have other octets signed."""
        return await self._inner.post(path, {**document, "input": "AAAA"})

    async def get(self, path: str) -> Mapping[str, Any]:
        """Read what there is."""
        return await self._inner.get(path)
