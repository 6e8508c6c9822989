"""Probes and metrics."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from broker.web import health
from broker.web.health import create_health_app
from broker.web.listeners import start_unix


class Checks:
    """Two checks, one of which a test can break."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.hangs = False

    async def store(self) -> str | None:
        return None

    async def policy(self) -> str | None:
        if self.hangs:
            await asyncio.Event().wait()
        return self.fault


@pytest.fixture
def checks() -> Checks:
    """All is well."""
    return Checks()


@pytest.fixture
async def session(tmp_path: Path, checks: Checks) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the health listener."""

    async def metrics() -> bytes:
        return b"penstock_up 1\n"

    app = create_health_app(
        checks={"store": checks.store, "policy": checks.policy}, metrics=metrics
    )
    path = tmp_path / "health.sock"
    listener = await start_unix(app, path)
    async with aiohttp.ClientSession(
        "http://health", connector=aiohttp.UnixConnector(str(path))
    ) as made:
        yield made
    await listener.stop()


async def read(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    """Return status and text."""
    async with session.get(path) as answer:
        return answer.status, await answer.text()


async def test_ready_broker_says_so(session: aiohttp.ClientSession) -> None:
    """In one line, or with every check by name."""
    assert await read(session, "/readyz") == (200, "ok\n")
    assert await read(session, "/readyz?verbose") == (200, "[+] store ok\n[+] policy ok\nok\n")


async def test_broken_check_makes_it_unready_and_stays_alive(
    session: aiohttp.ClientSession, checks: Checks
) -> None:
    """A restart would not mend what the check complains of."""
    checks.fault = "no policy for community 'lab'"
    assert await read(session, "/readyz") == (
        503,
        "[-] policy no policy for community 'lab'\nnot ready\n",
    )
    assert await read(session, "/livez") == (200, "ok\n")
    assert await read(session, "/healthz") == (200, "ok\n")


async def test_check_that_hangs_counts_as_broken(
    session: aiohttp.ClientSession, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe is answered all the same."""
    monkeypatch.setattr(health, "CHECK_TIME", timedelta(milliseconds=20))
    checks.hangs = True
    status, text = await read(session, "/readyz")
    assert status == 503
    assert "[-] policy no answer within 0.02 s" in text


async def test_no_check_waits_for_another(tmp_path: Path) -> None:
    """Nor a warning for the checks: a probe takes as long as the slowest, not as their sum."""
    together = asyncio.Barrier(3)

    async def check() -> str | None:
        await together.wait()
        return None

    async def warning() -> str | None:
        await together.wait()
        return "sealed"

    async def metrics() -> bytes:
        return b""

    app = create_health_app(
        checks={"a": check, "b": check}, warnings={"vault": warning}, metrics=metrics
    )
    path = tmp_path / "health.sock"
    listener = await start_unix(app, path)
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://health", connector=connector) as session:
        assert await read(session, "/readyz") == (200, "[!] vault sealed\nok\n")
    await listener.stop()


async def test_metrics_are_in_the_text_format(session: aiohttp.ClientSession) -> None:
    """With the content type that Prometheus asks for."""
    async with session.get("/metrics") as answer:
        assert await answer.text() == "penstock_up 1\n"
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
