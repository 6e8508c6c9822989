"""A broker whose trail leaves the host: keys in Vault, Vault's audit log, rsyslog over TLS."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.deployments.vaulted import Transit, vault_section
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.rsyslog import Rsyslog
from tests.peers.vault import Vault

__all__ = ["Audited"]

EAB_KEY: Final = "trusted-tests"
MAC_KEY: Final = "bWFjLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMtbG9uZw"
ACCOUNT: Final = "penstock.default.ca"
CHECKPOINTS: Final = "penstock.audit"
MOUNT: Final = "transit-penstock"

SEEN_SECONDS: Final = 90.0
"""Longest wait for what was committed to be at the collector: it is sent at once, and made certain
within five seconds."""


LOOK_SECONDS: Final = 0.2
"""Pause between two looks at the sinks, in seconds."""


class Audited:
    """The deployment; the requester is trusted, and the CA believes every challenge."""

    def __init__(self, tmp: Path, stack: ExitStack, *, every: str = "1s") -> None:
        plain = process.free_port()
        options = PebbleOptions(always_valid=True)
        dns = f"127.0.0.1:{process.free_port()}"
        self.tmp = tmp
        self.pebble = stack.enter_context(
            Pebble(tmp / "pebble", validation_http_port=plain, dns_server=dns, options=options)
        )
        self.vault = stack.enter_context(Vault(tmp / "vault", storage="inmem"))
        self.vault_log = tmp / "vault" / "audit.log"
        device = {"type": "file", "options": {"file_path": str(self.vault_log)}}
        self.vault.ask("POST", "sys/audit/file", device)
        (tmp / "transit").mkdir()
        self.transit = Transit(self.vault, tmp / "transit", MOUNT, [ACCOUNT, CHECKPOINTS])
        self.collector = stack.enter_context(Rsyslog(tmp / "rsyslog"))
        self.file = tmp / "penstock" / "audit.jsonl"
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain,
            upstreams=[self._upstream()],
            policy={"trusted": [_trusted()]},
            limits={"finalize_wait": "1s"},
            more={
                "policy": {"look_every": "1h"},  # commands alone have them read, by who they are
                "vault": vault_section(self.transit),
                "external_account_bindings": [
                    {"key_id": EAB_KEY, "mac_key": secret(tmp, "eab.mac", MAC_KEY)}
                ],
                "audit": {
                    "checkpoints": {"every": every, "key_store": self.transit.store},
                    "sinks": {
                        "collector": self.collector.sink(),
                        "file": {"kind": "file", "path": str(self.file)},
                    },
                },
            },
        )
        stack.enter_context(self.penstock)

    @property
    def operator(self) -> Operator:
        """The operator socket."""
        return Operator(self.penstock.state / "operator.sock")

    @asynccontextmanager
    async def requester(self) -> AsyncIterator[Requester]:
        """A new account that may order without proof."""
        async with Requester(self.penstock.directory_url, self.penstock.ca_bundle) as made:
            await made.bind(EAB_KEY, MAC_KEY)
            yield made

    async def issue(self, requester: Requester, name: str) -> str:
        """Return the serial number of a certificate for *name*."""
        placed = await requester.request(name)
        status = await placed.settled()
        assert status == "valid", status
        leaf = (await placed.chain())[0]
        return f"{leaf.serial_number:x}"

    def public_key(self) -> Path:
        """Return the key that verifies checkpoints, as Vault tells it."""
        key = self.transit.key(CHECKPOINTS)["keys"]
        path = self.tmp / "checkpoints.pem"
        path.write_text("".join(version["public_key"] + "\n" for version in key.values()), "ascii")
        return path

    async def covered(self) -> int:
        """Return the last record once all there are, and a checkpoint, are at the collector."""
        made = await self.operator.ask("audit_checkpoint")

        def is_there() -> bool:
            jws = made["jws"]
            return any(jws in line for line in self.collector.lines())

        await asyncio.to_thread(process.wait_until, is_there, SEEN_SECONDS, "checkpoint is there")
        return int(made["record"])

    async def all_up(self) -> None:
        """Return once every sink is known to have taken what it was sent."""
        async with asyncio.timeout(SEEN_SECONDS):
            while True:
                status = await self.operator.ask("audit_status")
                if all(one["is_up"] for one in status["sinks"]):
                    return
                await asyncio.sleep(LOOK_SECONDS)

    def with_store(self, copy: Path, *statements: str) -> None:
        """Have the broker's configuration lead to a copy of its store, which its owner changed."""
        copy.mkdir()
        with (
            closing(sqlite3.connect(self.penstock.database)) as source,
            closing(sqlite3.connect(copy / "penstock.db")) as target,
        ):
            source.backup(target)
            for trigger in ("events_stay", "events_stay_as_written"):
                target.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                target.execute(statement)
            target.commit()

    def verify(self, *arguments: str, state: Path | None = None, status: int = 0) -> dict[str, Any]:
        """Return what ``penstock audit verify`` finds, in another state directory than its own."""
        config = self.penstock.config
        original = config.read_text("utf-8")
        try:
            if state is not None:
                config.write_text(json.dumps({**json.loads(original), "state": str(state)}))
            done = self.penstock.run("audit", "verify", *arguments, "--json", status=status)
        finally:
            config.write_text(original)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def clean(self, copy: Path) -> None:
        """Remove a copy."""
        shutil.rmtree(copy)

    def _upstream(self) -> AcmeCa:
        anchors = self.tmp / "anchors.pem"
        anchors.write_bytes(self.pebble.root_pem())
        return AcmeCa(
            name="ca",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"account_key": {"store": self.transit.store}},
        )


def _trusted() -> dict[str, Any]:
    return {
        "eab": [EAB_KEY],
        "names": ["**.example.test"],
        "profiles": ["server"],
        "because": "hosts of the tests",
    }
