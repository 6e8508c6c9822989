"""A broker whose account keys are in Vault or in files, and a Pebble where others were first."""

from __future__ import annotations

import base64
import contextlib
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.deployments.between import Between
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.vaulted import PREFIX, Transit, vault_section
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.stepca import StepCa
from tests.peers.vault import Vault

__all__ = ["FILE", "IMPORT", "MOUNT", "TRUSTED", "Adopting"]

MOUNT: Final = "transit-penstock"
FILE: Final = "file"
TRUSTED: Final = "trusted-tests"

IMPORT: Final = """\
path "{mount}/wrapping_key" {{ capabilities = ["read"] }}
path "{mount}/keys/{name}/import" {{ capabilities = ["create", "update"] }}
"""
"""What the identity that makes keys needs beyond its own, for as long as a key is imported."""


class Adopting:
    """Pebble, a man in the middle, a Vault and a broker with an upstream for each test.

    *stores* says where each upstream's account key is kept: ``file``, or ``vault``.  The upstream
    ``step`` is *step_ca*, where there is one.
    """

    def __init__(
        self,
        tmp: Path,
        stack: ExitStack,
        stores: Mapping[str, str],
        *,
        imports: Sequence[str] = (),
        kinds: Mapping[str, str] | None = None,
        step_ca: StepCa | None = None,
    ) -> None:
        self.tmp = tmp
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=process.free_port(),
                dns_server=f"127.0.0.1:{process.free_port()}",
                options=PebbleOptions(nonce_reject_percent=0, always_valid=True),
            )
        )
        self.between = stack.enter_context(
            Between(tmp / "between", self.pebble.port, self.pebble.ca_bundle)
        )
        self.vault = stack.enter_context(Vault(tmp / "vault", storage="inmem"))
        names = [f"{PREFIX}.default.{name}" for name in stores]
        self.transit = Transit(self.vault, tmp, MOUNT, names)
        if imports:
            rules = [IMPORT.format(mount=MOUNT, name=f"{PREFIX}.default.{one}") for one in imports]
            self.vault.write_policy("import", "".join(rules))
            policies = [f"{MOUNT}-rotate", "import"]
            self.transit.rotate_token = self.vault.token(*policies)
            (tmp / f"{MOUNT}-rotate.token").write_text(self.transit.rotate_token)
        raw = secrets.token_bytes(32)
        self.mac = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        self.stores = dict(stores)
        self.step_ca = step_ca
        self.kinds: dict[str, dict[str, str]] = {
            name: {"kind": kind} for name, kind in (kinds or {}).items()
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            upstreams=self._cas(),
            policy={"trusted": [self._trusted(list(stores))]},
            profiles={
                name: {
                    "description": name,
                    "cap": "47d",
                    "usages": ["server-auth"],
                    "upstreams": [{"upstream": name}],
                }
                for name in stores
            },
            limits={"finalize_wait": "1s"},
            more={
                "vault": vault_section(self.transit),
                "external_account_bindings": [
                    {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
                ],
            },
            is_registering=False,
        )
        stack.enter_context(self.penstock)

    def _cas(self) -> list[AcmeCa]:
        url, bundle = f"https://127.0.0.1:{self.between.port}/dir", self.between.ca_bundle
        step = self.step_ca
        return [
            AcmeCa(
                name=name,
                directory_url=step.directory_url if step and name == "step" else url,
                ca_bundle=step.ca_bundle if step and name == "step" else bundle,
                description="step-ca" if name == "step" else "pebble",
                options={"account_key": {"store": self.place(store), **self.kinds.get(name, {})}},
            )
            for name, store in self.stores.items()
        ]

    def _trusted(self, profiles: list[str]) -> dict[str, Any]:
        return {
            "eab": [TRUSTED],
            "names": ["**.example.test"],
            "profiles": profiles,
            "because": "the tests say so",
        }

    def place(self, store: str) -> str:
        """Return what configuration calls a store."""
        return self.transit.store if store == "vault" else FILE

    def keep_in(self, upstream: str, store: str) -> None:
        """Have the configuration say another store, and the broker start again."""
        self.stores[upstream] = store
        self.penstock.stop()
        self.penstock.set_upstreams(self._cas())
        self.penstock.start()

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Ask the running broker."""
        return await Operator(self.penstock.state / "operator.sock").ask(command, **arguments)

    async def account(self, upstream: str) -> dict[str, Any] | None:
        """Return our account there, as the broker has it."""
        rows = await self.ask("upstream_list")
        found = next(row for row in rows if row["upstream"] == upstream)["accounts"]
        return found[0] if found else None

    async def faults(self, upstream: str) -> list[str]:
        """Return what ``upstream check`` finds."""
        (row,) = await self.ask("upstream_check", upstream=upstream)
        return list(row["faults"])

    def key_files(self) -> set[str]:
        """Return the names of the key files of accounts."""
        files = (self.penstock.state / "keys").glob("*@*.pem")
        return {path.name for path in files}

    def events(self, upstream: str) -> list[str]:
        """Return what happened at an upstream, oldest first, read past the broker."""
        database = f"file:{self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True)) as db:
            rows = db.execute(
                "SELECT kind FROM events WHERE upstream = ? ORDER BY seq", (upstream,)
            )
            return [str(kind) for (kind,) in rows]
