"""TXT records through a web service of the operator's, over HTTPS on loopback."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.placement import PlacedRecord
from broker.upstreams.webhook import WebhookSettings, WebhookZone, sign_wish
from tests.fakes.clock import FakeClock
from tests.fakes.zones import FakeZoneMap
from tests.peers import authority

NAME = "_acme-challenge.www.example.com"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Service:
    """A service that remembers what it was asked, and answers as it is told."""

    url: str = ""
    ca_bundle: Path = Path()
    answers: list[int] = field(default_factory=list)
    wishes: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    pauses: list[timedelta] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        """Remember the wish and answer with the next status."""
        self.bodies.append(await request.read())
        self.wishes.append(await request.json())
        self.headers.append(dict(request.headers))
        status = self.answers.pop(0) if self.answers else 200
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.Response(status=status, text="hush: the provider's own words", headers=headers)

    async def pause(self, duration: timedelta) -> None:
        """Remember the wait and do not wait."""
        self.pauses.append(duration)

    def zone(self, **more: Any) -> WebhookZone:
        """Return a zone that is changed by this service."""
        members: dict[str, Any] = {"url": self.url, "ca_bundle": self.ca_bundle, "bearer": "token"}
        return WebhookZone(
            WebhookSettings(**members | more),
            clock=FakeClock(NOW),
            zones=FakeZoneMap({NAME: "www.acme.example"}, ("acme.example",)),
            pause=self.pause,
        )


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with a certificate from a CA of its own."""
    async with serving(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Service]:
    """Serve over HTTPS."""
    made = Service()
    root = authority.make_root("hook")
    server = authority.make_server(root, ["127.0.0.1"])
    certificate, key, made.ca_bundle = authority.write_server_files(tmp_path, server, root)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    made.url = f"https://127.0.0.1:{runner.addresses[0][1]}/acme"
    try:
        yield made
    finally:
        await runner.cleanup()


async def test_a_wish_has_the_documented_form(service: Service) -> None:
    """One to set the record, one to take it away, each with a key of its own."""
    zone = service.zone(zone="acme.example")
    placed = await zone.publish(NAME, "value")
    assert placed == PlacedRecord("acme.example.", "www.acme.example.", "value")
    await zone.remove(placed)
    wish = {
        "apiVersion": "penstock.dev/v1",
        "kind": "DnsChallenge",
        "fqdn": "www.acme.example.",
        "zone": "acme.example.",
        "value": "value",
    }
    assert service.wishes == [{**wish, "action": "present"}, {**wish, "action": "cleanup"}]
    assert service.headers[0]["Authorization"] == "Bearer token"
    assert service.headers[0]["Content-Type"] == "application/json"
    keys = {headers["Idempotency-Key"] for headers in service.headers}
    assert len(keys) == 2


async def test_a_wish_can_be_signed(service: Service) -> None:
    """The service recomputes the MAC over the time and the very octets of the body."""
    await service.zone(mac_key=b"key", bearer=None).publish(NAME, "value")
    shown = service.headers[0]["Penstock-Signature"]
    assert shown == sign_wish(b"key", int(NOW.timestamp()), service.bodies[0])
    assert shown != sign_wish(b"other", int(NOW.timestamp()), service.bodies[0])
    assert "Authorization" not in service.headers[0]


async def test_a_passing_fault_is_tried_again_under_the_same_key(service: Service) -> None:
    """With a growing pause, and the service can tell that it is the same wish."""
    service.answers = [503, 429]
    await service.zone(attempts=3).publish(NAME, "value")
    assert len(service.wishes) == 3
    assert len({headers["Idempotency-Key"] for headers in service.headers}) == 1
    assert service.pauses == [timedelta(seconds=1), timedelta(seconds=2)]


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        pytest.param([500, 500], Unreachable, "answered 500", id="down"),
        pytest.param([403], Broken, "refused with 403", id="refused"),
        pytest.param([302], Broken, "refused with 302", id="redirect"),
    ],
)
async def test_an_answer_that_is_no_success(
    service: Service, answers: list[int], kind: type[Exception], words: str
) -> None:
    """A redirect is not followed: the secret would travel with it."""
    service.answers = list(answers)
    with structlog.testing.capture_logs() as logs, pytest.raises(kind, match=words) as caught:
        await service.zone(attempts=2).publish(NAME, "value")
    assert len(service.wishes) == len(answers)
    assert "hush" not in str(caught.value)
    assert "token" not in f"{logs}"
    assert "hush" in f"{logs}"


async def test_a_certificate_of_another_ca_is_not_trusted(service: Service, tmp_path: Path) -> None:
    """The bundle is the only trust there is."""
    bundle = tmp_path / "other.pem"
    bundle.write_bytes(authority.make_root("another").certificate_pem)
    with pytest.raises(Broken, match="certificate is not trusted"):
        await service.zone(ca_bundle=bundle).publish(NAME, "value")
    assert service.wishes == []


async def test_silence_is_an_outage(service: Service) -> None:
    """Nobody listens there."""
    with pytest.raises(Unreachable, match="ClientConnectorError"):
        await service.zone(url="https://127.0.0.1:1/", attempts=1).publish(NAME, "value")


def test_no_secret_is_shown() -> None:
    """Settings are printed when something is wrong with them."""
    settings = WebhookSettings(url="https://a.example", bearer="hush-bearer", mac_key=b"hush-mac")
    assert "hush" not in repr(settings)
