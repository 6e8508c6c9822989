"""What is special about keys in Vault: versions, who may make them, and what must not be so."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.key_ports import KeyFaultKind
from broker.keys.vault import VaultSigner
from broker.keys.vault_session import VaultConnections
from tests.contract.keys.conftest import NAMES, settings
from tests.contract.keys.test_signer import verify
from tests.deployments.vaulted import Transit
from tests.peers.process import PeerFailed
from tests.peers.vault import Vault

pytestmark = pytest.mark.peers

BACK_SECONDS = 60.0
"""Longest until a Vault that was unsealed is used again, in seconds."""


def key(transit: Transit, name: str, version: int = 1) -> str:
    """Return the id of a version."""
    return f"vault:{transit.mount}/{name}#{version}"


# ------------------------------------------------------------------------------- made by the broker


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
async def test_key_made_by_the_broker_cannot_leave(
    signer: VaultSigner, transit: Transit, kind: str
) -> None:
    """Neither exported nor backed up in the clear nor deleted, and it does not rotate by itself."""
    await signer.create_key(key(transit, "key"), kind)
    made = transit.key("key")
    assert made["exportable"] is False
    assert made["allow_plaintext_backup"] is False
    assert made["deletion_allowed"] is False
    assert made["auto_rotate_period"] == 0
    assert not await signer.inspect(key(transit, "key"))
    for path in (f"export/signing-key/{'key'}/1", "backup/key"):
        with pytest.raises(PeerFailed, match="export"):
            transit.vault.ask("GET", f"{transit.mount}/{path}")


async def test_what_may_leave_can_be_exported(transit: Transit) -> None:
    """The same requests as above, of a key that was made so."""
    transit.make("key", exportable=True, allow_plaintext_backup=True)
    exported = transit.vault.ask("GET", f"{transit.mount}/export/signing-key/key/1")
    assert "PRIVATE KEY" in exported["data"]["keys"]["1"]
    assert transit.vault.ask("GET", f"{transit.mount}/backup/key")["data"]["backup"]


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        pytest.param("GET", "export/signing-key/key/1", None, id="export"),
        pytest.param("GET", "backup/key", None, id="backup"),
        pytest.param("DELETE", "keys/key", None, id="delete"),
        pytest.param("POST", "keys/key/config", {"exportable": True}, id="make-exportable"),
        pytest.param("POST", "keys/key/config", {"deletion_allowed": True}, id="allow-deletion"),
        pytest.param("POST", "keys/key/trim", {"min_available_version": 1}, id="trim"),
        pytest.param("POST", "keys/other", {"type": "ecdsa-p256"}, id="another-key"),
    ],
)
async def test_neither_identity_may_take_a_key_away(
    signer: VaultSigner, transit: Transit, method: str, path: str, document: Mapping[str, Any]
) -> None:
    """Vault refuses both, whatever the broker would ask."""
    await signer.create_key(key(transit, "key"), "ec-p256")
    for token in (transit.serve_token, transit.rotate_token):
        with pytest.raises(PeerFailed, match="403"):
            transit.vault.ask(method, f"{transit.mount}/{path}", document, token=token)


# ----------------------------------------------------------------------------------------- versions


async def test_each_version_signs_for_itself(signer: VaultSigner, transit: Transit) -> None:
    """A rotation changes nothing for whoever pinned the version before."""
    first = await signer.create_key(key(transit, "key"), "ec-p256")
    second = await signer.create_key(key(transit, "key", 2), "ec-p256")
    assert first != second
    verify(first, b"data", await signer.sign(key(transit, "key"), b"data"))
    signature = await signer.sign(key(transit, "key", 2), b"data")
    verify(second, b"data", signature)
    with pytest.raises(InvalidSignature):
        verify(first, b"data", signature)


async def test_rotation_by_somebody_else_changes_nothing(
    signer: VaultSigner, transit: Transit
) -> None:
    """The latest version is nobody's business."""
    spki_der = await signer.create_key(key(transit, "key"), "ec-p256")
    transit.rotated("key")
    verify(spki_der, b"data", await signer.sign(key(transit, "key"), b"data"))


