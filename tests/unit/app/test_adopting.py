"""Keys and accounts from elsewhere, as configuration has places and CAs for them."""

from __future__ import annotations

from typing import Any

import pytest

from broker.app.adopting import ConfiguredElsewhere, ConfiguredForeignKeys
from broker.issuance.errors import Broken
from tests.fakes.clock import FakeClock
from tests.unit.config.conftest import parsed

MOUNT = "team/transit"
VERSION = f"vault:{MOUNT}/penstock.default.ca#1"


class FakeImporter:
    """A key file, and what Vault has by its name."""

    def __init__(self) -> None:
        self.kind = "ec-p256"
        self.is_there = False
        self.calls: list[tuple[str, ...]] = []

    async def key_ids(self) -> list[str]:
        return ["account-ca@default", "adopted-ca@default.0123", "ca-local-root-1"]

    async def kind_of(self, key_id: str) -> str:
        return self.kind

    async def destination(self, key_id: str, mount: str, name: str) -> tuple[str, bool]:
        return f"vault:{mount}/{name}#1", self.is_there

    async def take_in(self, key_id: str, pkcs8_der: bytes) -> None:
        self.calls.append(("take_in", key_id))

    async def bring(self, key_id: str, new_key_id: str) -> None:
        self.calls.append(("bring", key_id, new_key_id))


class FakeUses:
    """Ids that were ever ours."""

    def __init__(self, *used: str) -> None:
        self.used = used

    async def account_key_ids(self) -> tuple[str, ...]:
        return self.used

    async def used_key_ids(self) -> tuple[str, ...]:
        return self.used


def foreign(
    importer: FakeImporter, *used: str, store: str = f"vault:{MOUNT}", kind: str = "ec-p256"
) -> ConfiguredForeignKeys:
    """Return what is tried."""
    config = parsed(
        {
            "vault": {
                "addresses": ["https://vault.corp.example:8200"],
                "serve": {"method": "token", "token": "file:/run/serve"},
                "rotate": {"method": "token", "token": "file:/run/rotate"},
            },
            "communities": {"default": {}, "lab": {"key_store": "file"}},
            "upstreams": {
                "ca": {
                    "kind": "acme",
                    "directory": "https://ca.example/directory",
                    "communities": ["default", "lab"],
                    "account_key": {"store": store, "kind": kind},
                },
                "local": {"kind": "built-in", "base_url": "http://pki.corp.example:8080"},
            },
        }
    )
    made: Any = importer
    return ConfiguredForeignKeys(config, made, FakeUses(*used))


def test_place_is_the_communitys_before_the_upstreams() -> None:
    """As for keys that are made."""
    made = foreign(FakeImporter())
    assert made.place("ca", "default") == f"vault:{MOUNT}"
    assert made.place("ca", "lab") == "file"


async def test_destination_is_the_name_that_keys_have() -> None:
    """The first version of it."""
    assert await foreign(FakeImporter()).destination("key", "ca", "default") == VERSION


async def test_id_that_was_another_key_once_is_not_taken() -> None:
    """Vault was emptied since; what is there already is the key itself."""
    importer = FakeImporter()
    with pytest.raises(Broken, match="was another key of ours once"):
        await foreign(importer, VERSION).destination("key", "ca", "default")
    importer.is_there = True
    assert await foreign(importer, VERSION).destination("key", "ca", "default") == VERSION


async def test_key_of_another_kind_is_not_brought() -> None:
    """No later version could be of the kind that is configured."""
    importer = FakeImporter()
    importer.kind = "rsa-2048"
    with pytest.raises(Broken, match=r"of kind rsa-2048, and the configuration says ec-p256"):
        await foreign(importer).destination("key", "ca", "default")
    assert await foreign(importer, kind="rsa-2048").destination("key", "ca", "default") == VERSION


async def test_what_is_done_is_passed_on() -> None:
    """To who does it."""
    importer = FakeImporter()
    made = foreign(importer)
    await made.take_in("key", b"der")
    await made.bring("key", VERSION)
    assert importer.calls == [("take_in", "key"), ("bring", "key", VERSION)]


async def test_no_account_is_looked_for_but_at_a_ca() -> None:
    """The built-in CA has none; one that was adopted is announced."""
    welcomed: list[tuple[str, str]] = []
    made = ConfiguredElsewhere({}, lambda *pair: welcomed.append(pair), FakeClock())
    with pytest.raises(Broken, match="'local' is not configured as a CA that speaks ACME"):
        await made.look_up("local", "default", "key", None)
    made.welcome("ca", "default")
    assert welcomed == [("ca", "default")]


async def test_keys_that_were_taken_in_are_told_by_their_names() -> None:
    """Those that were made here are not among them."""
    assert await foreign(FakeImporter()).taken_in() == ["adopted-ca@default.0123"]
