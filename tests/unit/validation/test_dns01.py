"""dns-01: which name is asked, and how answers and their absence are told."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.errors import Broken
from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType, Failure, dns01_value, judge_challenge
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.dns01 import Dns01
from broker.validation.targets import ValidationSettings
from tests.fakes.fake_resolver import SERVFAIL, FakeResolver

TOKEN = "token-with-22-characters-or-more"
NAME = "_acme-challenge.www.corp.example"
RIGHT = dns01_value(f"{TOKEN}.thumbprint").encode()


def question(value: str = "www.corp.example") -> Question:
    """Ask for one name."""
    return Question(
        community="default",
        type=ChallengeType.DNS_01,
        identifier=Identifier(IdentifierType.DNS, value),
        token=TOKEN,
        thumbprint="thumbprint",
    )


@pytest.mark.parametrize(
    ("records", "is_valid"),
    [
        pytest.param([RIGHT], True, id="right"),
        pytest.param([b"stale", RIGHT], True, id="right-among-others"),
        pytest.param([b"stale"], False, id="wrong"),
        pytest.param([], False, id="none"),
    ],
)
@pytest.mark.parametrize("name", ["www.corp.example", "*.www.corp.example"])
async def test_records_are_handed_on_for_judging(
    name: str, records: list[bytes], is_valid: bool
) -> None:
    """The records at the challenge name are the answers, for a name and its wildcard alike."""
    resolver = FakeResolver()
    resolver.records[NAME] = records
    seen = await Dns01(ValidationSettings(), resolver).observe(question(name))
    assert (seen.target, seen.answers, seen.failure) == (NAME, tuple(records), None)
    verdict = judge_challenge(
        ChallengeType.DNS_01, token=TOKEN, thumbprint="thumbprint", observation=seen
    )
    assert verdict.valid is is_valid


ACCOUNT_URL = "https://example.com/acme/acct/ExampleAccount"


@pytest.mark.parametrize("name", ["example.org", "*.example.org"])
async def test_records_of_an_account_are_looked_for_at_its_own_name(name: str) -> None:
    """The example of draft-ietf-acme-dns-account-label-03; the plain name is not looked at."""
    resolver = FakeResolver()
    at = "_ujmmovf2vn55tgye._acme-challenge.example.org"
    resolver.records[at] = [RIGHT]
    kind = ChallengeType.DNS_ACCOUNT_01
    asked = replace(question(name), type=kind, account_url=ACCOUNT_URL)
    seen = await Dns01(ValidationSettings(), resolver).observe(asked)
    assert (seen.type, seen.target) == (kind, at)
    assert dict(resolver.asked) == {at: 1}
    verdict = judge_challenge(kind, token=TOKEN, thumbprint="thumbprint", observation=seen)
    assert verdict.valid
    other = replace(asked, account_url=f"{ACCOUNT_URL}2")
    stranger = await Dns01(ValidationSettings(), resolver).observe(other)
    assert stranger.failure is not None


async def test_account_without_a_url_is_our_own_fault() -> None:
    """Nobody can say where to look."""
    asked = replace(question(), type=ChallengeType.DNS_ACCOUNT_01)
    with pytest.raises(Broken, match="without the account's URL"):
        await Dns01(ValidationSettings(), FakeResolver()).observe(asked)


async def test_missing_name_is_a_dns_failure() -> None:
    """NXDOMAIN is told as such."""
    seen = await Dns01(ValidationSettings(), FakeResolver()).observe(question())
    assert seen.failure == Failure("dns", f"{NAME} does not exist (NXDOMAIN)")


async def test_failed_lookup_is_a_dns_failure() -> None:
    """SERVFAIL is told as such."""
    resolver = FakeResolver()
    resolver.records[NAME] = SERVFAIL
    seen = await Dns01(ValidationSettings(), resolver).observe(question())
    assert seen.failure == Failure("dns", "no resolver answers: SERVFAIL")


class SilentResolver(FakeResolver):
    """A resolver that never answers."""

    async def texts(self, name: str) -> Sequence[bytes]:
        await asyncio.Event().wait()
        return []


async def test_validation_ends_when_its_time_is_over() -> None:
    """A resolver that never answers costs the time limit and no more."""
    settings = ValidationSettings(timeout=timedelta(milliseconds=10))
    seen = await Dns01(settings, SilentResolver()).observe(question())
    assert seen.failure == Failure("timeout", "no answer within 0.01 s")
