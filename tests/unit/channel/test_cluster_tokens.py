"""A cluster's keys: how long they are used, and when they are read anew."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.channel.cluster_tokens import (
    ASK_AGAIN_TIME,
    FRESH_TIME,
    STALE_TIME,
    KeyFile,
    KeySetTokens,
)
from broker.issuance.errors import Unreachable
from broker.protocol.service_account_token import TokenRejected, TokenTerms, parse_token
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_issuer import AUDIENCE, ISSUER, ClusterIssuer
from tests.unit.protocol.builders import private_key

OLD = ClusterIssuer(private_key("ES256", "old"), "old")
NEW = ClusterIssuer(private_key("ES256", "new"), "new")


class Source:
    """A key set that a test changes."""

    def __init__(self, issuer: ClusterIssuer) -> None:
        self.data: bytes | None = issuer.key_set()
        self.reads = 0

    async def read(self) -> bytes:
        """Return it, or fail as an issuer that is away."""
        self.reads += 1
        if self.data is None:
            raise Unreachable("the issuer is away")
        return self.data


class Scene:
    """Tokens of one cluster by a clock that stands still."""

    def __init__(self) -> None:
        self.source = Source(OLD)
        self.clock = FakeClock()
        self.tokens = KeySetTokens(self.source, TokenTerms(ISSUER, AUDIENCE), self.clock)

    async def verify(self, issuer: ClusterIssuer) -> str:
        """Return the account of a token that *issuer* made just now."""
        token = parse_token(issuer.token(self.clock.now()))
        return str(await self.tokens.verify(token))


@pytest.fixture
def scene() -> Scene:
    """A cluster that signs by its old key."""
    return Scene()


async def test_keys_are_read_once(scene: Scene) -> None:
    """A thousand pods that start at once cost the issuer one request."""
    for _ in range(3):
        assert await scene.verify(OLD) == "mail/postfix"
    assert scene.source.reads == 1


async def test_key_that_is_not_known_is_looked_for(scene: Scene) -> None:
    """A cluster changes its key without telling; what it withdrew is no key any more."""
    await scene.verify(OLD)
    scene.source.data = NEW.key_set()
    scene.clock.advance(ASK_AGAIN_TIME)
    assert await scene.verify(NEW) == "mail/postfix"
    with pytest.raises(TokenRejected):
        await scene.verify(OLD)
    assert scene.source.reads == 2


async def test_made_up_key_ids_are_no_flood(scene: Scene) -> None:
    """Whoever sends them makes us ask once in a while, and honest pods are served meanwhile."""
    await scene.verify(OLD)
    for _ in range(5):
        with pytest.raises(TokenRejected):
            await scene.verify(NEW)
    assert scene.source.reads == 1
    assert await scene.verify(OLD) == "mail/postfix"


async def test_withdrawn_key_is_good_for_minutes(scene: Scene) -> None:
    """Keys are read again although none is missing."""
    await scene.verify(OLD)
    scene.source.data = NEW.key_set()
    assert await scene.verify(OLD) == "mail/postfix"
    scene.clock.advance(FRESH_TIME)
    with pytest.raises(TokenRejected):
        await scene.verify(OLD)


@pytest.mark.parametrize("broken", [None, b"<html>"], ids=["away", "no key set"])
async def test_issuer_that_is_away_stops_nobody_for_a_day(
    scene: Scene, broken: bytes | None
) -> None:
    """Past a day a key may have been withdrawn for a reason."""
    await scene.verify(OLD)
    scene.source.data = broken
    scene.clock.advance(STALE_TIME)
    assert await scene.verify(OLD) == "mail/postfix"
    scene.clock.advance(timedelta(seconds=1))
    with pytest.raises(Unreachable):
        await scene.verify(OLD)
    scene.clock.advance(ASK_AGAIN_TIME)
    scene.source.data = OLD.key_set()
    assert await scene.verify(OLD) == "mail/postfix"


async def test_keys_that_were_never_had_vouch_for_nobody(scene: Scene) -> None:
    """Unsure means no: try later."""
    scene.source.data = None
    with pytest.raises(Unreachable):
        await scene.verify(OLD)


async def test_key_file_is_read_anew(tmp_path: Path) -> None:
    """Whoever replaces the file need not restart the broker."""
    path = tmp_path / "cluster.jwks"
    with pytest.raises(Unreachable):
        await KeyFile(path).read()
    path.write_bytes(OLD.key_set())
    assert await KeyFile(path).read() == OLD.key_set()
