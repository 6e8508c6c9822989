"""What every keeper of keys has to do, whoever it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.issuance.errors import Broken, Conflict
from broker.issuance.ports import Signer
from broker.keys.keyfile import KeyFileSigner
from tests.fakes.signer import FakeSigner

KINDS = {"ec-p256": 64, "ec-p384": 96, "rsa-2048": 256}
"""Kind → octets of its signature (RFC 7518 §3.3, §3.4)."""


def _key_files(tmp: Path) -> Signer:
    return KeyFileSigner(tmp / "keys", b"correct horse battery")


def _fake(tmp: Path) -> Signer:
    return FakeSigner()


@pytest.fixture(params=[pytest.param(_key_files, id="key-files"), pytest.param(_fake, id="fake")])
async def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    """Each implementation, with one key that makes its place exist."""
    make: Callable[[Path], Signer] = request.param
    made = make(tmp_path)
    await made.create_key("first", "ec-p256")
    return made


def verify(spki_der: bytes, data: bytes, signature: bytes) -> None:
    """Verify as a CA would; raises InvalidSignature."""
    key = load_der_public_key(spki_der)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        return
    assert isinstance(key, ec.EllipticCurvePublicKey)
    half = len(signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    digest = hashes.SHA256() if key.key_size == 256 else hashes.SHA384()
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_signature_is_in_the_octets_of_jws(signer: Signer, kind: str) -> None:
    """Fixed length, r‖s for EC, and good for this data alone."""
    spki_der = await signer.create_key("key", kind)
    signature = await signer.sign("key", b"data")
    assert len(signature) == KINDS[kind]
    verify(spki_der, b"data", signature)
    with pytest.raises(InvalidSignature):
        verify(spki_der, b"date", signature)


async def test_short_halves_keep_their_zeros(signer: Signer) -> None:
    """One signature in 128 has a half that begins with a zero octet, which must stay."""
    spki_der = await signer.public_key("first")
    for number in range(600):
        data = str(number).encode()
        signature = await signer.sign("first", data)
        assert len(signature) == 64
        verify(spki_der, data, signature)


async def test_the_public_half_is_what_was_created(signer: Signer) -> None:
    """Asking later tells the same key."""
    assert await signer.create_key("key", "ec-p384") == await signer.public_key("key")


async def test_two_keys_are_two(signer: Signer) -> None:
    """Each name has a key of its own."""
    assert await signer.create_key("a", "ec-p256") != await signer.create_key("b", "ec-p256")


async def test_a_taken_name_is_a_conflict(signer: Signer) -> None:
    """The key of that name is left alone."""
    before = await signer.public_key("first")
    with pytest.raises(Conflict):
        await signer.create_key("first", "ec-p256")
    assert await signer.public_key("first") == before


async def test_an_unknown_key_is_a_fault_of_the_set_up(signer: Signer) -> None:
    """There is nothing that a client or a CA could do about it."""
    with pytest.raises(Broken):
        await signer.public_key("nobody")
