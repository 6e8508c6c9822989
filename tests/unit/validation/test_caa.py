"""CAA look-ups: which names are asked, and where the climb ends."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken
from broker.protocol.caa import CaaRecord, CaaSeen
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.caa import CaaLookups
from broker.validation.targets import ValidationSettings
from tests.fakes.fake_resolver import SERVFAIL, FakeResolver

NAME = "www.corp.example"
OURS = CaaRecord(0, "issue", "ca.example")
SETTINGS = ValidationSettings(timeout=timedelta(seconds=1))


def dns(name: str) -> Identifier:
    """Return a DNS identifier."""
    return Identifier(IdentifierType.DNS, name)


async def look(resolver: FakeResolver, *names: Identifier) -> Sequence[CaaSeen]:
    """Look up what stands for *names*."""
    lookups = CaaLookups({"default": SETTINGS}, make_resolver=lambda _: resolver)
    return await lookups.look("default", names or (dns(NAME),))


@pytest.mark.parametrize(
    ("at", "asked"),
    [
        pytest.param(NAME, [NAME], id="at-the-name"),
        pytest.param("corp.example", [NAME, "corp.example"], id="one-above"),
        pytest.param("example", [NAME, "corp.example", "example"], id="at-the-top"),
    ],
)
async def test_nearest_records_are_found(at: str, asked: list[str]) -> None:
    """RFC 8659 §3: from the name up to the top, and no further than needed."""
    resolver = FakeResolver()
    resolver.authorizations[at] = [OURS]
    (seen,) = await look(resolver)
    assert (seen.found_at, seen.records, seen.failure) == (at, (OURS,), None)
    assert list(resolver.asked) == asked


async def test_name_without_records_is_climbed_past() -> None:
    """An empty set is none, like a name that does not exist."""
    resolver = FakeResolver()
    resolver.authorizations = {NAME: [], "corp.example": [OURS]}
    (seen,) = await look(resolver)
    assert seen.found_at == "corp.example"


async def test_root_is_not_asked() -> None:
    """Nothing is found, which is no failure."""
    resolver = FakeResolver()
    (seen,) = await look(resolver)
    assert (seen.found_at, seen.records, seen.failure) == (None, (), None)
    assert list(resolver.asked) == [NAME, "corp.example", "example"]


async def test_wildcard_is_looked_up_at_its_base() -> None:
    """And remembered as the wildcard that it is."""
    resolver = FakeResolver()
    resolver.authorizations["corp.example"] = [OURS]
    (seen,) = await look(resolver, dns("*.corp.example"))
    assert (seen.identifier.value, seen.found_at) == ("*.corp.example", "corp.example")
    assert list(resolver.asked) == ["corp.example"]


async def test_failed_lookup_ends_the_climb() -> None:
    """What stands further up is not what counts."""
    resolver = FakeResolver()
    resolver.authorizations = {"corp.example": SERVFAIL, "example": [OURS]}
    (seen,) = await look(resolver)
    assert (seen.found_at, seen.failure) == (None, "no resolver answers: SERVFAIL")


async def test_failure_above_the_records_does_not_matter() -> None:
    """Nobody asks there."""
    resolver = FakeResolver()
    resolver.authorizations = {NAME: [OURS], "example": SERVFAIL}
    (seen,) = await look(resolver)
    assert (seen.found_at, seen.failure) == (NAME, None)


async def test_names_of_one_zone_share_its_lookups() -> None:
    """A hundred names cost a look each, and one for all above them."""
    resolver = FakeResolver()
    names = [dns(f"n{number}.corp.example") for number in range(100)]
    seen = await look(resolver, *names)
    assert [one.identifier for one in seen] == names
    assert resolver.asked["corp.example"] == resolver.asked["example"] == 1
    assert sum(resolver.asked.values()) == 102


async def test_addresses_have_no_caa() -> None:
    """Nobody is asked."""
    resolver = FakeResolver()
    assert await look(resolver, Identifier(IdentifierType.IP, "10.0.0.1")) == []
    assert not resolver.asked


async def test_an_address_of_e_mail_is_looked_up_at_its_domain() -> None:
    """RFC 9495 §4."""
    resolver = FakeResolver()
    resolver.authorizations["corp.example"] = [OURS]
    (seen,) = await look(resolver, Identifier(IdentifierType.EMAIL, "jane@mail.corp.example"))
    assert seen.found_at == "corp.example"
    assert list(resolver.asked) == ["mail.corp.example", "corp.example"]


class SilentResolver(FakeResolver):
    """A resolver that never answers."""

    async def caa(self, name: str) -> Sequence[CaaRecord]:
        await asyncio.Event().wait()
        return []


async def test_lookup_ends_when_its_time_is_over() -> None:
    """A resolver that never answers is a failure, and waits for nobody."""
    settings = ValidationSettings(timeout=timedelta(milliseconds=10))
    lookups = CaaLookups({"default": settings}, make_resolver=lambda _: SilentResolver())
    (seen,) = await lookups.look("default", (dns(NAME),))
    assert seen.failure == "no answer within 0.01 s"


async def test_unknown_community_is_our_own_fault() -> None:
    """Nobody is asked for a community without settings."""
    with pytest.raises(Broken, match="community 'nobody' has no validation settings"):
        await CaaLookups({}).look("nobody", ())
