"""A broker whose every secret lies in Vault: it starts, serves and waits by what Vault says.

A real Vault, Pebble that wants an external account binding, and BIND that wants TSIG.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from broker.protocol.encoding import parse_base64url
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.deployments.vaulted import OWN
from tests.e2e.vault_scene import Marked
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.client import DnsUpdates
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

ZONE: Final = "example.test"
CA_KID: Final = "kid-at-the-ca"
FARM: Final = "farm"

POLICY: Final = """\
path "kv/data/penstock/broker" { capabilities = ["read"] }
path "sealing/encrypt/penstock.sealing" { capabilities = ["update"] }
path "sealing/decrypt/penstock.sealing" { capabilities = ["update"] }
path "sealing/keys/penstock.sealing" { capabilities = ["read"] }
"""

SETTLE_SECONDS: Final = 60.0
"""Longest wait for what the broker does by itself within seconds."""


POLL_SECONDS: Final = 0.2
"""Pause between attempts of a client that was told to come again."""


class Patient(Penstock):
    """A broker that is waited for until it lives, though it may not be ready."""

    def is_ready(self) -> bool:
        """Ask the health port whether it lives."""
        return process.is_answering(f"http://127.0.0.1:{self.health_port}/livez")

    def is_serving(self) -> bool:
        """Ask whether it is ready for clients."""
        return process.is_answering(f"http://127.0.0.1:{self.health_port}/readyz")


class Scene:
    """The deployment."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self.marked = Marked()
        self.named = stack.enter_context(Bind(tmp / "named", zones=[ZONE]))
        self.marked.secrets["tsig"] = self.named.tsig_secret_b64
        ca_mac = self.marked.make("eab-at-the-ca")
        self.passphrase = self.marked.make("passphrase")
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=process.free_port(),
                dns_server=self.named.address,
                options=PebbleOptions(external_accounts={CA_KID: ca_mac}),
            )
        )
        self.vault = stack.enter_context(Vault(tmp / "vault"))
        self.vault.enable("kv", "kv", options={"version": "2"})
        values = {"mac": ca_mac, "tsig": self.named.tsig_secret_b64, "pass": self.passphrase}
        self.vault.ask("POST", "kv/data/penstock/broker", {"data": values})
        self.vault.enable("transit", "sealing")
        self.vault.ask("POST", "sealing/keys/penstock.sealing", {"type": "aes256-gcm96"})
        self.vault.write_policy("penstock-serve", OWN + POLICY)
        self.marked.secrets["token"] = self.vault.token("penstock-serve")
        self.penstock = stack.enter_context(self._broker(tmp))

    def _broker(self, tmp: Path) -> Patient:
        directory = tmp / "penstock"
        directory.mkdir()
        updates = DnsUpdates(self.named.host, self.named.port, self.named.tsig_name, "unused")
        solver = {
            "challenge": "dns-01",
            "rfc2136": {
                "server": f"{updates.host}:{updates.port}",
                "tsig": {
                    "name": updates.tsig_name,
                    "algorithm": updates.tsig_algorithm,
                    "secret": "vault:kv/penstock/broker#tsig",
                },
                "zone": ZONE,
            },
            "self_check": {"servers": [self.named.address]},
        }
        token = secret(directory, "token", self.marked.secrets["token"])
        return Patient(
            directory,
            validation_http_port=process.free_port(),
            upstreams=[
                AcmeCa(
                    name="ca",
                    directory_url=self.pebble.directory_url,
                    ca_bundle=self.pebble.ca_bundle,
                    description="pebble",
                    http_01=False,
                    options={
                        "solvers": [solver],
                        "external_account_binding": {
                            "key_id": CA_KID,
                            "mac_key": "vault:kv/penstock/broker#mac",
                        },
                    },
                )
            ],
            policy={
                "trusted": [
                    {
                        "eab": [FARM],
                        "names": [f"**.{ZONE}"],
                        "profiles": ["server"],
                        "because": "the tests say so",
                    }
                ]
            },
            community={"external_account_required": True},
            more={
                "keys": {"passphrase": "vault:kv/penstock/broker#pass"},
                "vault": {
                    "addresses": [self.vault.url],
                    "ca_bundle": str(self.vault.ca_bundle),
                    "timeout": "2s",
                    "serve": {"method": "token", "token": token},
                    "sealing_key": "sealing/penstock.sealing",
                },
            },
        )

    def mint(self, key_id: str) -> str:
        """Return the MAC key of a new binding key, base64url."""
        made = self.penstock.json("eab", "mint", "--id", key_id, "--reusable")
        self.marked.secrets[f"minted {key_id}"] = made["mac_key"]
        return str(made["mac_key"])

    def rows(self, database: Path | None = None) -> dict[str, tuple[str | None, bytes]]:
        """Return under what each binding key is sealed, and what of it the store holds."""
        path = f"file:{database or self.penstock.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as db:
            found = db.execute("SELECT key_id, sealed_by, mac_key FROM eab_keys").fetchall()
        return {key_id: (sealed_by, octets) for key_id, sealed_by, octets in found}

    def leaks(self) -> list[str]:
        """Return where in files, logs, metrics and process lists a marked secret stands."""
        places = {str(path): path.read_bytes() for path in _files(self.penstock.state)}
        places |= {
            "log": self.penstock.log_text().encode(),
            "metrics": self.penstock.metrics().encode(),
            "processes": b"".join(_processes()),
        }
        found = []
        for name, value in self.marked.secrets.items():
            forms = [value.encode()]
            if name.startswith(("minted", "eab")):
                forms.append(parse_base64url(value))
            found += [
                f"{name} in {place}"
                for place, content in places.items()
                if any(form in content for form in forms)
            ]
        return found


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_socket():
            yield path


