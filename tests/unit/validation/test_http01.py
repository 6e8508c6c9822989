"""http-01 up to the point where a connection would be made: none of these makes one."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType, Failure
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.http01 import Http01
from broker.validation.resolver import ResolutionFailed
from broker.validation.targets import IpAddress, ValidationSettings
from tests.fakes.fake_resolver import FakeResolver

TOKEN = "token-with-22-characters-or-more"
URL = "http://www.corp.example/.well-known/acme-challenge/…"
OPEN = ValidationSettings(
    networks_allow=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
)


def question(value: str = "www.corp.example", kind: str = "dns") -> Question:
    """Ask for one name or address."""
    return Question(
        community="default",
        type=ChallengeType.HTTP_01,
        identifier=Identifier(IdentifierType(kind), value),
        token=TOKEN,
        thumbprint="thumbprint",
    )


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["127.0.0.1"], id="loopback"),
        pytest.param(["::ffff:127.0.0.1"], id="mapped"),
        pytest.param(["0.0.0.0"], id="unspecified"),
        pytest.param(["169.254.169.254"], id="metadata"),
        pytest.param(["fe80::1", "127.0.0.1", "::1"], id="all-of-several"),
    ],
)
async def test_forbidden_addresses_are_not_contacted(addresses: list[str]) -> None:
    """A name that leads only to forbidden addresses is refused before any connection."""
    resolver = FakeResolver()
    resolver.hosts["www.corp.example"] = [addresses]
    seen = await Http01(OPEN, resolver).observe(question())
    assert seen.failure is not None
    assert seen.failure.kind == "refused-address"
    assert (seen.target, seen.addresses_tried, seen.answers) == (URL, (), ())


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1"])
async def test_forbidden_address_as_identifier_is_not_contacted(address: str) -> None:
    """An address that is itself asked for is judged like one that a name leads to."""
    resolver = FakeResolver()
    seen = await Http01(OPEN, resolver).observe(question(address, "ip"))
    assert seen.failure is not None
    assert seen.failure.kind == "refused-address"
    assert not resolver.asked


async def test_ipv6_identifier_is_bracketed_in_its_url() -> None:
    """The target reads as a URL, so that people can try it."""
    seen = await Http01(OPEN, FakeResolver()).observe(question("::1", "ip"))
    assert seen.target.startswith("http://[::1]/.well-known/")


async def test_other_port_is_part_of_the_target() -> None:
    """A community on another port is told which."""
    seen = await Http01(replace(OPEN, http_port=5002), FakeResolver()).observe(question())
    assert seen.target.startswith("http://www.corp.example:5002/")


async def test_unknown_name_is_a_dns_failure() -> None:
    """NXDOMAIN is told as such."""
    seen = await Http01(OPEN, FakeResolver()).observe(question())
    assert seen.failure == Failure("dns", "www.corp.example does not exist (NXDOMAIN)")


async def test_failed_lookup_is_a_dns_failure() -> None:
    """SERVFAIL is told as such."""
    resolver = FakeResolver()
    resolver.hosts["www.corp.example"] = [ResolutionFailed("no resolver answers: SERVFAIL")]
    seen = await Http01(OPEN, resolver).observe(question())
    assert seen.failure == Failure("dns", "no resolver answers: SERVFAIL")


class SilentResolver(FakeResolver):
    """A resolver that never answers."""

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        await asyncio.Event().wait()
        return []


async def test_validation_ends_when_its_time_is_over() -> None:
    """The limit covers all steps, the lookup included."""
    settings = replace(OPEN, timeout=timedelta(milliseconds=10))
    seen = await Http01(settings, SilentResolver()).observe(question())
    assert seen.failure == Failure("timeout", "no answer within 0.01 s")
