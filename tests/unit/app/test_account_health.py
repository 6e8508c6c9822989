"""Accounts as those see them who look after them: gates that are shut, and keys as they are now."""

from __future__ import annotations

import pytest

from broker.app.account_health import AccountsLookedAt, ConfiguredRegistrar
from broker.app.account_keys import AccountGates
from broker.issuance.errors import Broken, NoKeyStore
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.exchange import HttpRequest, HttpResponse
from broker.upstreams.client import AcmeClient
from tests.fakes.accounts_asked import DIRECTORY, account_record
from tests.fakes.clock import FakeClock
from tests.fakes.signer import FakeSigner
from tests.fakes.transit_ring import FakeTransitRing


class NoTransport:
    """Carries nothing."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError(f"{request.url} was asked for")


class WithoutMount(FakeSigner):
    """Vault whose mount is gone."""

    async def has_key(self, key_id: str) -> bool:
        raise NoKeyStore("no handler for route")


class FakeRegistering:
    """Remembers which key it was to register."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def account_key_kind(self, upstream: str) -> str:
        return "ec-p256"

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        self.asked.append((key_id, agree_to_terms))
        return account_record(key_id=key_id)


def looked_at(signer: FakeSigner) -> tuple[AccountsLookedAt, AccountGates]:
    """Return accounts at one CA, which is never spoken to."""
    gates = AccountGates()
    client = AcmeClient(
        directory_url=DIRECTORY, transport=NoTransport(), signer=signer, clock=FakeClock()
    )
    return AccountsLookedAt({"ca": client}, gates, signer), gates


async def test_lost_account_is_used_by_nobody_but_who_looks() -> None:
    """Everybody else is told the reason; found again, all may."""
    asked, gates = looked_at(FakeSigner())
    gates.of("ca", "default").is_doubted = True
    assert list(asked.doubted()) == [("ca", "default")]
    asked.set_lost("ca", "default", "it is lost")
    assert list(asked.doubted()) == []
    with pytest.raises(Broken, match="it is lost") as told:
        async with gates.of("ca", "default").using():
            raise AssertionError("came in")
    assert told.value.left_nothing
    async with asked.using("ca", "default"):
        pass
    asked.set_lost("ca", "default", None)
    async with gates.of("ca", "default").using():
        pass


async def test_key_is_seen_as_it_is_now() -> None:
    """One that is made anew under its name has another thumbprint; one that is gone has none."""
    signer = FakeSigner()
    asked, _ = looked_at(signer)
    assert await asked.thumbprint_now("key") is None
    await signer.create_key("key", "ec-p256")
    first = await asked.thumbprint_now("key")
    del signer.keys["key"]
    await signer.create_key("key", "ec-p256")
    assert await asked.thumbprint_now("key") not in (None, first)


async def test_mount_that_is_gone_has_no_keys() -> None:
    """It is no fault of the set-up that a person would have to see to first."""
    asked, _ = looked_at(WithoutMount())
    assert await asked.thumbprint_now("key") is None


async def test_other_upstreams_are_not_asked() -> None:
    """One that configuration no longer names has no directory, and cannot be asked."""
    asked, _ = looked_at(FakeSigner())
    assert asked.directory_url("ca") == DIRECTORY
    assert asked.directory_url("gone") is None
    with pytest.raises(Broken, match="not configured"):
        await asked.standing(account_record(upstream="gone"), "key")


async def test_key_that_somebody_made_is_left_alone() -> None:
    """Twice made is once made, and it is the one that is registered."""
    signer, registering = FakeSigner(), FakeRegistering()
    registrar = ConfiguredRegistrar(
        registering, AccountGates(), ring=signer, places=FakeTransitRing()
    )
    await registrar.make_key("ca", "key")
    before = await signer.public_key("key")
    await registrar.make_key("ca", "key")
    assert await signer.public_key("key") == before
    assert await registrar.has_key("key")
    made = await registrar.register_with("ca", "default", "key", agree_to_terms=True)
    assert (made.key_id, registering.asked) == ("key", [("key", True)])


async def test_account_is_looked_at_while_its_key_is_in_doubt() -> None:
    """It may be lost; whoever looks is told that a change of its key has not ended."""
    asked, gates = looked_at(FakeSigner())
    gates.of("ca", "default").is_certain = False
    gates.of("ca", "default").loss = "lost"
    async with asked.using("ca", "default") as is_certain:
        assert not is_certain
    async with asked.using("ca", "lab") as is_certain:
        assert is_certain
