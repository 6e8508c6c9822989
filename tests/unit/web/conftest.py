"""An ACME listener at a Unix socket, over workflows that only remember."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from broker.issuance.events import Event
from broker.web.envelope import EnvelopeLimits
from broker.web.handlers import WebCommunity
from broker.web.listeners import start_unix
from broker.web.nonces import BootNonces
from broker.web.server import WebSettings, create_acme_app
from tests.fakes.clock import FakeClock
from tests.fakes.raw_client import RawClient
from tests.fakes.workflows import FakeWorkflows

ORIGIN = "http://acme.corp.example"
"""The external URL under test.  Over a Unix socket there is no TLS, so the scheme is http."""

PATIENCE = timedelta(seconds=30)
"""How long the body of a request may take, unless a test waits for the end of that time."""


@dataclass
class Observed:
    """What telemetry was told."""

    requests: list[tuple[str, int, str | None]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)

    def limit_reached(self, limit: str) -> None:
        self.limits.append(limit)

    def request_served(
        self, *, operation: str, status: int, problem: str | None, seconds: float
    ) -> None:
        assert seconds >= 0
        self.requests.append((operation, status, problem))


@dataclass
class Site:
    """The listener and all that stands behind it."""

    workflows: FakeWorkflows
    clock: FakeClock
    observed: Observed
    events: asyncio.Queue[Event]
    socket: Path
    client: RawClient


@pytest.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Serve two communities, and give a client of the default one.

    A test that waits for the end of a body's time gives it as the parameter.
    """
    workflows, clock, observed = FakeWorkflows(), FakeClock(), Observed()
    events: asyncio.Queue[Event] = asyncio.Queue()

    async def record(event: Event) -> None:
        events.put_nowait(event)

    settings = WebSettings(
        external_url=ORIGIN,
        communities={
            "default": WebCommunity(website="https://pki.corp.example"),
            "lab": WebCommunity(external_account_required=True),
        },
        limits=EnvelopeLimits(body_bytes=4096, body_time=getattr(request, "param", PATIENCE)),
    )
    app = create_acme_app(
        settings,
        workflows=workflows.as_workflows(),
        nonces=BootNonces(clock),
        clock=clock,
        observer=observed,
        record_refusal=record,
        profiles=lambda community: {"server": f"for {community}"},
    )
    socket = tmp_path / "acme.sock"
    listener = await start_unix(app, socket)
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = RawClient(session, ORIGIN)
        yield Site(workflows, clock, observed, events, socket, client)
    await listener.stop()