def _processes() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (path / "cmdline").read_bytes() + b"\0\0" + (path / "environ").read_bytes()


def _restore(broker: Penstock, file: Path, config: Path) -> None:
    """Put a backup where another configuration wants it."""
    subprocess.run(
        [*broker.program(), "restore", str(file), "--config", str(config)],
        capture_output=True,
        timeout=SETTLE_SECONDS,
        cwd=broker.directory,
        env=broker.environment(),
        check=True,
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The deployment, with a binding key for a requester whom policy trusts."""
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("vs"), stack)


@pytest.fixture
async def client(scene: Scene) -> AsyncIterator[Requester]:
    """A client without an account yet."""
    async with Requester(scene.penstock.directory_url, scene.penstock.ca_bundle) as made:
        yield made


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for what the broker does by itself."""
    await asyncio.to_thread(process.wait_until, is_so, SETTLE_SECONDS, what)


async def bound_in_time(client: Requester, key_id: str, mac_key: str) -> int:
    """Return how binding is answered once it is no longer for later."""
    for _ in range(int(SETTLE_SECONDS / POLL_SECONDS)):
        status = (await client.bind(key_id, mac_key)).status
        if status != 503:
            return status
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("it is still for later")


async def test_every_secret_is_read_from_vault(scene: Scene, client: Requester) -> None:
    """The CA was registered at by its binding, the name proven by TSIG, the client by its key."""
    mac = await asyncio.to_thread(scene.mint, FARM)
    assert (await client.bind(FARM, mac)).status == 201
    placed = await client.request(f"www.{ZONE}")
    assert await placed.settled() == "valid"
    sealed_by, octets = scene.rows()[FARM]
    assert sealed_by == "vault:sealing/penstock.sealing#1"
    assert octets.startswith(b"vault:v1:")
    assert scene.leaks() == []


async def test_sealed_vault_tells_nobody_which_key_ids_there_are(
    scene: Scene, client: Requester
) -> None:
    """A known and an unknown one get the same 503, to be tried again; then each its own."""
    mac = await asyncio.to_thread(scene.mint, "known")
    other = scene.marked.make("eab-of-nobody")
    await asyncio.to_thread(scene.vault.seal)
    try:
        answers = [await client.bind("known", mac), await client.bind("nobody", other)]
        answers.append(await client.bind("known", other))
    finally:
        await asyncio.to_thread(scene.vault.unseal)
    problems = [answer.json() for answer in answers]
    assert {answer.status for answer in answers} == {503}
    assert {json.dumps(problem, sort_keys=True) for problem in problems} == {
        json.dumps(problems[0], sort_keys=True)
    }
    assert problems[0]["type"].endswith(":serverInternal")
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)

    assert await bound_in_time(client, "known", mac) == 201
    async with Requester(scene.penstock.directory_url, scene.penstock.ca_bundle) as stranger:
        assert (await stranger.bind("nobody", other)).status == 403
        assert (await stranger.bind("known", other)).status == 403
    assert scene.leaks() == []


