"""Checkpoints: made over the newest record, verified by the public key alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.checkpoints import (
    Checkpointing,
    parse_checkpoint,
    parse_public_keys,
    verify_checkpoint,
)
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.signatures import SignatureNotes
from broker.protocol.encoding import encode_base64url
from broker.protocol.jws import signing_input
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.clock import START, FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.fakes.signer import FakeSigner

KEY = "audit-checkpoints"


class OneKey:
    """``checkpoints.CheckpointKeys`` that knows one."""

    async def checkpoint_key_id(self) -> str:
        return KEY


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open, empty store."""
    opened = await open_fresh(tmp_path / "s.db")
    yield opened
    await opened.close()


async def taking(store: SqliteStore, kind: str = "ec-p256") -> tuple[Checkpointing, FakeSigner]:
    """Return what takes checkpoints, and its signer."""
    signer = FakeSigner()
    await signer.create_key(KEY, kind)
    made = Checkpointing(store, OneKey(), signer, broker="https://acme.example", clock=FakeClock())
    return made, signer


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
async def test_checkpoint_is_verified_by_the_public_key(store: SqliteStore, kind: str) -> None:
    """Whatever kind it is of; it states number and digest of the newest record."""
    checkpointing, _ = await taking(store, kind)
    await store.append(given.event(), durable=False)
    made = await checkpointing.take()
    assert made is not None
    _, pem = await checkpointing.public_key()
    stated = verify_checkpoint(parse_checkpoint(made.jws), parse_public_keys(pem.encode()))
    assert (stated.seq, stated.digest) == await store.last_audit_record()
    assert (stated.at, stated.broker, stated.key_id) == (START, "https://acme.example", KEY)


async def test_nothing_new_is_not_signed(store: SqliteStore) -> None:
    """A broker at rest asks for no signatures."""
    checkpointing, signer = await taking(store)
    assert await checkpointing.take() is None
    await store.append(given.event(), durable=False)
    assert await checkpointing.take() is not None
    assert await checkpointing.take() is None
    assert signer.signatures == 1


async def test_checkpoints_are_numbered(store: SqliteStore) -> None:
    """One more each."""
    checkpointing, _ = await taking(store)
    numbers = []
    for _ in range(3):
        await store.append(given.event(), durable=False)
        made = await checkpointing.take()
        assert made is not None
        numbers.append(made.number)
    assert numbers == [1, 2, 3]


async def test_checkpoint_of_what_is_not_there_stops_no_signing_in_silence(
    store: SqliteStore,
) -> None:
    """Whoever writes one ahead of the chain, or cuts the chain, is told of."""
    checkpointing, _ = await taking(store)
    await store.append(given.event(), durable=False)
    made = await checkpointing.take()
    assert made is not None
    await store.add_checkpoint(replace(made, number=2, seq=1_000_000))
    await store.append(given.event(), durable=False)
    with pytest.raises(Broken, match="checkpoint at record 1000000, and the chain ends before"):
        await checkpointing.take()


async def test_key_that_is_away_is_told(store: SqliteStore) -> None:
    """And nothing is kept; the next attempt covers it all."""
    checkpointing, signer = await taking(store)
    await store.append(given.event(), durable=False)
    signer.is_away = True
    with pytest.raises(Unreachable):
        await checkpointing.take()
    assert await store.last_checkpoint() is None


async def test_request_of_vault_stands_beside_the_checkpoint(store: SqliteStore) -> None:
    """And makes no record, which would want a checkpoint of its own."""
    checkpointing, signer = await taking(store)
    notes = SignatureNotes(FakeClock())
    sign = signer.sign

    async def noted(key_id: str, data: bytes) -> bytes:
        notes.note(key_id, "r-1")
        return await sign(key_id, data)

    signer.sign = noted  # type: ignore[method-assign]
    await store.append(given.event(), durable=False)
    made = await checkpointing.take()
    assert made is not None
    assert made.vault_request == "r-1"
    assert not notes.is_waiting


async def test_other_key_verifies_nothing(store: SqliteStore) -> None:
    """Nor does another signature under the right one."""
    checkpointing, _ = await taking(store)
    await store.append(given.event(), durable=False)
    made = await checkpointing.take()
    assert made is not None
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Broken, match="none of the public keys"):
        verify_checkpoint(parse_checkpoint(made.jws), parse_public_keys(pem))


async def test_several_keys_may_have_signed(store: SqliteStore) -> None:
    """Those before a rotation are given beside the present one."""
    checkpointing, _ = await taking(store)
    await store.append(given.event(), durable=False)
    made = await checkpointing.take()
    assert made is not None
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, own = await checkpointing.public_key()
    keys = parse_public_keys(pem + own.encode())
    assert verify_checkpoint(parse_checkpoint(made.jws), keys).seq == 1


def sealed(header: dict[str, object], payload: bytes) -> str:
    """Return a JWS in compact form with a signature of zeros."""
    return f"{signing_input(header, payload).decode()}.{encode_base64url(bytes(64))}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b", id="two parts"),
        pytest.param("a.b.c.d", id="four parts"),
        pytest.param("a.b.c" * 2000, id="too long"),
        pytest.param(sealed({"alg": "ES256", "kid": "k"}, b"{}"), id="another type"),
        pytest.param(
            sealed({"alg": "ES256", "kid": "k", "typ": "penstock-checkpoint+jwt"}, b'{"form":2}'),
            id="another form",
        ),
        pytest.param(
            sealed({"alg": "ES256", "kid": "k", "typ": "penstock-checkpoint+jwt"}, b'{"form":1}'),
            id="nothing in it",
        ),
    ],
)
def test_other_texts_are_no_checkpoints(text: str) -> None:
    """Each is refused, and none is half read."""
    with pytest.raises(Broken):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", id="no key"),
    ],
)
def test_file_without_keys_is_refused(pem: bytes) -> None:
    """Nothing is verified by no key."""
    with pytest.raises(Broken):
        parse_public_keys(pem)
