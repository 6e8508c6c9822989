"""Values and seals of a real Vault: KV v2 is read, transit encrypts, each fault has its word."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from broker.app.secrets import FRESH_TIME, RETRY_TIME, Secrets
from broker.clock import SystemClock
from broker.config import SecretRef
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import Sealed
from broker.keys.sealing import TransitSealer
from broker.keys.vault_kv import KvReader
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings
from tests.deployments.vaulted import OWN
from tests.fakes.clock import FakeClock
from tests.peers.vault import Vault
from tests.unit.config.conftest import parsed

pytestmark = pytest.mark.peers

MARKED: Final = "kv-marked-value-4711"
SECRET: Final = b"sealed-marked-value-4711"

POLICY: Final = """\
path "{kv}/data/penstock/*" {{ capabilities = ["read"] }}
path "{transit}/encrypt/penstock.sealing" {{ capabilities = ["update"] }}
path "{transit}/decrypt/penstock.sealing" {{ capabilities = ["update"] }}
path "{transit}/keys/penstock.sealing" {{ capabilities = ["read"] }}
path "{transit}/keys/nobody" {{ capabilities = ["read"] }}
"""

_numbers: Final = itertools.count(1)


class Place:
    """Two engines of a Vault, and an identity that may read and encrypt there."""

    def __init__(self, vault: Vault, tmp: Path) -> None:
        number = next(_numbers)
        self.vault = vault
        self.kv, self.transit = f"team/kv-{number}", f"sealing-{number}"
        vault.enable("kv", self.kv, options={"version": "2"})
        vault.enable("transit", self.transit)
        policy = f"secrets-{number}"
        vault.write_policy(policy, OWN + POLICY.format(kv=self.kv, transit=self.transit))
        token = vault.token(policy)
        settings = VaultSettings(
            addresses=(vault.url,),
            state_dir=tmp,
            ca_bundle=vault.ca_bundle,
            identities={"": Identity(serve=TokenSettings(read_token=token.encode, place="here"))},
        )
        self.connections = VaultConnections(settings, SystemClock())
        self.reader = KvReader(self.connections)
        self.sealer = TransitSealer(self.connections, f"{self.transit}/penstock.sealing")

    def put(self, path: str, **fields: Any) -> None:
        """Write a new version."""
        self.vault.ask("POST", f"{self.kv}/data/penstock/{path}", {"data": fields})

    async def read(self, path: str, field: str) -> bytes:
        """Read a field."""
        return await self.reader.read(self.kv, f"penstock/{path}", field)

    def make_key(self, **options: Any) -> None:
        """Make the sealing key."""
        made = {"type": "aes256-gcm96", **options}
        self.vault.ask("POST", f"{self.transit}/keys/penstock.sealing", made)

    def configure_key(self, **options: Any) -> None:
        """Configure it."""
        self.vault.ask("POST", f"{self.transit}/keys/penstock.sealing/config", options)


@pytest.fixture
async def place(vault: Vault, tmp_path: Path) -> AsyncIterator[Place]:
    """Engines of this test's own."""
    made = Place(vault, tmp_path)
    yield made
    await made.connections.close()


# -------------------------------------------------------------------------------------------- KV


async def test_latest_version_is_read(place: Place) -> None:
    """At a mount and a path with a '/' in them."""
    place.put("deep/eab", mac_key="first")
    assert await place.read("deep/eab", "mac_key") == b"first"
    place.put("deep/eab", mac_key=f"{MARKED}\n")
    assert await place.read("deep/eab", "mac_key") == MARKED.encode()


async def test_deleted_version_is_told_and_comes_back(place: Place) -> None:
    """To delete is to withdraw; to undelete is to give it back."""
    place.put("eab", mac_key=MARKED)
    path = f"{place.kv}/data/penstock/eab"
    place.vault.ask("DELETE", path)
    with pytest.raises(Broken, match=r"is not in Vault.*latest version was deleted"):
        await place.read("eab", "mac_key")
    place.vault.ask("POST", f"{place.kv}/undelete/penstock/eab", {"versions": [1]})
    assert await place.read("eab", "mac_key") == MARKED.encode()
    place.vault.ask("PUT", f"{place.kv}/destroy/penstock/eab", {"versions": [1]})
    with pytest.raises(Broken, match="is not in Vault"):
        await place.read("eab", "mac_key")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"other": MARKED}, "has no such field", id="no-field"),
        pytest.param({"mac_key": ""}, "is empty", id="empty"),
        pytest.param({"mac_key": 4711}, "is no text", id="number"),
        pytest.param({"mac_key": {"a": MARKED}}, "is no text", id="mapping"),
        pytest.param({"mac_key": MARKED * 4000}, "larger than the limit", id="large"),
    ],
)
async def test_what_is_no_secret_gets_a_sentence(
    place: Place, fields: dict[str, Any], sentence: str
) -> None:
    """It names where, and never what."""
    place.put("eab", **fields)
    with pytest.raises(Broken) as broken:
        await place.read("eab", "mac_key")
    assert sentence in broken.value.reason
    assert MARKED not in broken.value.reason


async def test_what_is_not_there_gets_a_sentence(place: Place) -> None:
    """Nothing was ever written, or there is no such engine, which an identity cannot see."""
    with pytest.raises(Broken, match=f"secret vault:{place.kv}/penstock/none#f is not in Vault"):
        await place.read("none", "f")
    with pytest.raises(Unreachable, match="403"):
        await place.reader.read("nonesuch", "penstock/eab", "f")
    with pytest.raises(Unreachable, match="403"):
        await place.reader.read(place.kv, "others/eab", "f")


