"""All communities behind one port: who is asked with which settings."""

import ipaddress

import pytest

from broker.issuance.errors import Broken
from broker.issuance.ports import Question, Validator
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.resolver import Resolver
from broker.validation.targets import ValidationSettings
from broker.validation.validators import Validators
from tests.fakes.fake_resolver import FakeResolver

TOKEN = "token-with-22-characters-or-more"
INSIDE = ValidationSettings(networks_allow=(ipaddress.ip_network("10.0.0.0/8"),))
OUTSIDE = ValidationSettings(networks_allow=(ipaddress.ip_network("192.0.2.0/24"),))


def question(
    kind: ChallengeType, value: str, *, community: str = "inside", type_: str = "dns"
) -> Question:
    """Ask for one name or address."""
    return Question(
        community=community,
        type=kind,
        identifier=Identifier(IdentifierType(type_), value),
        token=TOKEN,
        thumbprint="thumbprint",
        account_url="https://example.com/acme/acct/ExampleAccount",
    )


def validators() -> tuple[Validator, list[FakeResolver]]:
    """Return validators for two communities, and the resolver of each in that order."""
    made: list[FakeResolver] = []

    def make(settings: ValidationSettings) -> Resolver:
        made.append(FakeResolver())
        return made[-1]

    return Validators({"inside": INSIDE, "outside": OUTSIDE}, make_resolver=make), made


@pytest.mark.parametrize(
    ("kind", "value", "type_"),
    [
        pytest.param(ChallengeType.DNS_01, "192.0.2.1", "ip", id="dns-01-for-an-address"),
        pytest.param(
            ChallengeType.DNS_ACCOUNT_01, "192.0.2.1", "ip", id="dns-account-01-for-an-address"
        ),
        pytest.param(
            ChallengeType.TLS_ALPN_01, "*.corp.example", "dns", id="tls-alpn-01-for-a-wildcard"
        ),
        pytest.param(ChallengeType.HTTP_01, "*.corp.example", "dns", id="http-01-for-a-wildcard"),
        pytest.param(ChallengeType.HTTP_01, "a@corp.example", "email", id="http-01-for-mail"),
    ],
)
async def test_unsupported_question_is_an_observation_of_failure(
    kind: ChallengeType, value: str, type_: str
) -> None:
    """What cannot be validated is said so, and nobody is asked."""
    ready, resolvers = validators()
    seen = await ready.observe(question(kind, value, type_=type_))
    assert seen.failure is not None
    assert seen.failure.kind == "protocol"
    assert "is not validated for" in seen.failure.text
    assert not any(resolver.asked for resolver in resolvers)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        pytest.param(ChallengeType.HTTP_01, "www.corp.example", id="http-01"),
        pytest.param(ChallengeType.DNS_01, "_acme-challenge.www.corp.example", id="dns-01"),
        pytest.param(ChallengeType.TLS_ALPN_01, "www.corp.example", id="tls-alpn-01"),
        pytest.param(
            ChallengeType.DNS_ACCOUNT_01,
            "_ujmmovf2vn55tgye._acme-challenge.www.corp.example",
            id="dns-account-01",
        ),
    ],
)
async def test_question_goes_to_the_validator_of_its_type(kind: ChallengeType, asked: str) -> None:
    """The negative twin: supported questions are asked, through their community's resolver."""
    ready, resolvers = validators()
    seen = await ready.observe(question(kind, "www.corp.example"))
    assert seen.type is kind
    assert seen.failure is not None
    assert seen.failure.kind == "dns"
    assert [dict(resolver.asked) for resolver in resolvers] == [{asked: 1}, {}]


async def test_each_community_has_its_own_networks() -> None:
    """What one community may contact, another may not."""
    ready, _ = validators()
    kind = ChallengeType.HTTP_01
    seen = await ready.observe(question(kind, "10.0.0.1", community="outside", type_="ip"))
    assert seen.failure is not None
    assert seen.failure.kind == "refused-address"


async def test_unknown_community_is_our_own_fault() -> None:
    """Nobody is contacted for a community without settings."""
    ready, _ = validators()
    with pytest.raises(Broken, match="community 'nobody' has no validation settings"):
        await ready.observe(question(ChallengeType.HTTP_01, "www.corp.example", community="nobody"))