async def test_version_that_is_there_is_a_conflict(signer: VaultSigner, transit: Transit) -> None:
    """Whoever made it; the next one is not."""
    transit.make("key")
    transit.rotated("key")
    for version in (1, 2):
        with pytest.raises(Conflict):
            await signer.create_key(key(transit, "key", version), "ec-p256")
    await signer.create_key(key(transit, "key", 3), "ec-p256")
    assert transit.key("key")["latest_version"] == 3


async def test_missing_versions_before_are_made_too(signer: VaultSigner, transit: Transit) -> None:
    """Their numbers were spent before Vault was restored."""
    spki_der = await signer.create_key(key(transit, "key", 4), "ec-p256")
    assert transit.key("key")["latest_version"] == 4
    verify(spki_der, b"data", await signer.sign(key(transit, "key", 4), b"data"))


async def test_version_of_another_kind_is_not_made(signer: VaultSigner, transit: Transit) -> None:
    """All versions of a key are of one type; nothing is rotated in vain."""
    transit.make("key", "rsa-2048")
    with pytest.raises(Broken, match="is of type rsa-2048, and so is every version of it"):
        await signer.create_key(key(transit, "key", 2), "ec-p256")
    assert transit.key("key")["latest_version"] == 1


async def test_successor_of_an_exposed_key_is_not_made(
    signer: VaultSigner, transit: Transit
) -> None:
    """It would be as exposed."""
    transit.make("key", exportable=True)
    with pytest.raises(Broken, match=r"can be exported .* Vault never takes back"):
        await signer.create_key(key(transit, "key", 2), "ec-p256")


async def test_latest_version_is_told(signer: VaultSigner, transit: Transit) -> None:
    """Zero where there is no key."""
    assert await signer.latest_version(transit.mount, "key") == 0
    transit.make("key")
    transit.rotated("key")
    assert await signer.latest_version(transit.mount, "key") == 2


async def test_nobody_makes_keys_without_the_identity_for_it(
    transit: Transit, tmp_path: Path
) -> None:
    """The sentence names the command that the security team runs; a key of theirs is used."""
    alone = settings(transit, tmp_path, is_rotating=False)
    connections = VaultConnections(alone, SystemClock())
    try:
        signer = VaultSigner(connections)
        with pytest.raises(Broken, match=rf"vault write -f {transit.mount}/keys/key type=ecdsa"):
            await signer.create_key(key(transit, "key"), "ec-p256")
        transit.make("key")
        with pytest.raises(Broken, match=rf"vault write -f {transit.mount}/keys/key/rotate"):
            await signer.create_key(key(transit, "key", 2), "ec-p256")
        spki_der = await signer.public_key(key(transit, "key"))
        verify(spki_der, b"data", await signer.sign(key(transit, "key"), b"data"))
    finally:
        await connections.close()


# ----------------------------------------------------------------------------------------- retiring


async def test_retired_versions_sign_no_more(signer: VaultSigner, transit: Transit) -> None:
    """And the pinned one goes on; done twice it changes nothing."""
    for version in (1, 2):
        await signer.create_key(key(transit, "key", version), "ec-p256")
    spki_der = await signer.public_key(key(transit, "key", 2))
    await signer.sign(key(transit, "key"), b"data")
    await signer.retire_before(key(transit, "key", 2))
    made = transit.key("key")
    assert (made["min_encryption_version"], made["min_decryption_version"]) == (2, 2)
    with pytest.raises(Broken, match=r"is archived, min_decryption_version is 2: vault write"):
        await signer.sign(key(transit, "key"), b"data")
    verify(spki_der, b"data", await signer.sign(key(transit, "key", 2), b"data"))
    await signer.retire_before(key(transit, "key", 2))
    await signer.retire_before(key(transit, "key", 1))
    assert transit.key("key") == made
    assert await signer.has_key(key(transit, "key"))


