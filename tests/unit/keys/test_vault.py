"""What is asked of Vault for a signature, by whom, and what is made of its answers.

What Vault itself does and refuses is shown by tests/contract/keys/test_transit.py.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import hvac
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from broker.issuance.errors import Broken, Unreachable
from broker.keys.vault import MAX_GAP, MAX_INPUT_BYTES, VaultSigner
from broker.keys.vault_answers import VaultNotFound
from tests.unit.keys.test_transit_key import b64, pem, told

T = TypeVar("T")

ID = "vault:transit/key#1"
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha2-256": hashes.SHA256(),
    "sha2-384": hashes.SHA384(),
}
KEYS: dict[str, Any] = {
    "ecdsa-p256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": rsa.generate_private_key(65537, 2048),
}


class FakeVault:
    """One transit key, and everything that is asked about it."""

    def __init__(self, kind: str = "ecdsa-p256", **changes: Any) -> None:
        self.kind = kind
        self.changes = changes
        self.asked: list[tuple[str, str, Mapping[str, Any] | None]] = []
        self.rotations = 0
        self.failure: Exception | None = None
        self.answer: dict[str, Any] | None = None

    def serving(self, mount: str) -> FakeVault:
        """See `Connections`."""
        return self

    @asynccontextmanager
    async def rotating(self, mount: str) -> AsyncIterator[FakeVault]:
        """See `Connections`."""
        self.rotations += 1
        yield self

    async def get(self, path: str) -> Mapping[str, Any]:
        """Tell of the key."""
        self.asked.append(("GET", path, None))
        await asyncio.sleep(0)
        if self.kind == "":
            raise VaultNotFound("GET answered 404")
        keys = {"1": {"public_key": pem(KEYS[self.kind])}}
        return told(type=self.kind, latest_version=1, keys=keys, **self.changes)

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sign as transit does."""
        self.asked.append(("POST", path, document))
        if self.failure is not None:
            raise self.failure
        if self.answer is not None:
            return self.answer
        data = base64.b64decode(document["input"])
        hash_ = HASHES[path.rpartition("/")[2]]
        used: Any = Prehashed(hash_) if document.get("prehashed") else hash_
        key = KEYS[self.kind]
        if isinstance(key, rsa.RSAPrivateKey):
            assert document["signature_algorithm"] == "pkcs1v15"
            octets = key.sign(data, padding.PKCS1v15(), used)
        else:
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(used)))
            octets = r.to_bytes(key.key_size // 8) + s.to_bytes(key.key_size // 8)
        return {"signature": f"vault:v1:{b64(octets)}"}

    async def run(self, call: Callable[[hvac.Client], T]) -> T:
        """See `Session`."""
        raise NotImplementedError

    def signatures(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return path and body of each request for a signature."""
        return [(path, body) for verb, path, body in self.asked if verb == "POST" and body]


@pytest.mark.parametrize(
    ("kind", "path", "more"),
    [
        pytest.param("ecdsa-p256", "transit/sign/key/sha2-256", {}, id="p256"),
        pytest.param("ecdsa-p384", "transit/sign/key/sha2-384", {}, id="p384"),
        pytest.param(
            "rsa-2048",
            "transit/sign/key/sha2-256",
            {"signature_algorithm": "pkcs1v15"},
            id="rsa",
        ),
    ],
)
async def test_request_names_version_hash_and_form(
    kind: str, path: str, more: dict[str, str]
) -> None:
    """Vault's defaults are the latest version, SHA-256, ASN.1 and PSS."""
    vault = FakeVault(kind)
    await VaultSigner(vault).sign(ID, b"data")
    document = {"input": "ZGF0YQ==", "key_version": 1, "marshaling_algorithm": "jws", **more}
    assert vault.signatures() == [(path, document)]
    assert vault.rotations == 0


@pytest.mark.parametrize("kind", sorted(KEYS))
@pytest.mark.parametrize("length", [MAX_INPUT_BYTES, MAX_INPUT_BYTES + 1])
async def test_digest_is_sent_of_what_is_long(kind: str, length: int) -> None:
    """And the signature is over the whole all the same."""
    vault = FakeVault(kind)
    await VaultSigner(vault).sign(ID, bytes(length))
    ((_, document),) = vault.signatures()
    assert document.get("prehashed", False) is (length > MAX_INPUT_BYTES)


async def test_key_is_looked_at_once_for_all_who_sign_at_once() -> None:
    """And not again while nothing is wrong."""
    vault = FakeVault()
    signer = VaultSigner(vault)
    await asyncio.gather(*(signer.sign(ID, str(number).encode()) for number in range(32)))
    await signer.sign(ID, b"later")
    assert [verb for verb, _, _ in vault.asked].count("GET") == 1


async def test_key_is_looked_at_again_after_a_failure() -> None:
    """It may have been the key; the reason is told at the next attempt."""
    vault = FakeVault()
    signer = VaultSigner(vault)
    await signer.sign(ID, b"data")
    vault.failure = Unreachable("Vault: answered 500")
    with pytest.raises(Unreachable):
        await signer.sign(ID, b"data")
    vault.failure = None
    vault.changes = {"auto_rotate_period": 60}
    with pytest.raises(Broken, match="rotates by itself"):
        await signer.sign(ID, b"data")
    assert len(vault.signatures()) == 2


async def test_refused_request_is_explained_by_the_key() -> None:
    """Where the key has nothing to say, the request's own reason stays."""
    vault = FakeVault()
    signer = VaultSigner(vault)
    await signer.sign(ID, b"data")
    vault.failure = Broken("POST answered 400: odd")
    with pytest.raises(Broken, match="does not sign: POST answered 400: odd"):
        await signer.sign(ID, b"data")
    vault.kind = ""
    with pytest.raises(Broken, match="there is no key transit/key in Vault"):
        await signer.sign(ID, b"data")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param({}, "is no signature", id="nothing"),
        pytest.param({"signature": f"vault:v2:{b64(bytes(64))}"}, "with version 2", id="version"),
        pytest.param({"signature": f"vault:v1:{b64(bytes(64))}"}, "does not verify", id="wrong"),
    ],
)
async def test_wrong_answer_is_never_passed_on(answer: dict[str, Any], words: str) -> None:
    """A CA would take it for a refusal of ours to be had."""
    vault = FakeVault()
    vault.answer = answer
    with pytest.raises(Broken, match=words):
        await VaultSigner(vault).sign(ID, b"data")


