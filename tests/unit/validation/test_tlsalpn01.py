"""tls-alpn-01 up to the point where a connection would be made: none of these makes one."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType, Failure
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.resolver import ResolutionFailed
from broker.validation.targets import IpAddress, ValidationSettings
from broker.validation.tlsalpn01 import TlsAlpn01
from tests.fakes.fake_resolver import FakeResolver

NAME = "www.corp.example"
OPEN = ValidationSettings(
    networks_allow=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
)


def question(value: str = NAME, kind: str = "dns") -> Question:
    """Ask for one name or address."""
    return Question(
        community="default",
        type=ChallengeType.TLS_ALPN_01,
        identifier=Identifier(IdentifierType(kind), value),
        token="token-with-22-characters-or-more",
        thumbprint="thumbprint",
    )


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["127.0.0.1"], id="loopback"),
        pytest.param(["::ffff:127.0.0.1"], id="mapped"),
        pytest.param(["169.254.169.254"], id="metadata"),
        pytest.param(["fe80::1", "127.0.0.1", "::1"], id="all-of-several"),
    ],
)
async def test_forbidden_addresses_are_not_contacted(addresses: list[str]) -> None:
    """A name that leads only to forbidden addresses is refused before any connection."""
    resolver = FakeResolver()
    resolver.hosts[NAME] = [addresses]
    seen = await TlsAlpn01(OPEN, resolver).observe(question())
    assert seen.failure is not None
    assert seen.failure.kind == "refused-address"
    assert (seen.target, seen.addresses_tried, seen.answers) == (NAME, (), ())


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1"])
async def test_forbidden_address_as_identifier_is_not_contacted(address: str) -> None:
    """An address that is itself asked for is judged like one that a name leads to."""
    resolver = FakeResolver()
    seen = await TlsAlpn01(OPEN, resolver).observe(question(address, "ip"))
    assert seen.failure is not None
    assert seen.failure.kind == "refused-address"
    assert not resolver.asked


async def test_failed_lookup_is_a_dns_failure() -> None:
    """SERVFAIL is told as such."""
    resolver = FakeResolver()
    resolver.hosts[NAME] = [ResolutionFailed("no resolver answers: SERVFAIL")]
    seen = await TlsAlpn01(OPEN, resolver).observe(question())
    assert seen.failure == Failure("dns", "no resolver answers: SERVFAIL")


class SilentResolver(FakeResolver):
    """A resolver that never answers."""

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        await asyncio.Event().wait()
        return []


async def test_validation_ends_when_its_time_is_over() -> None:
    """The limit covers all steps, the lookup included."""
    settings = replace(OPEN, timeout=timedelta(milliseconds=10))
    seen = await TlsAlpn01(settings, SilentResolver()).observe(question())
    assert seen.failure == Failure("timeout", "no answer within 0.01 s")
