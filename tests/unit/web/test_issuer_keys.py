"""Keys of an OpenID provider: where it says they are, within bounds, and for a while alone."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.issuance.errors import Broken, Unreachable
from broker.web.issuer_keys import (
    ASK_AGAIN_TIME,
    DISCOVERY_PATH,
    FRESH_TIME,
    MAX_DOCUMENT_BYTES,
    MAX_KEYS,
    STALE_TIME,
    FileDocuments,
    HttpDocuments,
    IssuerKeys,
)
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_issuer import encoded
from tests.fakes.token_issuer import ISSUER, FakeDocuments, TokenIssuer

WHERE = ISSUER + DISCOVERY_PATH
KEYS = f"{ISSUER}/keys"


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    """A provider with one key."""
    return TokenIssuer(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def documents(issuer: TokenIssuer) -> FakeDocuments:
    """What it serves."""
    return FakeDocuments({WHERE: issuer.discovery(), KEYS: issuer.key_set()})


@pytest.fixture
def clock() -> FakeClock:
    """The time."""
    return FakeClock()


@pytest.fixture
def keys(documents: FakeDocuments, clock: FakeClock) -> IssuerKeys:
    """The keys, read from it."""
    return IssuerKeys(ISSUER, documents, clock)


async def test_keys_are_where_the_provider_says(keys: IssuerKeys, documents: FakeDocuments) -> None:
    """Its description names the place."""
    found = await keys.find("key-1")
    assert found is not None
    assert found.alg == "ES256"
    assert documents.asked == [WHERE, KEYS]


async def test_place_can_be_configured(documents: FakeDocuments, clock: FakeClock) -> None:
    """Then its description is not read."""
    assert await IssuerKeys(ISSUER, documents, clock, keys_url=KEYS).find("key-1") is not None
    assert documents.asked == [KEYS]


async def test_flood_of_unknown_key_ids_asks_once_a_minute(
    keys: IssuerKeys, documents: FakeDocuments, clock: FakeClock
) -> None:
    """Made-up ids cost the provider nothing more; a minute later they may be looked for again."""
    assert await keys.find("key-1") is not None
    clock.advance(ASK_AGAIN_TIME)
    for number in range(500):
        assert await keys.find(f"made-up-{number}") is None
    assert documents.asked == [WHERE, KEYS] * 2
    clock.advance(ASK_AGAIN_TIME)
    assert await keys.find("made-up") is None
    assert documents.asked == [WHERE, KEYS] * 3


async def test_key_that_was_added_is_found_within_a_minute(
    keys: IssuerKeys, documents: FakeDocuments, clock: FakeClock
) -> None:
    """A provider that changes its key locks nobody out."""
    assert await keys.find("key-2") is None
    newer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()), "key-2")
    documents.documents[KEYS] = newer.key_set()
    clock.advance(ASK_AGAIN_TIME)
    assert await keys.find("key-2") is not None
    assert await keys.find("key-1") is None


async def test_many_at_once_are_one_reading(keys: IssuerKeys, documents: FakeDocuments) -> None:
    """After a restart all come at the same time."""
    found = await asyncio.gather(*(keys.find("key-1") for _ in range(50)))
    assert all(found)
    assert documents.asked == [WHERE, KEYS]


async def test_keys_are_read_again_when_they_are_old(
    keys: IssuerKeys, documents: FakeDocuments, clock: FakeClock
) -> None:
    """One that was withdrawn is good no longer than that."""
    assert await keys.find("key-1") is not None
    other = TokenIssuer(ec.generate_private_key(ec.SECP256R1()), "key-9")
    documents.documents[KEYS] = other.key_set()
    clock.advance(FRESH_TIME)
    assert await keys.find("key-1") is None


async def test_provider_that_is_away_is_bridged_for_a_while_and_then_means_no(
    keys: IssuerKeys, documents: FakeDocuments, clock: FakeClock
) -> None:
    """What was read holds for an hour; it is never believed for good."""
    assert await keys.find("key-1") is not None
    documents.is_away = True
    clock.advance(STALE_TIME - timedelta(seconds=1))
    assert await keys.find("key-1") is not None
    clock.advance(timedelta(seconds=2))
    with pytest.raises(Unreachable, match="cannot be had"):
        await keys.find("key-1")


async def test_provider_that_was_never_reached_means_no(
    keys: IssuerKeys, documents: FakeDocuments
) -> None:
    """Nobody comes in by what could not be verified."""
    documents.is_away = True
    with pytest.raises(Unreachable):
        await keys.find("key-1")


def changed(issuer: TokenIssuer, **more: Any) -> bytes:
    """Return the key set with a changed key."""
    return issuer.key_set(**more)


@pytest.mark.parametrize(
    ("where", "document"),
    [
        (WHERE, b"{"),
        (WHERE, b"[]"),
        (WHERE, json.dumps({"issuer": "https://evil.example", "jwks_uri": KEYS}).encode()),
        (WHERE, json.dumps({"issuer": ISSUER}).encode()),
        (WHERE, json.dumps({"issuer": ISSUER, "jwks_uri": "http://login.example/k"}).encode()),
        (WHERE, json.dumps({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}).encode()),
        (KEYS, b"not json"),
        (KEYS, b'{"keys": 5}'),
        (KEYS, b'{"keys": []}'),
        (KEYS, json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode()),
        (KEYS, json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "key-1"}]}).encode()),
    ],
    ids=["no-json", "no-object", "other-issuer", "no-uri", "plain-http", "file", "keys-no-json",
         "keys-no-list", "no-keys", "too-many", "secret"],
)  # fmt: skip
async def test_broken_provider_means_no(
    keys: IssuerKeys, documents: FakeDocuments, where: str, document: bytes
) -> None:
    """Nothing of it is believed, and nothing breaks."""
    documents.documents[where] = document
    with pytest.raises(Unreachable):
        await keys.find("key-1")


@pytest.mark.parametrize(
    "changes",
    [{"use": "enc"}, {"kid": ""}, {"kid": 5}, {"d": "AAAA"}, {"crv": "P-999"}],
    ids=["encryption", "no-id", "number", "private", "curve"],
)
async def test_key_that_cannot_be_used_is_left_out(
    keys: IssuerKeys, documents: FakeDocuments, issuer: TokenIssuer, changes: dict[str, Any]
) -> None:
    """And those beside it are used."""
    good = json.loads(TokenIssuer(issuer.key, "good").key_set())["keys"]
    odd = json.loads(issuer.key_set(**changes))["keys"]
    documents.documents[KEYS] = json.dumps({"keys": odd + good}).encode()
    assert await keys.find("good") is not None
    assert await keys.find("key-1") is None


async def test_short_rsa_key_is_left_out(
    keys: IssuerKeys, documents: FakeDocuments, issuer: TokenIssuer
) -> None:
    """1,024 bits are no signature that is believed."""
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    short = {"kty": "RSA", "kid": "short", "n": encoded(numbers.n.to_bytes(128)), "e": "AQAB"}
    entries = [short, *json.loads(issuer.key_set())["keys"]]
    documents.documents[KEYS] = json.dumps({"keys": entries}).encode()
    assert await keys.find("short") is None
    assert await keys.find("key-1") is not None


async def test_one_id_for_two_keys_means_no(
    keys: IssuerKeys, documents: FakeDocuments, issuer: TokenIssuer
) -> None:
    """Which of them signed would be a guess."""
    other = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
    entries = [json.loads(one.key_set())["keys"][0] for one in (issuer, other)]
    documents.documents[KEYS] = json.dumps({"keys": entries}).encode()
    with pytest.raises(Unreachable):
        await keys.find("key-1")


async def test_keys_may_lie_in_a_file(
    issuer: TokenIssuer, tmp_path: Path, clock: FakeClock
) -> None:
    """As of a cluster whose API server is elsewhere; a file that is none is an issuer away."""
    path = tmp_path / "prod.jwks"
    keys = IssuerKeys(ISSUER, FileDocuments(path), clock, keys_url=str(path))
    with pytest.raises(Unreachable):
        await keys.find("key-1")
    path.write_bytes(issuer.key_set())
    clock.advance(ASK_AGAIN_TIME)
    assert await keys.find("key-1") is not None
    path.write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(Unreachable, match="is larger than"):
        await FileDocuments(path).read("")


async def test_token_of_ours_that_cannot_be_read_is_told() -> None:
    """Nothing is asked without it."""

    def missing() -> bytes:
        raise Broken("secret env:X is not set in the environment")

    with pytest.raises(Unreachable, match="our own token"):
        await HttpDocuments(None, "penstock/test", read_token=missing).read("https://127.0.0.1:1/")
