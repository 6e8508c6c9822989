"""A broker whose account at Pebble is made by a key in Vault, and the ways of losing it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from broker.clock import SystemClock
from broker.upstreams.client import AcmeClient
from broker.upstreams.transport import HttpTransport, TransportSettings
from tests.deployments.between import Between
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Placed, Requester
from tests.deployments.restoring import finish, ready_order
from tests.deployments.vaulted import Transit, vault_section
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.vault import Vault

EAB_KEY: Final = "trusted-tests"
MAC_KEY: Final = "bWFjLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMtbG9uZw"
ZONE: Final = "web.example.test"
MOUNT: Final = "transit-penstock"
KEY: Final = "penstock.default.pebble"

MEETING_SECONDS: Final = 90.0
"""By when a broker has found what became of its account: it looks every 5 s at what has failed."""


class Losing:
    """The deployment: Vault on disk, Pebble that believes every challenge, and a broker."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self.tmp = tmp
        plain = process.free_port()
        self.vault = stack.enter_context(Vault(tmp / "vault"))
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=f"127.0.0.1:{process.free_port()}",
                options=PebbleOptions(always_valid=True, nonce_reject_percent=0),
            )
        )
        self.between = stack.enter_context(
            Between(tmp / "between", self.pebble.port, self.pebble.ca_bundle)
        )
        self.transit = Transit(self.vault, tmp, MOUNT, [KEY])
        trusted = {
            "eab": [EAB_KEY],
            "names": [f"**.{ZONE}"],
            "profiles": ["server"],
            "because": "hosts of the tests",
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain,
            upstreams=[
                AcmeCa(
                    name="pebble",
                    directory_url=f"https://127.0.0.1:{self.between.port}/dir",
                    ca_bundle=self.between.ca_bundle,
                    description="pebble",
                    options={
                        "poll_interval": "100ms",
                        "caa_identities": ["pebble.letsencrypt.org"],
                        "account_key": {"store": self.transit.store},
                    },
                )
            ],
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "1s"},
            more={
                "vault": vault_section(self.transit),
                "external_account_bindings": [
                    {"key_id": EAB_KEY, "mac_key": secret(tmp, "eab.mac", MAC_KEY)}
                ],
            },
        )
        stack.enter_context(self.penstock)

    @asynccontextmanager
    async def requester(self) -> AsyncIterator[Requester]:
        """A client that policy trusts with every name."""
        made = Requester(self.penstock.directory_url, self.penstock.ca_bundle)
        async with made as requester:
            assert (await requester.bind(EAB_KEY, MAC_KEY)).status in (200, 201)
            yield requester

    # ------------------------------------------------------------------------------- the broker

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Ask the running broker."""
        return await Operator(self.penstock.state / "operator.sock").ask(command, **arguments)

    async def account(self) -> dict[str, Any]:
        """Return our account as ``upstream list`` shows it."""
        rows = await self.ask("upstream_list")
        (account,) = next(row for row in rows if row["upstream"] == "pebble")["accounts"]
        return dict(account)

    async def lost(self) -> dict[str, Any]:
        """Return what is the matter, once the broker knows."""
        async with asyncio.timeout(MEETING_SECONDS):
            # Another process cannot be awaited.
            while (found := (await self.account())["lost"]) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return dict(found)

    async def recover(self, **options: Any) -> dict[str, Any]:
        """Recover the account."""
        (row,) = await self.ask("upstream_recover", upstream="pebble", **options)
        return dict(row)

    def readyz(self) -> str:
        """Return what the probe says."""
        return process.get(f"http://127.0.0.1:{self.penstock.health_port}/readyz").decode()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return rows of the store, read past the broker."""
        path = f"file:{self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as db:
            return db.execute(statement, parameters).fetchall()

    # ------------------------------------------------------------------------------- its loss

    async def lose_vault(self) -> None:
        """Empty Vault and set it up anew: same mount, same policies, other tokens, no key."""
        await asyncio.to_thread(self.vault.stop)
        self.vault.lose_storage()
        self.vault.root_token = ""
        await asyncio.to_thread(self.vault.start)
        self.transit = Transit(self.vault, self.tmp, MOUNT, [KEY])

    async def save_vault(self) -> Path:
        """Take a snapshot of Vault."""
        saved = self.tmp / f"snapshot-{secrets.token_hex(4)}"
        await asyncio.to_thread(self.vault.stop)
        self.vault.save_storage(saved)
        await asyncio.to_thread(self.vault.start)
        return saved

    async def restore_vault(self, saved: Path) -> None:
        """Put a snapshot back."""
        await asyncio.to_thread(self.vault.stop)
        self.vault.restore_storage(saved)
        await asyncio.to_thread(self.vault.start)

    async def restore_store(self, backup: Path) -> None:
        """Lose the broker's machine and restore it; it starts, ready or not."""
        await asyncio.to_thread(self.penstock.kill)
        shutil.rmtree(self.penstock.state)
        await asyncio.to_thread(self.penstock.run, "restore", str(backup))
        ready, health = self.penstock.is_ready, self.penstock.health_port
        self.penstock.is_ready = (  # type: ignore[method-assign]
            lambda: process.is_answering(f"http://127.0.0.1:{health}/livez")
        )
        try:
            await asyncio.to_thread(self.penstock.start)
        finally:
            self.penstock.is_ready = ready  # type: ignore[method-assign]

    async def deactivate(self) -> None:
        """Deactivate the account at Pebble, as whoever has its key can (RFC 8555 §7.3.6)."""
        account = await self.account()
        key_id = account["key"]["id"]
        transport = HttpTransport(
            TransportSettings(user_agent="test", ca_bundle=self.between.ca_bundle)
        )
        client = AcmeClient(
            directory_url=f"https://127.0.0.1:{self.between.port}/dir",
            transport=transport,
            signer=RootOfVault(self.vault),
            clock=SystemClock(),
        )
        try:
            key = (await client.account_key(key_id)).speaking_for(account["url"])
            await client.post(account["url"], {"status": "deactivated"}, key=key)
        finally:
            await transport.close()

    # ---------------------------------------------------------------------------- certificates

    def issued(self) -> Counter[str]:
        """Return how many certificates the CA itself says it issued for each name."""
        found: Counter[str] = Counter()
        for one in self.pebble.issued():
            try:
                pem = self.pebble.status(one.serial_hex).pem
            except process.PeerFailed:
                continue  # before it was emptied
            leaf = x509.load_pem_x509_certificate(pem)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found.update(names.get_values_for_type(x509.DNSName))
        return found

    async def prepared(self, requester: Requester, name: str) -> dict[str, Any]:
        """Order *name*, and wait until its order at the CA is open."""
        order = await ready_order(requester, name)
        async with asyncio.timeout(MEETING_SECONDS):
            while not self.rows(  # noqa: ASYNC110 - as above
                "SELECT 1 FROM work WHERE status = 'opened' AND identifiers LIKE ?", f"%{name}%"
            ):
                await asyncio.sleep(0.05)
        return order

    async def finish(self, requester: Requester, order: dict[str, Any]) -> Placed:
        """Finalize *order*."""
        return await finish(requester, order)