async def test_engine_of_version_1_is_told(place: Place) -> None:
    """Its paths are others, and it has no versions to withdraw."""
    mount = f"old-{next(_numbers)}"
    place.vault.enable("kv", mount, options={"version": "1"})
    place.vault.ask("POST", f"{mount}/data/penstock/eab", {"mac_key": MARKED})
    place.vault.write_policy("old", OWN + f'path "{mount}/*" {{ capabilities = ["read"] }}')
    token = place.vault.token("old")
    serve = TokenSettings(read_token=token.encode, place="here")
    settings = VaultSettings(
        addresses=(place.vault.url,),
        state_dir=Path(),
        ca_bundle=place.vault.ca_bundle,
        identities={"": Identity(serve=serve)},
    )
    connections = VaultConnections(settings, SystemClock())
    try:
        with pytest.raises(Broken, match="KV engine of version 2") as broken:
            await KvReader(connections).read(mount, "penstock/eab", "mac_key")
    finally:
        await connections.close()
    assert MARKED not in broken.value.reason


async def test_broker_uses_the_last_value_while_vault_is_sealed(
    place: Place, tmp_path: Path
) -> None:
    """And a changed one within the stated time after its return."""
    vault = Vault(tmp_path / "own", storage="raft")
    vault.start()
    try:
        vault.enable("kv", "kv", options={"version": "2"})
        vault.ask("POST", "kv/data/penstock/eab", {"data": {"mac_key": "first"}})
        serve = TokenSettings(read_token=vault.root_token.encode, place="here")
        settings = VaultSettings(
            addresses=(vault.url,),
            state_dir=tmp_path,
            ca_bundle=vault.ca_bundle,
            identities={"": Identity(serve=serve)},
        )
        connections, clock = VaultConnections(settings, SystemClock()), FakeClock()
        secrets = Secrets(parsed(), connections, clock)
        reference = SecretRef("vault", "kv/penstock/eab#mac_key")
        try:
            assert await secrets.read(reference) == b"first"
            vault.seal()
            clock.advance(FRESH_TIME)
            assert await secrets.read(reference) == b"first"
            with pytest.raises(Unreachable):
                await Secrets(parsed(), connections, clock).read(reference)
            back = asyncio.Event()
            connections.on_return = back.set
            connections.watch()
            vault.unseal()
            vault.ask("POST", "kv/data/penstock/eab", {"data": {"mac_key": "second"}})
            async with asyncio.timeout(50):
                await back.wait()
            clock.advance(RETRY_TIME)
            assert await secrets.read(reference) == b"second"
        finally:
            await connections.close()
    finally:
        vault.stop()


# --------------------------------------------------------------------------------------- transit


async def test_secret_is_sealed_and_opened(place: Place) -> None:
    """Under the latest version, and under those before it as long as they are not archived."""
    place.make_key()
    first = await place.sealer.seal(SECRET, "whose")
    assert first.by == f"vault:{place.transit}/penstock.sealing#1"
    place.vault.ask("POST", f"{place.transit}/keys/penstock.sealing/rotate", {})
    second = await place.sealer.seal(SECRET, "whose")
    assert second.by == await place.sealer.sealing_key() == first.by.replace("#1", "#2")
    assert await place.sealer.unseal(first, "whose") == SECRET
    assert await place.sealer.unseal(second, "whose") == SECRET
    place.configure_key(min_decryption_version=2)
    with pytest.raises(Broken, match="does not open under"):
        await place.sealer.unseal(first, "whose")
    assert await place.sealer.unseal(second, "whose") == SECRET


async def test_what_was_sealed_for_one_row_opens_for_no_other(place: Place) -> None:
    """Nor does what was changed; Vault itself refuses both."""
    place.make_key()
    sealed = await place.sealer.seal(SECRET, "external account binding key default:a")
    with pytest.raises(Broken, match="does not open"):
        await place.sealer.unseal(sealed, "external account binding key default:b")
    last = sealed.octets[-2:-1]
    changed = sealed.octets[:-2] + (b"A" if last != b"A" else b"B") + sealed.octets[-1:]
    with pytest.raises(Broken, match="does not open"):
        await place.sealer.unseal(
            Sealed(sealed.by, changed), "external account binding key default:a"
        )
    assert await place.sealer.unseal(sealed, "external account binding key default:a") == SECRET


@pytest.mark.parametrize(
    ("made", "configured", "sentence"),
    [
        pytest.param({"type": "ecdsa-p256"}, {}, "of type ecdsa-p256", id="signing"),
        pytest.param({"type": "aes128-gcm96"}, {}, "of type aes128-gcm96", id="short"),
        pytest.param({"derived": True}, {}, "derived", id="derived"),
        pytest.param({"exportable": True}, {}, "can be exported", id="exportable"),
        pytest.param(
            {}, {"allow_plaintext_backup": True}, "backed up in the clear", id="plain-backup"
        ),
        pytest.param({}, {"deletion_allowed": True}, "can be deleted", id="deletable"),
    ],
)
async def test_key_that_must_not_be_so_is_refused(
    place: Place, made: dict[str, Any], configured: dict[str, Any], sentence: str
) -> None:
    """As Vault itself tells of it."""
    place.make_key(**made)
    if configured:
        place.configure_key(**configured)
    with pytest.raises(Broken, match=sentence):
        await place.sealer.seal(SECRET, "whose")


async def test_key_that_is_not_there_is_not_made(place: Place) -> None:
    """Encrypting makes a key for whoever may create: this identity may not, and asks first."""
    sealer = TransitSealer(place.connections, f"{place.transit}/nobody")
    with pytest.raises(Broken, match=r"vault write -f .*/keys/nobody type=aes256-gcm96"):
        await sealer.seal(SECRET, "whose")
    place.make_key()
    keys = place.vault.ask("LIST", f"{place.transit}/keys")["data"]["keys"]
    assert keys == ["penstock.sealing"]