async def test_half_done_retirement_is_finished(signer: VaultSigner, transit: Transit) -> None:
    """It is read off Vault what is missing."""
    for version in (1, 2):
        await signer.create_key(key(transit, "key", version), "ec-p256")
    transit.configure("key", min_encryption_version=2)
    await signer.retire_before(key(transit, "key", 2))
    assert transit.key("key")["min_decryption_version"] == 2


async def test_retiring_before_a_version_that_is_not_there_is_refused(
    signer: VaultSigner, transit: Transit
) -> None:
    """It would retire the one that is in use."""
    await signer.create_key(key(transit, "key"), "ec-p256")
    with pytest.raises(Broken, match="is not in Vault, whose latest version is 1"):
        await signer.retire_before(key(transit, "key", 2))
    assert transit.key("key")["min_encryption_version"] == 0


async def test_destroying_takes_nothing_with_it(signer: VaultSigner, transit: Transit) -> None:
    """A version that was made in vain stays where an earlier one signs, or none is after it."""
    for version in (1, 2, 3):
        await signer.create_key(key(transit, "key", version), "ec-p256")
    before = transit.key("key")
    await signer.destroy_key(key(transit, "key", 2))
    await signer.destroy_key(key(transit, "key", 3))
    assert transit.key("key") == before
    await signer.destroy_key(key(transit, "key", 1))
    assert transit.key("key")["min_encryption_version"] == 2
    assert sorted(transit.key("key")["keys"]) == ["2", "3"]


# ------------------------------------------------------------------------------ what must not be so

Spoil = Callable[[Transit], None]


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        pytest.param(
            lambda transit: transit.configure("key", auto_rotate_period="30d"),
            lambda transit: transit.configure("key", auto_rotate_period=0),
            r"rotates by itself \(auto_rotate_period 2592000 s\).* auto_rotate_period=0",
            id="auto-rotation",
        ),
        pytest.param(
            lambda transit: transit.configure("key", deletion_allowed=True),
            lambda transit: transit.configure("key", deletion_allowed=False),
            r"can be deleted .*: vault write .*/keys/key/config deletion_allowed=false",
            id="deletion",
        ),
        pytest.param(
            lambda transit: transit.configure("key", min_encryption_version=2),
            lambda transit: transit.configure("key", min_encryption_version=1),
            r"signs no more, min_encryption_version is 2: vault write",
            id="minimum",
        ),
        pytest.param(
            lambda transit: transit.configure("key", min_decryption_version=2),
            lambda transit: transit.configure("key", min_decryption_version=1),
            r"is archived, min_decryption_version is 2: vault write",
            id="archived",
        ),
    ],
)
@pytest.mark.parametrize("is_in_use", [True, False], ids=["in-use", "at-start"])
async def test_key_that_must_not_be_so_signs_nothing_until_it_is_mended(
    signer: VaultSigner, transit: Transit, spoil: Spoil, mend: Spoil, words: str, *, is_in_use: bool
) -> None:
    """Told with the command that mends it; found at once, or when it is looked at again."""
    transit.make("key")
    transit.rotated("key")
    pinned = key(transit, "key")
    spki_der = await signer.public_key(pinned)
    if is_in_use:
        verify(spki_der, b"data", await signer.sign(pinned, b"data"))
    spoil(transit)
    if is_in_use:
        assert [fault.kind for fault in await signer.inspect(pinned)] == [KeyFaultKind.BARRING]
    with pytest.raises(Broken, match=words):
        await signer.sign(pinned, b"data")
    mend(transit)
    verify(spki_der, b"data", await signer.sign(pinned, b"data"))
    assert not await signer.inspect(pinned)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"exportable": True}, "can be exported", id="exportable"),
        pytest.param({"allow_plaintext_backup": True}, "can be backed up", id="backup"),
    ],
)
async def test_exposed_key_is_told_of_and_signs_for_its_successor(
    signer: VaultSigner, transit: Transit, options: dict[str, bool], words: str
) -> None:
    """Vault never takes it back, so nobody could move away from it otherwise."""
    await signer.create_key(key(transit, "key"), "ec-p256")
    transit.configure("key", **options)
    (fault,) = await signer.inspect(key(transit, "key"))
    assert fault.kind is KeyFaultKind.EXPOSED
    assert words in fault.reason
    assert "move-key" in fault.reason
    spki_der = await signer.public_key(key(transit, "key"))
    verify(spki_der, b"data", await signer.sign(key(transit, "key"), b"data"))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p521", "aes256-gcm96"])