class RootOfVault:
    """Signs with any key, as somebody with every right in Vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def create_key(self, key_id: str, kind: str) -> bytes:
        raise NotImplementedError

    async def public_key(self, key_id: str) -> bytes:
        path, _, version = key_id.removeprefix("vault:").partition("#")
        mount, _, name = path.rpartition("/")
        found = await asyncio.to_thread(self._vault.ask, "GET", f"{mount}/keys/{name}")
        pem = found["data"]["keys"][version]["public_key"]
        key = load_pem_public_key(pem.encode())
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def sign(self, key_id: str, data: bytes) -> bytes:
        path, _, version = key_id.removeprefix("vault:").partition("#")
        mount, _, name = path.rpartition("/")
        document = {
            "input": base64.b64encode(data).decode(),
            "key_version": int(version),
            "marshaling_algorithm": "jws",
        }
        made = await asyncio.to_thread(
            self._vault.ask, "POST", f"{mount}/sign/{name}/sha2-256", document
        )
        text = made["data"]["signature"].split(":")[2]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def events_of(place: Losing, kind: str) -> list[dict[str, Any]]:
    """Return the data of every event of this kind."""
    found = place.rows("SELECT data FROM events WHERE kind = ? ORDER BY seq", kind)
    return [json.loads(data) for (data,) in found]
