"""Challenges are looked at with the proxy's credentials as they are now."""

from typing import Any

import pytest

from broker.app.secrets import Secrets
from broker.app.validating import ConfiguredValidators
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Question
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.fakes.clock import FakeClock
from tests.fakes.fake_kv import FakeKv
from tests.unit.config.conftest import parsed

VAULT = {
    "addresses": ["https://vault.corp.example:8200"],
    "serve": {"method": "token", "token": "file:/run/vault-token"},
}


def question(community: str) -> Question:
    """Return one that nobody need be asked for: a wildcard is not looked at over HTTP."""
    return Question(
        community=community,
        type=ChallengeType.HTTP_01,
        identifier=Identifier(IdentifierType.DNS, "*.example.com"),
        token="evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA",
        thumbprint="thumb",
    )


def validators(
    kv: FakeKv, credentials: str = "vault:kv/penstock/test#pair"
) -> ConfiguredValidators:
    """Return those of two communities, of which one has a proxy."""
    proxy: dict[str, Any] = {"address": "127.0.0.1:3128", "credentials": credentials}
    resolver = "127.0.0.1:5353"
    config = parsed(
        {
            "vault": VAULT,
            "communities": {
                "default": {"validation": {"resolvers": [resolver]}},
                "lab": {"validation": {"resolvers": [resolver], "proxy": proxy}},
            },
            "upstreams.local.communities": ["default", "lab"],
        }
    )
    return ConfiguredValidators(config, Secrets(config, kv, FakeClock()))


async def test_only_the_community_with_the_proxy_waits_for_vault() -> None:
    """The others need nothing of it; and no client's challenge fails for our sake."""
    kv = FakeKv(pair="anna:secret")
    made = validators(kv)
    kv.is_away = True
    assert (await made.observe(question("default"))).failure is not None
    with pytest.raises(Unreachable):
        await made.observe(question("lab"))
    kv.is_away = False
    assert (await made.observe(question("lab"))).failure is not None


async def test_community_that_is_not_configured_is_broken() -> None:
    """As of the validators themselves."""
    with pytest.raises(Broken, match="has no validation settings"):
        await validators(FakeKv()).observe(question("other"))


def test_credentials_that_do_not_lie_in_vault_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their fault is told at the start."""
    monkeypatch.delenv("PROXY_PAIR", raising=False)
    with pytest.raises(Broken, match="not set"):
        validators(FakeKv(), "env:PROXY_PAIR")
