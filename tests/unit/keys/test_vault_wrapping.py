"""Wrapping tokens: opened once, remembered, and an alarm where somebody else was first."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import hvac
import pytest

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_pool import HvacPool
from broker.keys.vault_settings import VaultSettings
from broker.keys.vault_wrapping import Intercepted, OpenedTokens, UsedUp, open_secret_id
from tests.fakes.fake_vault import FakeVault, answer, refused

GONE = refused(400, "wrapping token is not valid or does not exist")
PATH = "auth/team/approle/role/serve/secret-id"

Opening = Callable[[], Awaitable[str]]


def test_tokens_are_remembered_by_their_hashes(tmp_path: Path) -> None:
    """In a file for its owner alone, which holds no token."""
    path = tmp_path / "state" / "opened"
    opened = OpenedTokens(path)
    assert not opened.has("hvs.one")
    opened.add("hvs.one")
    opened.add("hvs.two")
    again = OpenedTokens(path)
    assert again.has("hvs.one")
    assert again.has("hvs.two")
    assert not again.has("hvs.three")
    assert "hvs" not in path.read_text("ascii")
    assert path.stat().st_mode & 0o777 == 0o600


def test_memory_is_bounded(tmp_path: Path) -> None:
    """The oldest are forgotten, long after Vault has forgotten them."""
    opened = OpenedTokens(tmp_path / "opened")
    for number in range(205):
        opened.add(f"hvs.{number}")
    assert not opened.has("hvs.4")
    assert opened.has("hvs.5")


def test_memory_that_cannot_be_kept_is_broken(tmp_path: Path) -> None:
    """A token that is opened and not remembered would be an alarm after the next restart."""
    (tmp_path / "opened").mkdir()
    with pytest.raises(Broken, match="cannot be read"):
        OpenedTokens(tmp_path / "opened").has("hvs.one")
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken, match="cannot be"):
        OpenedTokens(tmp_path / "file" / "opened").add("hvs.one")


@pytest.fixture
def vault() -> FakeVault:
    """A Vault that knows one wrapping token."""
    made = FakeVault()
    made.on("sys/wrapping/lookup", answer({"data": {"creation_path": PATH}}))
    made.on("sys/wrapping/unwrap", answer({"data": {"secret_id": "the-secret-id"}}))
    return made


@pytest.fixture
async def opening(vault: FakeVault, tmp_path: Path) -> Opening:
    """Open the token, in a thread as in life."""
    settings = VaultSettings(addresses=("https://a",), state_dir=tmp_path)
    pool = HvacPool(vault.blocking, Addresses(("https://a",), lambda: 0.0), settings)

    def call(client: hvac.Client) -> str:
        opened = OpenedTokens(tmp_path / "opened")
        return open_secret_id(
            client, "hvs.wrap", mount="team/approle", place="file:/x", opened=opened
        )

    return lambda: pool.run(call, None)


async def test_secret_id_is_had_as_the_wrapping_token_itself(
    vault: FakeVault, opening: Opening
) -> None:
    """It is looked at first, without being shown as who we are."""
    assert await opening() == "the-secret-id"
    lookup, unwrap = vault.asked
    assert (lookup.token, lookup.json()) == (None, {"token": "hvs.wrap"})
    assert (unwrap.token, unwrap.json()) == ("hvs.wrap", {})


async def test_token_that_is_gone_is_an_alarm_unless_it_was_us(
    vault: FakeVault, opening: Opening
) -> None:
    """Our own restart is told apart by the file."""
    vault.on("sys/wrapping/lookup", GONE)
    with pytest.raises(Intercepted, match="somebody else opened it") as raised:
        await opening()
    assert "hvs.wrap" not in raised.value.reason
    vault.on("sys/wrapping/lookup", answer({"data": {"creation_path": PATH}}))
    await opening()
    vault.on("sys/wrapping/lookup", GONE)
    with pytest.raises(UsedUp, match="deliver a new one"):
        await opening()


async def test_token_opened_between_the_look_and_us_is_an_alarm(
    vault: FakeVault, opening: Opening
) -> None:
    """It was there a moment ago."""
    vault.on("sys/wrapping/unwrap", GONE)
    with pytest.raises(Intercepted):
        await opening()


async def test_fault_of_the_request_is_no_alarm(vault: FakeVault, opening: Opening) -> None:
    """And the token can still be opened afterwards."""
    vault.on("sys/wrapping/unwrap", refused(400, "something else"))
    with pytest.raises(Broken, match="something else"):
        await opening()
    vault.on("sys/wrapping/unwrap", answer({"data": {"secret_id": "x"}}))
    assert await opening() == "x"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("sys/wrapping/wrap", id="wrapped-by-hand"),
        pytest.param("auth/other/role/serve/secret-id", id="another-mount"),
        pytest.param("auth/team/approle/role/serve/role-id", id="role-id"),
        pytest.param("auth/team/approle/role/a/b/secret-id", id="deeper"),
        pytest.param(None, id="none"),
    ],
)
async def test_token_of_another_origin_is_not_opened(
    vault: FakeVault, opening: Opening, path: str | None
) -> None:
    """Somebody may have put a secret of their own there."""
    vault.on("sys/wrapping/lookup", answer({"data": {"creation_path": path}}))
    with pytest.raises(Intercepted, match="was not opened"):
        await opening()
    assert vault.paths() == ["POST sys/wrapping/lookup"]


async def test_namespace_before_the_path_is_no_other_origin(
    vault: FakeVault, opening: Opening
) -> None:
    """It is still the role's."""
    vault.on("sys/wrapping/lookup", answer({"data": {"creation_path": f"pki/{PATH}"}}))
    assert await opening() == "the-secret-id"


async def test_answer_without_a_secret_id_is_broken(vault: FakeVault, opening: Opening) -> None:
    """Whatever was wrapped, it was not that."""
    vault.on("sys/wrapping/unwrap", answer({"data": ["odd"]}))
    with pytest.raises(Broken, match="held no secret id"):
        await opening()
