"""Secrets are sealed in Vault's transit engine, and whatever was sealed elsewhere opens as well."""

import base64
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import Sealed, known_secret
from broker.keys.file_sealing import FileSealer
from broker.keys.sealing import StoreSealer, TransitSealer
from broker.keys.vault_answers import VaultNotFound

SECRET = b"marked-secret-4711"
KEY = "team/transit/penstock.sealing"


class FakeTransit:
    """A transit engine with one key for encryption, as far as sealing goes."""

    def __init__(self) -> None:
        self.versions = {1: AESGCM.generate_key(256)}
        self.facts: dict[str, Any] = {}
        """What is told of the key otherwise than it should be."""
        self.is_away = False
        self.answer: Mapping[str, Any] | None = None
        """What a request is answered, whatever it asked."""
        self.posts: list[tuple[str, Mapping[str, Any]]] = []
        self.mounts: list[str] = []

    def rotate(self) -> None:
        """Make a new version."""
        self.versions[len(self.versions) + 1] = AESGCM.generate_key(256)

    def serving(self, mount: str) -> "FakeTransit":
        """Be the identity at every mount."""
        self.mounts.append(mount)
        return self

    async def get(self, path: str) -> Mapping[str, Any]:
        """Tell of the key."""
        if self.is_away:
            raise Unreachable("Vault is sealed")
        if path != "team/transit/keys/penstock.sealing":
            raise VaultNotFound(f"GET {path} answered 404")
        return {
            "type": "aes256-gcm96",
            "latest_version": len(self.versions),
            "keys": {str(version): 1_700_000_000 for version in self.versions},
            "exportable": False,
            "allow_plaintext_backup": False,
            "deletion_allowed": False,
            "derived": False,
            **self.facts,
        }

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Encrypt or decrypt."""
        if self.is_away:
            raise Unreachable("Vault is sealed")
        self.posts.append((path, document))
        if self.answer is not None:
            return self.answer
        context = base64.b64decode(document["associated_data"])
        if path == "team/transit/encrypt/penstock.sealing":
            version, nonce = document["key_version"], secrets.token_bytes(12)
            plain = base64.b64decode(document["plaintext"])
            octets = nonce + AESGCM(self.versions[version]).encrypt(nonce, plain, context)
            return {"ciphertext": f"vault:v{version}:{base64.b64encode(octets).decode()}"}
        assert path == "team/transit/decrypt/penstock.sealing"
        _, version_text, text = document["ciphertext"].split(":")
        octets = base64.b64decode(text)
        try:
            key = AESGCM(self.versions[int(version_text[1:])])
            plain = key.decrypt(octets[:12], octets[12:], context)
        except InvalidTag:
            raise Broken("POST … answered 400: cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plain).decode()}


@pytest.fixture
def transit() -> FakeTransit:
    """An engine with a key of one version."""
    return FakeTransit()


@pytest.fixture
def sealer(transit: FakeTransit) -> TransitSealer:
    """A sealer under that key."""
    return TransitSealer(transit, KEY)


async def test_secret_is_sealed_under_the_latest_version(
    transit: FakeTransit, sealer: TransitSealer
) -> None:
    """Which is named beside it, and opened by that name when there are others."""
    first = await sealer.seal(SECRET, "whose")
    transit.rotate()
    second = await sealer.seal(SECRET, "whose")
    assert first.by == "vault:team/transit/penstock.sealing#1"
    assert second.by == "vault:team/transit/penstock.sealing#2"
    assert await sealer.sealing_key() == second.by
    assert SECRET not in first.octets
    assert await sealer.unseal(first, "whose") == SECRET
    assert await sealer.unseal(second, "whose") == SECRET
    assert set(transit.mounts) == {"team/transit"}


async def test_context_goes_along_as_associated_data(
    transit: FakeTransit, sealer: TransitSealer
) -> None:
    """What was sealed for one row opens for no other."""
    sealed = await sealer.seal(SECRET, "whose")
    assert base64.b64decode(transit.posts[0][1]["associated_data"]) == b"whose"
    with pytest.raises(Broken, match="secret of somebody does not open"):
        await sealer.unseal(sealed, "somebody")
    assert await sealer.unseal(sealed, "whose") == SECRET


async def test_version_that_the_store_names_has_to_be_the_ciphertexts(
    transit: FakeTransit, sealer: TransitSealer
) -> None:
    """The store says under which version, and whether that can be retired."""
    transit.rotate()
    sealed = await sealer.seal(SECRET, "whose")
    for octets in (b"", b"vault:v2:", b"vault:v2:%%", sealed.octets.replace(b":v2:", b":v1:")):
        with pytest.raises(Broken, match="was not sealed under"):
            await sealer.unseal(Sealed(sealed.by, octets), "whose")
    assert len(transit.posts) == 1


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        pytest.param({"type": "ecdsa-p256"}, "is of type ecdsa-p256, expected aes", id="type"),
        pytest.param({"type": "aes128-gcm96"}, "is of type aes128-gcm96", id="short"),
        pytest.param({"derived": True}, "derived, expected", id="derived"),
        pytest.param({"exportable": True}, "can be exported", id="exportable"),
        pytest.param({"allow_plaintext_backup": True}, "backed up in the clear", id="backup"),
        pytest.param({"deletion_allowed": True}, "deletion_allowed=false", id="deletable"),
        pytest.param({"latest_version": "x"}, "is not what transit says", id="nonsense"),
    ],
)
async def test_key_that_must_not_be_so_seals_nothing(
    transit: FakeTransit, sealer: TransitSealer, facts: dict[str, Any], sentence: str
) -> None:
    """What was sealed under it before opens all the same, so that it can be sealed anew."""
    sealed = await sealer.seal(SECRET, "whose")
    transit.facts = facts
    with pytest.raises(Broken, match=sentence):
        await sealer.seal(SECRET, "whose")
    with pytest.raises(Broken, match=sentence):
        await sealer.sealing_key()
    assert await sealer.unseal(sealed, "whose") == SECRET


async def test_key_that_rotates_by_itself_is_good(
    transit: FakeTransit, sealer: TransitSealer
) -> None:
    """Nobody outside has to learn of a new version, unlike that of an account key."""
    transit.facts = {"auto_rotate_period": 86_400}
    assert await sealer.unseal(await sealer.seal(SECRET, "whose"), "whose") == SECRET


async def test_key_that_is_not_there_is_told_how_to_make(transit: FakeTransit) -> None:
    """By the command, word for word."""
    with pytest.raises(Broken, match="vault write -f team/transit/keys/other type=aes256-gcm96"):
        await TransitSealer(transit, "team/transit/other").seal(SECRET, "whose")


@pytest.mark.parametrize(
    "answer",
    [{}, {"ciphertext": 4711}, {"ciphertext": "vault:v1:"}, {"ciphertext": "vault:v2:AAAA"}],
    ids=["nothing", "number", "empty", "other-version"],
)
async def test_answer_that_is_nothing_sealed_is_not_kept(
    transit: FakeTransit, sealer: TransitSealer, answer: Mapping[str, Any]
) -> None:
    """It would be a secret lost."""
    transit.answer = answer
    with pytest.raises(Broken, match="sealed under"):
        await sealer.seal(SECRET, "whose")


@pytest.mark.parametrize("answer", [{}, {"plaintext": 1}, {"plaintext": "%"}])
async def test_answer_that_is_no_secret_is_refused(
    transit: FakeTransit, sealer: TransitSealer, answer: Mapping[str, Any]
) -> None:
    """And nothing of it is told."""
    sealed = await sealer.seal(SECRET, "whose")
    transit.answer = answer
    with pytest.raises(Broken, match="what Vault answered is no secret"):
        await sealer.unseal(sealed, "whose")


async def test_vault_that_is_away_is_waited_for(
    transit: FakeTransit, sealer: TransitSealer
) -> None:
    """For sealing and for opening."""
    sealed = await sealer.seal(SECRET, "whose")
    transit.is_away = True
    with pytest.raises(Unreachable):
        await sealer.seal(SECRET, "whose")
    with pytest.raises(Unreachable):
        await sealer.unseal(sealed, "whose")


# --------------------------------------------------------------------------- one beside the other


async def test_store_moves_from_the_file_to_vault_and_back(
    transit: FakeTransit, tmp_path: Path
) -> None:
    """Whichever seals now, what the other one sealed opens."""
    file = FileSealer(tmp_path / "keys", known_secret(b"correct horse battery"))
    in_vault = TransitSealer(transit, KEY)
    before = StoreSealer(file=file, transit=in_vault, is_in_vault=False)
    after = StoreSealer(file=file, transit=in_vault, is_in_vault=True)
    first, second = await before.seal(SECRET, "whose"), await after.seal(SECRET, "whose")
    assert (await before.sealing_key(), await after.sealing_key()) == (first.by, second.by)
    assert first.by.startswith("file:")
    assert second.by.startswith("vault:")
    for sealed in (first, second):
        for one in (before, after):
            assert await one.unseal(sealed, "whose") == SECRET


async def test_file_is_not_touched_where_vault_seals(transit: FakeTransit, tmp_path: Path) -> None:
    """A broker that keeps nothing in files needs no key there."""
    file = FileSealer(tmp_path / "keys", known_secret(b"correct horse battery"))
    sealer = StoreSealer(file=file, transit=TransitSealer(transit, KEY), is_in_vault=True)
    await sealer.unseal(await sealer.seal(SECRET, "whose"), "whose")
    assert not (tmp_path / "keys").exists()


async def test_what_was_sealed_where_nobody_is_asked_is_named(tmp_path: Path) -> None:
    """The configuration lost its section about Vault, or the row says nothing."""
    file = FileSealer(tmp_path / "keys", known_secret(b"correct horse battery"))
    sealer = StoreSealer(file=file, transit=None, is_in_vault=False)
    with pytest.raises(Broken, match="no Vault is configured"):
        await sealer.unseal(Sealed("vault:transit/penstock.sealing#1", b"vault:v1:AA=="), "whose")
    with pytest.raises(Broken, match="which says nothing"):
        await sealer.unseal(Sealed("elsewhere", b""), "whose")
