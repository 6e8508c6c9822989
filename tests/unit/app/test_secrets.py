"""Secrets are read where they lie: at once, or when they are needed."""

import asyncio
import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.app.secrets import (
    FRESH_TIME,
    RETRY_TIME,
    Secrets,
    is_for_one_login,
    parse_octets,
    parse_reference,
    read_passphrase,
    references,
    split_reference,
)
from broker.app.vault import VaultMemory
from broker.config import SecretRef
from broker.issuance.errors import Broken, Unreachable
from tests.fakes.clock import FakeClock
from tests.fakes.fake_kv import FakeKv
from tests.unit.config.conftest import parsed

VAULT: dict[str, Any] = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": {"method": "token", "token": "file:/run/vault-token"},
    "kv_mounts": ["team/kv", "team/kv/deep"],
}
APPROLE = {
    "method": "approle",
    "role_id": "file:/etc/penstock/role-id",
    "secret_id": "file:/run/secret-id",
}
CONFIG = parsed({"vault": VAULT})
SECRET = SecretRef("vault", "kv/penstock/test#field")
MAC_KEY = bytes(range(32))
SECOND = timedelta(seconds=1)


class Place:
    """A reader of secrets, and the Vault behind it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kv = FakeKv(field="first")
        self.secrets = Secrets(CONFIG, self.kv, self.clock)

    def change(self, value: str) -> None:
        """Write a new version."""
        self.kv.put("kv", "penstock/test", field=value)

    async def read(self) -> bytes:
        """Return the secret as it is used now."""
        return await self.secrets.read(SECRET)


@pytest.fixture
def place() -> Place:
    """Nothing is read yet."""
    return Place()


# ----------------------------------------------------------------------------------------- Vault


async def test_nothing_is_asked_before_the_secret_is_needed(place: Place) -> None:
    """A broker starts while Vault is sealed."""
    place.kv.is_away = True
    read = place.secrets.reader(SECRET)
    assert place.kv.reads == []
    with pytest.raises(Unreachable, match="sealed"):
        await read()
    place.kv.is_away = False
    assert await read() == b"first"


async def test_burst_asks_once(place: Place) -> None:
    """A hundred orders that need the TSIG key are one question."""
    assert set(await asyncio.gather(*(place.read() for _ in range(100)))) == {b"first"}
    assert place.kv.reads == [("kv", "penstock/test")]


async def test_changed_value_is_used_within_the_stated_time(place: Place) -> None:
    """Without a restart, and without asking for every use."""
    assert await place.read() == b"first"
    place.change("second")
    place.clock.advance(FRESH_TIME - SECOND)
    assert await place.read() == b"first"
    place.clock.advance(SECOND)
    assert await place.read() == b"second"
    assert len(place.kv.reads) == 2


async def test_doubted_value_is_read_anew_at_once(place: Place) -> None:
    """The peer refused it, so it may have been changed a moment ago."""
    assert await place.read() == b"first"
    place.change("second")
    place.secrets.doubt([SECRET, SecretRef("vault", "kv/other#field")])
    assert await place.read() == b"second"


async def test_last_value_is_used_while_vault_is_away(place: Place) -> None:
    """It is asked again now and then, told once, and used anew as soon as it is back."""
    assert await place.read() == b"first"
    place.kv.is_away = True
    place.change("second")
    place.clock.advance(FRESH_TIME)
    with capture_logs() as logs:
        for _ in range(3):
            assert await place.read() == b"first"
            assert await place.read() == b"first"
            place.clock.advance(RETRY_TIME)
    assert len(place.kv.reads) == 4
    (line,) = logs
    assert line["secret"] == "vault:kv/penstock/test#field"
    assert "first" not in str(line)
    place.kv.is_away = False
    assert await place.read() == b"second"


async def test_deleted_value_is_not_used_any_longer(place: Place) -> None:
    """To delete a secret is to withdraw it."""
    assert await place.read() == b"first"
    place.kv.documents.clear()
    place.clock.advance(FRESH_TIME)
    for _ in range(2):
        with pytest.raises(Broken, match="is not in Vault"):
            await place.read()
    place.kv.is_away = True
    with pytest.raises(Unreachable):
        await place.read()


async def test_clock_that_was_put_back_makes_nothing_last(place: Place) -> None:
    """What was read tomorrow is read again today."""
    assert await place.read() == b"first"
    place.change("second")
    place.clock.advance(-timedelta(hours=1))
    assert await place.read() == b"second"


async def test_reference_into_vault_needs_vault() -> None:
    """Whatever a configuration check let through."""
    with pytest.raises(Broken, match="no 'vault' section"):
        await Secrets(parsed(), None, FakeClock()).read(SECRET)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        pytest.param("kv/a#f", ("kv", "a", "f"), id="first-part"),
        pytest.param("kv/a/b/c#f", ("kv", "a/b/c", "f"), id="long-path"),
        pytest.param("team/kv/a#f", ("team/kv", "a", "f"), id="named-mount"),
        pytest.param("team/kv/deep/a#f", ("team/kv/deep", "a", "f"), id="longest-mount"),
        pytest.param("team/kvetch/a#f", ("team", "kvetch/a", "f"), id="no-mount-but-like-one"),
    ],
)
def test_reference_is_split_at_its_mount(target: str, parts: tuple[str, str, str]) -> None:
    """The mounts with a '/' are named; of others the first part is the mount."""
    assert split_reference(CONFIG, SecretRef("vault", target)) == parts


# ------------------------------------------------------------------------------ files, environment


async def test_secret_in_a_file_is_read_at_once(tmp_path: Path, place: Place) -> None:
    """Its faults are told at the start, and what it said then holds until the next one."""
    path = tmp_path / "secret"
    with pytest.raises(Broken, match="cannot be read"):
        place.secrets.reader(SecretRef("file", str(path)))
    path.write_text("first\n")
    read = place.secrets.reader(SecretRef("file", str(path)))
    path.write_text("second\n")
    assert await read() == b"first"
    assert await place.secrets.read(SecretRef("file", str(path))) == b"second"
    assert place.kv.reads == []


# ---------------------------------------------------------------------------------------- octets


@pytest.mark.parametrize(
    ("form", "text"),
    [
        pytest.param("base64", base64.b64encode(MAC_KEY), id="base64"),
        pytest.param("base64url", base64.urlsafe_b64encode(MAC_KEY).rstrip(b"="), id="base64url"),
    ],
)
async def test_secret_is_read_in_its_form(
    tmp_path: Path, place: Place, form: Any, text: bytes
) -> None:
    """The octets, whatever they are written in and wherever they lie."""
    path = tmp_path / "secret"
    path.write_bytes(text)
    place.change(text.decode())
    assert await place.secrets.octets(SecretRef("file", str(path)), form)() == MAC_KEY
    assert await place.secrets.octets(SECRET, form)() == MAC_KEY


@pytest.mark.parametrize("form", ["base64", "base64url"])
@pytest.mark.parametrize("text", [b"hunter2!", b"\xff\xfe\xfd"], ids=["text", "octets"])
def test_secret_in_another_form_is_refused_unseen(tmp_path: Path, form: Any, text: bytes) -> None:
    """The sentence names where it lies and what was expected, and nothing of it."""
    path = tmp_path / "secret"
    path.write_bytes(text)
    reference = SecretRef("file", str(path))
    with pytest.raises(Broken) as caught:
        parse_octets(reference, text, form)
    assert caught.value.reason == f"secret file:{path} is not {form}"
    with pytest.raises(Broken, match=f"is not {form}"):
        Secrets(CONFIG, None, FakeClock()).octets(reference, form)


async def test_value_in_another_form_is_refused_when_it_is_read(place: Place) -> None:
    """And taken once it is mended."""
    read = place.secrets.octets(SECRET, "base64")
    place.change("hunter2!")
    with pytest.raises(Broken) as caught:
        await read()
    assert caught.value.reason == f"secret {SECRET} is not base64"


# ------------------------------------------------------------------------------------- passphrase


async def test_passphrase_is_read_once() -> None:
    """A file that is written under another one than its neighbours would be lost with it."""
    config = parsed({"vault": VAULT, "keys.passphrase": "vault:kv/penstock/test#passphrase"})
    kv, clock = FakeKv(passphrase="correct horse battery"), FakeClock()
    secrets = Secrets(config, kv, clock)
    kv.is_away = True
    with pytest.raises(Unreachable):
        await secrets.passphrase()()
    kv.is_away = False
    assert await secrets.passphrase()() == b"correct horse battery"
    kv.put("kv", "penstock/test", passphrase="another one, and no shorter")
    clock.advance(10 * FRESH_TIME)
    assert await secrets.passphrase()() == b"correct horse battery"


@pytest.mark.parametrize("scheme", ["file", "vault"])
async def test_short_passphrase_is_refused(tmp_path: Path, scheme: str) -> None:
    """Wherever it lies: from a file at the start, from Vault when it is read."""
    path = tmp_path / "pass"
    path.write_text("short")
    reference = f"file:{path}" if scheme == "file" else "vault:kv/penstock/test#passphrase"
    config = parsed({"vault": VAULT, "keys.passphrase": reference})
    secrets = Secrets(config, FakeKv(passphrase="short"), FakeClock())
    with pytest.raises(Broken, match="5 bytes long"):
        await secrets.passphrase()()


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        pytest.param("file:/run/pass", SecretRef("file", "/run/pass"), id="file"),
        pytest.param("env:PASS", SecretRef("env", "PASS"), id="environment"),
    ],
)
def test_reference_may_be_typed(text: str, reference: SecretRef) -> None:
    """To a file or a variable."""
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["hunter2", "file:pass", "env:", "env:A B", "vault:kv/a#b", ""])
def test_what_is_no_reference_is_not_repeated(text: str) -> None:
    """It may be the secret itself, typed where its place was asked for."""
    with pytest.raises(Broken) as broken:
        parse_reference(text)
    assert broken.value.reason == (
        "what was given is no reference such as 'file:/PATH' or 'env:NAME'"
    )


@pytest.mark.parametrize(
    ("serve", "is_once"),
    [
        pytest.param(VAULT["serve"], False, id="token"),
        pytest.param(APPROLE, True, id="wrapped"),
        pytest.param({**APPROLE, "is_wrapped": False}, False, id="unwrapped"),
    ],
)
def test_wrapped_login_is_the_brokers_alone(serve: dict[str, Any], *, is_once: bool) -> None:
    """A backup command that opened it would keep the broker out."""
    config = parsed({"vault": {**VAULT, "serve": serve}})
    assert is_for_one_login(config, SECRET) == is_once
    assert not is_for_one_login(config, SecretRef("file", "/run/pass"))
    other = {"method": "certificate", "certificate": "/a.crt", "key": "/a.key"}
    own = parsed({"vault": {**VAULT, "serve": other, "mounts": {"kv": {"serve": serve}}}})
    assert is_for_one_login(own, SECRET) == is_once


async def test_another_process_reads_a_passphrase_that_lies_in_a_file(tmp_path: Path) -> None:
    """Nothing is asked of Vault for it."""
    path = tmp_path / "pass"
    path.write_text("correct horse battery\n")
    config = parsed({"vault": VAULT, "keys.passphrase": f"file:{path}"})
    assert await read_passphrase(config) == b"correct horse battery"


# ---------------------------------------------------------------------------------------- findings


async def test_findings_are_of_every_secret_in_vault() -> None:
    """A row for each: it is good, a person has to see to it, or Vault is away."""
    config = parsed(
        {
            "vault": VAULT,
            "keys.passphrase": "vault:kv/penstock/test#passphrase",
            "external_account_bindings": [
                {"key_id": "farm", "mac_key": "vault:kv/penstock/gone#mac"},
                {"key_id": "barn", "mac_key": "env:BARN"},
            ],
        }
    )
    kv = FakeKv(passphrase="correct horse battery")
    secrets = Secrets(config, kv, FakeClock())
    rows = await secrets.findings()
    assert [(row["secret"], row["kind"]) for row in rows] == [
        ("vault:kv/penstock/gone#mac", "broken"),
        ("vault:kv/penstock/test#passphrase", "good"),
    ]
    assert "correct horse" not in str(rows)
    kv.is_away = True
    assert {row["kind"] for row in await secrets.findings()} == {"unreachable"}
    assert await Secrets(parsed(), None, FakeClock()).findings() == []


# ------------------------------------------------------------------------------------- references


def test_every_reference_is_found() -> None:
    """In sections, lists and mappings, whatever they are for."""
    config = parsed(
        {
            "vault": VAULT,
            "keys.passphrase": "vault:kv/keys#passphrase",
            "external_account_bindings": [{"key_id": "farm", "mac_key": "env:FARM"}],
        }
    )
    assert sorted(map(str, references(config))) == [
        "env:FARM",
        "file:/run/vault-token",
        "vault:kv/keys#passphrase",
    ]


async def test_what_a_turn_before_has_read_is_used_while_vault_is_away() -> None:
    """The passphrase too: key files and the broker's own pair stay open; without it they do not."""
    clock, memory = FakeClock(), VaultMemory()
    config = parsed({"vault": VAULT, "keys.passphrase": "vault:kv/penstock/test#passphrase"})
    kv = FakeKv(passphrase="a passphrase that is long enough")
    first = Secrets(config, kv, clock, memory.secrets(config.vault, clock.now()))
    assert await first.passphrase()() == b"a passphrase that is long enough"
    kv.is_away = True
    second = Secrets(config, kv, clock, memory.secrets(config.vault, clock.now()))
    assert await second.passphrase()() == b"a passphrase that is long enough"
    with pytest.raises(Unreachable):
        await Secrets(config, kv, clock).passphrase()()
    kv.is_away = False
    kv.put("kv", "penstock/test", passphrase="another one that is long enough")
    third = Secrets(config, kv, clock, memory.secrets(config.vault, clock.now()))
    assert await third.passphrase()() == b"another one that is long enough"
