"""A community whose whole world is 127.0.0.1: its resolver, its one web server, and no more."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from broker.issuance.ports import Question
from broker.protocol.challenges import (
    ChallengeType,
    Observation,
    Verdict,
    http01_path,
    judge_challenge,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.targets import Endpoint, ValidationSettings
from broker.validation.validators import Validators
from tests.contract.validation.servers import DnsServer, HttpServer, dns_server, http_server
from tests.fakes.loop_time import LoopTime

TOKEN = "token-with-22-characters-or-more"
THUMBPRINT = "thumbprint"
KEY_AUTHORIZATION = f"{TOKEN}.{THUMBPRINT}".encode()
NAME = "www.corp.example"
PATH = http01_path(TOKEN)

LOOPBACK = ipaddress.ip_address("127.0.0.1")
CANARY = "127.0.0.2"
"""An address on which only what must not be contacted listens."""


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(location: str) -> bytes:
    """Return an HTTP redirect."""
    return answer(b"", f"Location: {location}", status="302 Found")


@dataclass
class World:
    """What there is, and the settings that say what may be contacted."""

    dns: DnsServer
    web: HttpServer
    port: int
    settings: ValidationSettings
    time: LoopTime

    def change(self, **changes: object) -> None:
        """Change settings."""
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]

    def let_time_pass(self) -> None:
        """Have the time be over that looking may take."""
        self.time.advance(self.settings.timeout)

    def allow(self, *networks: str) -> None:
        """Allow exactly these networks."""
        self.change(networks_allow=tuple(ipaddress.ip_network(network) for network in networks))

    async def observe(
        self, kind: ChallengeType = ChallengeType.HTTP_01, name: str = NAME, type_: str = "dns"
    ) -> Observation:
        """Go and look."""
        question = Question(
            community="default",
            type=kind,
            identifier=Identifier(IdentifierType(type_), name),
            token=TOKEN,
            thumbprint=THUMBPRINT,
        )
        return await Validators({"default": self.settings}).observe(question)


def judge(seen: Observation) -> Verdict:
    """Pass the verdict on what was seen."""
    return judge_challenge(seen.type, token=TOKEN, thumbprint=THUMBPRINT, observation=seen)


def refusal(seen: Observation) -> str:
    """Return the kind of failure; fails when there is none."""
    assert seen.failure is not None, f"seen: {seen.answers}"
    assert seen.answers == ()
    assert not judge(seen).valid
    return seen.failure.kind


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Run both servers; NAME leads to the web server, which has the right answer."""
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(dns_server())
        web, port = await stack.enter_async_context(http_server())
        dns.zone[(NAME, "A")] = [["127.0.0.1"]]
        web.answers[PATH] = answer(KEY_AUTHORIZATION)
        settings = ValidationSettings(
            resolvers=(Endpoint(LOOPBACK, dns.port),),
            http_port=port,
            networks_allow=(ipaddress.ip_network("127.0.0.1/32"),),
            timeout=timedelta(seconds=30),
        )
        yield World(dns, web, port, settings, LoopTime())


@pytest.fixture
def _proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a proxy that nobody is meant to use."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.3:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.3:1")