async def test_key_of_another_type_signs_nothing(
    signer: VaultSigner, transit: Transit, kind: str
) -> None:
    """No CA that we know takes it, or it signs nothing at all."""
    transit.make("key", kind)
    with pytest.raises(Broken, match=f"is of type {kind}"):
        await signer.sign(key(transit, "key"), b"data")


async def test_version_that_vault_does_not_have_signs_nothing(
    signer: VaultSigner, transit: Transit
) -> None:
    """Vault was restored to a time before it was made; it answers 500, and is not called away."""
    await signer.create_key(key(transit, "key"), "ec-p256")
    with pytest.raises(Broken, match="is not in Vault, whose latest version is 1: Vault was rest"):
        await signer.sign(key(transit, "key", 2), b"data")
    with pytest.raises(Broken, match="there is no key"):
        await signer.sign(key(transit, "nobody"), b"data")


async def test_key_that_was_made_anew_is_not_taken_for_the_old_one(
    signer: VaultSigner, transit: Transit
) -> None:
    """Same name, same version: what it signs does not verify under the key that was pinned."""
    pinned = key(transit, "key")
    await signer.create_key(pinned, "ec-p256")
    await signer.sign(pinned, b"data")
    transit.configure("key", deletion_allowed=True)
    transit.vault.ask("DELETE", f"{transit.mount}/keys/key")
    transit.make("key")
    with pytest.raises(Broken, match="does not verify under the key that was pinned"):
        await signer.sign(pinned, b"data")
    (fault,) = await signer.inspect(pinned)
    assert "is another one than when it was first used here" in fault.reason
    with pytest.raises(Broken, match="is another one than"):
        await signer.sign(pinned, b"data")
    signer.forget(pinned)
    verify(await signer.public_key(pinned), b"data", await signer.sign(pinned, b"data"))


async def test_what_trimming_took_is_not_there(signer: VaultSigner, transit: Transit) -> None:
    """And told as gone for good."""
    for version in (1, 2):
        await signer.create_key(key(transit, "key", version), "ec-p256")
    await signer.retire_before(key(transit, "key", 2))
    assert await signer.has_key(key(transit, "key", 1))
    path = f"{transit.mount}/keys/key/trim"
    transit.vault.ask("POST", path, {"min_available_version": 2})
    assert not await signer.has_key(key(transit, "key", 1))
    with pytest.raises(Broken, match="was trimmed away"):
        await signer.sign(key(transit, "key", 1), b"data")


# --------------------------------------------------------------------------------------- Vault away


Ask = Callable[[VaultSigner, str], Awaitable[object]]


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda signer, key_id: signer.sign(key_id, b"data"), id="sign"),
        pytest.param(lambda signer, key_id: signer.has_key(key_id), id="has-key"),
        pytest.param(lambda signer, key_id: signer.inspect(key_id), id="inspect"),
        pytest.param(lambda signer, key_id: signer.retire_before(key_id), id="retire"),
        pytest.param(lambda signer, key_id: signer.destroy_key(key_id), id="destroy"),
        pytest.param(lambda signer, key_id: signer.create_key(key_id, "ec-p256"), id="create"),
    ],
)
async def test_sealed_vault_is_unreachable_and_all_goes_on_after(
    signer: VaultSigner, connections: VaultConnections, transit: Transit, ask: Ask
) -> None:
    """Never a fault of the set-up."""
    connections.watch()
    pinned = key(transit, "key")
    spki_der = await signer.create_key(pinned, "ec-p256")
    await signer.sign(pinned, b"data")
    transit.vault.seal()
    try:
        with pytest.raises(Unreachable):
            await ask(signer, pinned)
        # What the CA has to see of the key is known all the same.
        assert await signer.public_key(pinned) == spki_der
    finally:
        await asyncio.to_thread(transit.vault.unseal)
    verify(spki_der, b"data", await _signed_again(signer, pinned))