async def test_version_far_past_the_latest_is_not_made() -> None:
    """Somebody's record is wrong rather than Vault."""
    vault = FakeVault()
    with pytest.raises(Broken, match="versions past the latest"):
        await VaultSigner(vault).create_key(f"vault:transit/key#{MAX_GAP + 2}", "ec-p256")
    assert vault.rotations == 0


async def test_unknown_kind_is_not_asked_for() -> None:
    """P-521 is no kind of ours."""
    vault = FakeVault("")
    with pytest.raises(Broken, match="key kind 'ec-p521' is unknown, expected one of ec-p256"):
        await VaultSigner(vault).create_key(ID, "ec-p521")
    assert vault.asked == []


async def test_public_key_now_is_what_vault_has_now() -> None:
    """Whatever was pinned before; `forget` has the pin follow."""
    vault = FakeVault()
    signer = VaultSigner(vault)
    pinned = await signer.public_key(ID)
    kept = KEYS["ecdsa-p256"]
    KEYS["ecdsa-p256"] = ec.generate_private_key(ec.SECP256R1())
    try:
        assert await signer.public_key(ID) == pinned
        now = await signer.public_key_now(ID)
        assert now != pinned
        signer.forget(ID)
        assert await signer.public_key(ID) == now
    finally:
        KEYS["ecdsa-p256"] = kept


class Emptied(FakeVault):
    """Loses its key, and makes another one when it is told to."""

    async def run(self, call: Callable[[hvac.Client], T]) -> T:
        self.kind = "ecdsa-p384"
        return None  # type: ignore[return-value]


async def test_version_that_was_made_anew_is_the_one_that_signs() -> None:
    """A change that was undone had shown another one of that number, before Vault was emptied."""
    vault = Emptied("ecdsa-p256")
    signer = VaultSigner(vault)
    await signer.public_key(ID)
    vault.kind = ""
    made = await signer.create_key(ID, "ec-p384")
    assert await signer.public_key(ID) == made
    await signer.sign(ID, b"data")
