"""Limits of the agents' listener as they are by default, and addresses that proxies report."""

from typing import Any, Self, cast

import pytest
from aiohttp import web

from broker.app.agent_limits import agent_limits, agent_origins, reported_addresses
from broker.channel.shown import shown_chain
from broker.config.model import AgentListener, Rates
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.clock import FakeClock

FLEET = 10_000
"""Nodes behind one address."""


class Observed:
    """Counts refusals."""

    def __init__(self) -> None:
        self.limits: list[str] = []

    def limit_reached(self, limit: str) -> None:
        """Count one."""
        self.limits.append(limit)


class FakeTls:
    """A TLS connection at which a certificate was shown."""

    def getpeercert(self, *, binary_form: bool) -> bytes:
        """Return it."""
        assert binary_form
        return b"certificate"

    def get_unverified_chain(self) -> list[bytes]:
        """Return it with what came along."""
        return [b"certificate"]


class FakeRequest(dict[Any, Any]):
    """What is looked at of a request."""

    path = "/agent/v1/messages"

    def __init__(self, remote: str, headers: dict[str, list[str]] | None = None) -> None:
        super().__init__()
        self.remote = remote
        self._told = headers or {}
        self.headers = self
        self.transport = self

    def getall(self, name: str, default: object) -> object:
        """Return the values of a header."""
        return self._told.get(name, default)

    def get_extra_info(self, _name: str) -> FakeTls:
        """Return the TLS connection."""
        return FakeTls()

    def clone(self, *, remote: str) -> Self:
        """Return it as from elsewhere."""
        return type(self)(remote, self._told)


async def serve(middleware: Any, request: FakeRequest, handler: Any) -> bool:
    """Return whether the request is served."""
    try:
        await middleware(request, handler)
    except Problem as problem:
        return problem.status != 429
    return True


async def test_a_fleet_behind_one_address_comes_back_at_once_after_a_restart() -> None:
    """Each signs anew, opens its stream, states itself and posts; the clock stands still."""
    observed = Observed()
    limits = agent_limits(Rates(), FakeClock(), observed)

    async def stale(_request: web.Request) -> web.StreamResponse:
        raise Problem(None, "sign anew", raw_type="stale", status=401)

    for _ in range(FLEET):
        assert await serve(limits.middleware, FakeRequest("192.0.2.1"), stale)
    for number in range(FLEET):

        async def known(request: web.Request, node: str = f"n{number}") -> web.StreamResponse:
            limits.believe(request, node)
            return web.Response()

        for _ in range(3):
            assert await serve(limits.middleware, FakeRequest("192.0.2.1"), known)
    assert observed.limits == []


async def test_a_flood_that_no_node_is_behind_is_refused() -> None:
    """The same listener, the same rate: whoever cannot show an identity is bounded."""
    observed = Observed()
    limits = agent_limits(Rates(), FakeClock(), observed)

    async def nobody(_request: web.Request) -> web.StreamResponse:
        raise Problem(ProblemType.UNAUTHORIZED, "nobody")

    async def no_wait() -> None: ...

    rate = Rates().agents
    assert rate is not None
    for _ in range(rate.count):
        assert await serve(limits.middleware, FakeRequest("192.0.2.1"), nobody)
    limits._hold_back = no_wait  # type: ignore[method-assign]
    assert not await serve(limits.middleware, FakeRequest("192.0.2.1"), nobody)
    assert observed.limits == ["agents"]


@pytest.mark.parametrize(
    ("peer", "address", "chain"),
    [
        pytest.param("10.0.7.1", "192.0.2.9", (), id="named-proxy"),
        pytest.param("10.0.8.1", "10.0.8.1", (b"certificate",), id="anybody-else"),
    ],
)
async def test_named_proxies_alone_are_believed(
    peer: str, address: str, chain: tuple[bytes, ...]
) -> None:
    """What they report is where the agent is, and what they show at TLS is not its identity."""
    listen = AgentListener.model_validate_json('{"proxies": ["10.0.7.0/24"]}')
    origins = agent_origins(listen)
    seen: list[FakeRequest] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(cast(FakeRequest, request))
        return web.Response()

    request = FakeRequest(peer, {"x-forwarded-for": ["192.0.2.9"]})
    await cast(Any, reported_addresses(origins))(request, note)
    assert seen[0].remote == address
    assert shown_chain(cast(web.Request, seen[0])) == chain
