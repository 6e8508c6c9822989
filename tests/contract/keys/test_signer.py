"""What every keeper of keys has to do, whoever it is."""

import asyncio

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.issuance.errors import Broken, Conflict
from tests.contract.keys.conftest import Keeper

KINDS = {"ec-p256": 64, "ec-p384": 96, "rsa-2048": 256, "rsa-3072": 384}
"""Kind → octets of its signature (RFC 7518 §3.3, §3.4)."""


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
async def test_a_signature_is_in_the_octets_of_jws(keeper: Keeper, kind: str) -> None:
    """Fixed length, r‖s for EC, and good for this data alone."""
    key_id = keeper.id_of("key")
    spki_der = await keeper.keys.create_key(key_id, kind)
    signature = await keeper.keys.sign(key_id, b"data")
    assert len(signature) == KINDS[kind]
    verify(spki_der, b"data", signature)
    with pytest.raises(InvalidSignature):
        verify(spki_der, b"date", signature)


async def test_short_halves_keep_their_zeros(keeper: Keeper) -> None:
    """One signature in 128 has a half that begins with a zero octet, which must stay."""
    key_id = keeper.id_of("first")
    spki_der = await keeper.keys.public_key(key_id)
    for number in range(600):
        data = str(number).encode()
        signature = await keeper.keys.sign(key_id, data)
        assert len(signature) == 64
        verify(spki_der, data, signature)


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
async def test_long_input_is_signed_like_a_short_one(keeper: Keeper, kind: str) -> None:
    """A revocation list of a CA has megabytes."""
    key_id = keeper.id_of("key")
    spki_der = await keeper.keys.create_key(key_id, kind)
    data = bytes(range(256)) * 8192
    verify(spki_der, data, await keeper.keys.sign(key_id, data))


async def test_many_sign_at_once(keeper: Keeper) -> None:
    """Each gets the signature over its own data."""
    key_id = keeper.id_of("first")
    spki_der = await keeper.keys.public_key(key_id)
    inputs = [str(number).encode() for number in range(32)]
    made = await asyncio.gather(*(keeper.keys.sign(key_id, data) for data in inputs))
    for data, signature in zip(inputs, made, strict=True):
        verify(spki_der, data, signature)


async def test_the_public_half_is_what_was_created(keeper: Keeper) -> None:
    """Asking later tells the same key."""
    key_id = keeper.id_of("key")
    assert await keeper.keys.create_key(key_id, "ec-p384") == await keeper.keys.public_key(key_id)


async def test_two_keys_are_two(keeper: Keeper) -> None:
    """Each name has a key of its own."""
    a = await keeper.keys.create_key(keeper.id_of("a"), "ec-p256")
    assert a != await keeper.keys.create_key(keeper.id_of("b"), "ec-p256")


async def test_a_taken_name_is_a_conflict(keeper: Keeper) -> None:
    """The key of that name is left alone."""
    key_id = keeper.id_of("first")
    before = await keeper.keys.public_key(key_id)
    with pytest.raises(Conflict):
        await keeper.keys.create_key(key_id, "ec-p256")
    assert await keeper.keys.public_key(key_id) == before


async def test_an_unknown_key_is_a_fault_of_the_set_up(keeper: Keeper) -> None:
    """There is nothing that a client or a CA could do about it."""
    with pytest.raises(Broken):
        await keeper.keys.public_key(keeper.id_of("nobody"))


async def test_a_key_is_there_once_it_was_made(keeper: Keeper) -> None:
    """And not before."""
    assert await keeper.keys.has_key(keeper.id_of("first"))
    assert not await keeper.keys.has_key(keeper.id_of("nobody"))


async def test_nothing_is_wrong_with_a_key_that_was_made_here(keeper: Keeper) -> None:
    """It cannot leave where it is, and stays as it is."""
    assert not await keeper.keys.inspect(keeper.id_of("first"))


async def test_retiring_what_came_before_the_first_key_changes_nothing(keeper: Keeper) -> None:
    """Done as often as anybody likes."""
    key_id = keeper.id_of("first")
    await keeper.keys.retire_before(key_id)
    await keeper.keys.retire_before(key_id)
    verify(await keeper.keys.public_key(key_id), b"x", await keeper.keys.sign(key_id, b"x"))


async def test_destroying_what_is_not_there_does_nothing(keeper: Keeper) -> None:
    """A crash may have come before the key."""
    await keeper.keys.destroy_key(keeper.id_of("nobody"))