async def _signed_again(signer: VaultSigner, key_id: str) -> bytes:
    """Return a signature as soon as Vault is seen to be back, which nobody announces."""
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                return await signer.sign(key_id, b"data")
            except Unreachable:
                await asyncio.sleep(0.1)


async def test_identity_without_the_right_is_unreachable(transit: Transit, tmp_path: Path) -> None:
    """A policy can be mended while orders wait; nothing of the token is told."""
    transit.make("other")
    connections = VaultConnections(settings(transit, tmp_path), SystemClock())
    try:
        with pytest.raises(Unreachable) as caught:
            await VaultSigner(connections).sign(key(transit, "other"), b"data")
    finally:
        await connections.close()
    assert transit.serve_token not in str(caught.value)


@pytest.mark.parametrize("role", ["serve", "rotate"])
async def test_communities_with_mounts_of_their_own_cannot_reach_each_other(
    vault: Vault, transit: Transit, tmp_path: Path, role: str
) -> None:
    """Not even at a key of the same name; at its own each may do what it is for."""
    (tmp_path / "clinic").mkdir()
    clinic = Transit(vault, tmp_path / "clinic", f"{transit.mount}-clinic", NAMES)
    for one in (transit, clinic):
        one.make("key")
    path, document = {
        "serve": ("sign/key/sha2-256", {"input": "eA==", "key_version": 1}),
        "rotate": ("keys/key/rotate", {}),
    }[role]
    for own, other in ((transit, clinic), (clinic, transit)):
        token = own.serve_token if role == "serve" else own.rotate_token
        vault.ask("POST", f"{own.mount}/{path}", document, token=token)
        with pytest.raises(PeerFailed, match="403"):
            vault.ask("POST", f"{other.mount}/{path}", document, token=token)


async def test_imported_key_is_warned_of_until_it_is_rotated(
    signer: VaultSigner, transit: Transit
) -> None:
    """It has lived elsewhere; the version after it has not."""
    wrapped = _wrapped_key(transit)
    transit.vault.ask(
        "POST",
        f"{transit.mount}/keys/key/import",
        {
            "ciphertext": base64.b64encode(wrapped).decode(),
            "type": "ecdsa-p256",
            "hash_function": "SHA256",
            "allow_rotation": True,
        },
    )
    (fault,) = await signer.inspect(key(transit, "key"))
    assert fault.kind is KeyFaultKind.ORIGIN
    spki_der = await signer.public_key(key(transit, "key"))
    verify(spki_der, b"data", await signer.sign(key(transit, "key"), b"data"))
    await signer.create_key(key(transit, "key", 2), "ec-p256")
    assert not await signer.inspect(key(transit, "key", 2))


def _wrapped_key(transit: Transit) -> bytes:
    """Return a fresh key wrapped as transit wants it: AES-KWP under a key under RSA-OAEP."""
    pkcs8 = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    pem = transit.vault.ask("GET", f"{transit.mount}/wrapping_key")["data"]["public_key"]
    wrapping = load_pem_public_key(pem.encode())
    assert isinstance(wrapping, rsa.RSAPublicKey)
    aes = secrets.token_bytes(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return wrapping.encrypt(aes, oaep) + aes_key_wrap_with_padding(aes, pkcs8)
