"""What is made of secrets is made anew when they change, and not before they can be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from broker.app.remade import STAND_IN, Remade, RemadeZone, zone_of_secrets
from broker.app.secrets import FRESH_TIME, Secrets
from broker.config import SecretRef
from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.placement import PlacedRecord
from tests.fakes.clock import FakeClock
from tests.fakes.fake_kv import FakeKv
from tests.unit.config.conftest import parsed

IN_VAULT = SecretRef("vault", "kv/penstock/test#key")
ELSEWHERE = SecretRef("env", "REMADE_TEST")
PLACED = PlacedRecord("example.com.", "_acme-challenge.example.com.", "value")


@dataclass
class FakeZone:
    """A zone that remembers what it was made of, and can refuse."""

    values: Mapping[str, bytes]
    calls: list[tuple[str, bytes]]
    good: list[bytes] = field(default_factory=list)

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """See the port."""
        return self._called("publish")

    async def remove(self, placed: PlacedRecord) -> None:
        """See the port."""
        self._called("remove")

    def _called(self, what: str) -> PlacedRecord:
        secret = self.values["key"]
        self.calls.append((what, secret))
        if self.good and secret not in self.good:
            raise Broken("the server does not know that key")
        return PLACED


class Place:
    """Secrets over a Vault, and whatever is made of them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kv = FakeKv(key="first")
        self.secrets = Secrets(parsed(), self.kv, self.clock)
        self.made: list[Mapping[str, bytes]] = []
        self.calls: list[tuple[str, bytes]] = []
        self.good: list[bytes] = []

    def make(self, values: Mapping[str, bytes]) -> FakeZone:
        """Make a zone, and note of what."""
        self.made.append(values)
        if values.get("other") == b"unusable":
            raise Broken("that is no key name")
        return FakeZone(values, self.calls, self.good)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """A secret in Vault, and one in the environment."""
    monkeypatch.setenv("REMADE_TEST", "known")
    return Place()


async def test_what_needs_no_vault_is_made_once(place: Place) -> None:
    """And is used as it is, with nothing before it."""
    zone = zone_of_secrets(place.secrets, {"key": ELSEWHERE}, place.make)
    assert isinstance(zone, FakeZone)
    await zone.publish("a", "b")
    assert place.made == [{"key": b"known"}]
    assert place.kv.reads == []


async def test_it_is_made_anew_only_when_a_secret_has_changed(place: Place) -> None:
    """What holds locks or connections is not thrown away for nothing."""
    remade = Remade(place.secrets, {"key": IN_VAULT, "other": ELSEWHERE}, place.make)
    first = await remade.current()
    assert await remade.current() is first
    place.clock.advance(FRESH_TIME)
    assert await remade.current() is first
    place.kv.put("kv", "penstock/test", key="second")
    place.clock.advance(FRESH_TIME)
    assert (await remade.current()).values == {"key": b"second", "other": b"known"}
    assert place.made == [
        {"key": STAND_IN, "other": b"known"},
        {"key": b"first", "other": b"known"},
        {"key": b"second", "other": b"known"},
    ]


async def test_faults_that_are_not_the_secrets_are_found_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who starts the broker hears of them, whether Vault is there or not."""
    place.kv.is_away = True
    monkeypatch.setenv("REMADE_TEST", "unusable")
    with pytest.raises(Broken, match="no key name"):
        Remade(place.secrets, {"key": IN_VAULT, "other": ELSEWHERE}, place.make)
    monkeypatch.delenv("REMADE_TEST")
    with pytest.raises(Broken, match="not set"):
        Remade(place.secrets, {"key": IN_VAULT, "other": ELSEWHERE}, place.make)


async def test_zone_waits_for_vault(place: Place) -> None:
    """Nothing is sent with what only stands in for the secret."""
    zone = zone_of_secrets(place.secrets, {"key": IN_VAULT}, place.make)
    assert isinstance(zone, RemadeZone)
    place.kv.is_away = True
    with pytest.raises(Unreachable):
        await zone.publish("a", "b")
    with pytest.raises(Unreachable):
        await zone.remove(PLACED)
    assert place.calls == []
    place.kv.is_away = False
    assert await zone.publish("a", "b") == PLACED
    await zone.remove(PLACED)
    assert place.calls == [("publish", b"first"), ("remove", b"first")]


@pytest.mark.parametrize("what", ["publish", "remove"])
async def test_refused_secret_is_read_anew_for_the_next_attempt(place: Place, what: str) -> None:
    """It was changed on both sides a moment ago, and only ours still has the old one."""
    zone = zone_of_secrets(place.secrets, {"key": IN_VAULT}, place.make)
    await zone.publish("a", "b")
    place.good.append(b"second")
    place.kv.put("kv", "penstock/test", key="second")

    async def attempt() -> None:
        if what == "publish":
            await zone.publish("a", "b")
        else:
            await zone.remove(PLACED)

    with pytest.raises(Broken, match="does not know"):
        await attempt()
    await attempt()
    assert place.calls[-2:] == [(what, b"first"), (what, b"second")]