async def test_broker_starts_while_vault_is_sealed(scene: Scene) -> None:
    """Commands are answered and probes tell why clients are not; it serves once Vault is back."""
    broker = scene.penstock
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(scene.vault.seal)
    try:
        await asyncio.to_thread(broker.start)
        assert not broker.is_serving()
        assert (await broker.a_json("status"))["version"]
        checked = await asyncio.to_thread(broker.run, "check", "--secrets")
        assert "sealed" in checked.stderr
    finally:
        await asyncio.to_thread(scene.vault.unseal)
    await until(broker.is_serving, "the broker serves")
    await asyncio.to_thread(broker.run, "check", "--secrets", "--strict")
    assert scene.leaks() == []


async def test_what_an_earlier_version_kept_in_the_clear_is_gone(scene: Scene) -> None:
    """Sealed at the next start, and in no file any longer; a rotated key takes over the rest."""
    broker = scene.penstock
    mac = await asyncio.to_thread(scene.mint, "old")
    plain = parse_base64url(mac)
    await asyncio.to_thread(broker.stop)
    with contextlib.closing(sqlite3.connect(broker.database)) as db, db:
        db.execute(
            "UPDATE eab_keys SET mac_key = ?, sealed_by = NULL WHERE key_id = 'old'", (plain,)
        )
    assert any(plain in path.read_bytes() for path in _files(broker.state))
    scene.vault.ask("POST", "sealing/keys/penstock.sealing/rotate", {})
    await asyncio.to_thread(broker.start)
    await until(broker.is_serving, "the broker serves")
    new = "vault:sealing/penstock.sealing#2"
    await until(lambda: {by for by, _ in scene.rows().values()} == {new}, "all is sealed")
    assert {key["sealed_by"] for key in await broker.a_json("eab", "list")} == {new}
    await until(lambda: scene.leaks() == [], "nothing is left")
    async with Requester(broker.directory_url, broker.ca_bundle) as client:
        assert (await client.bind("old", mac)).status == 201


async def test_row_over_another_opens_for_nobody(scene: Scene, client: Requester) -> None:
    """Whoever writes to the store cannot make one binding key pass for another."""
    mine, theirs = [await asyncio.to_thread(scene.mint, name) for name in ("mine", "theirs")]
    with contextlib.closing(sqlite3.connect(scene.penstock.database)) as db, db:
        copied = db.execute(
            "UPDATE eab_keys SET (mac_key, sealed_by) ="
            " (SELECT mac_key, sealed_by FROM eab_keys WHERE key_id = 'mine')"
            " WHERE key_id = 'theirs'"
        )
        assert copied.rowcount == 1
    assert (await client.bind("theirs", mine)).status == 500
    assert (await client.bind("theirs", theirs)).status == 500
    assert (await client.bind("mine", mine)).status == 201


async def test_secret_that_is_withdrawn_is_told(scene: Scene) -> None:
    """By the check, without a restart, and never with what it was."""
    broker = scene.penstock
    values: dict[str, Any] = scene.vault.ask("GET", "kv/data/penstock/broker")["data"]["data"]
    fewer = {name: value for name, value in values.items() if name != "tsig"}
    scene.vault.ask("POST", "kv/data/penstock/broker", {"data": fewer})
    try:
        checked = await asyncio.to_thread(broker.run, "check", "--secrets", status=2)
    finally:
        scene.vault.ask("POST", "kv/data/penstock/broker", {"data": values})
    assert "vault:kv/penstock/broker#tsig has no such field" in checked.stderr
    assert scene.marked.found_in(checked.stdout + checked.stderr) == []
    await asyncio.to_thread(broker.run, "check", "--secrets")


async def test_backup_is_made_by_a_passphrase_from_vault(scene: Scene, tmp_path: Path) -> None:
    """Or by one that a person has read; what is in it is sealed twice."""
    broker, file = scene.penstock, tmp_path / "one.backup"
    await asyncio.to_thread(broker.run, "backup", "--output", str(file))
    given = secret(tmp_path, "passphrase", scene.passphrase)
    verified = await broker.a_json("backup", "verify", str(file), "--passphrase", given)
    assert verified["schema"] >= 3
    elsewhere = tmp_path / "penstock.yaml"
    document = {**broker.config_document(), "state": str(tmp_path / "state")}
    elsewhere.write_text(json.dumps(document), "utf-8")
    await asyncio.to_thread(_restore, broker, file, elsewhere)
    assert scene.rows(tmp_path / "state" / "penstock.db") == scene.rows()
    wrong = secret(tmp_path, "wrong", "another passphrase for tests")
    refused = await asyncio.to_thread(
        broker.run, "backup", "verify", str(file), "--passphrase", wrong, status=1
    )
    assert "passphrase" in refused.stderr
