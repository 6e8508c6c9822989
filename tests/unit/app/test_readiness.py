"""What ``/readyz`` says of an assembled broker."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.app.assembly import assembled
from broker.app.identity import Identity
from broker.app.readiness import health_view
from broker.web.health import HealthView, health_app_of
from broker.web.listeners import start_unix
from tests.unit.app.test_assembly import config_in

VAULT: dict[str, Any] = {
    "addresses": ["https://127.0.0.1:1"],
    "serve": {"method": "token", "token": "file:/nowhere/at/all"},
}


@pytest.fixture
async def readiness(tmp_path: Path) -> AsyncIterator[Any]:
    """Return a function that asks, and whatever it is asked about."""
    config = config_in(tmp_path, vault=VAULT)
    async with assembled(config) as broker:
        opened = asyncio.Event()
        identity = Identity(
            config,
            passphrase=broker.outside.secrets.passphrase(),
            find_authority=broker.outside.upstreams.authorities.get,
            clock=broker.outside.clock,
            own=None,
            is_held=lambda: False,
        )
        socket = tmp_path / "health.sock"
        view = health_view(broker, identity, opened)

        async def found() -> HealthView:
            return view

        listener = await start_unix(health_app_of(found), socket)
        connector = aiohttp.UnixConnector(str(socket))
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask() -> tuple[int, str]:
                async with session.get("http://localhost/readyz?verbose") as answer:
                    return answer.status, await answer.text()

            yield broker, ask
        await listener.stop()


async def test_what_stands_against_serving_is_named(readiness: Any) -> None:
    """A store that answers is well; a certificate that is not there is a reason."""
    _, ask = readiness
    status, said = await ask()
    assert status == 503
    assert "[+] store ok\n" in said
    assert "[-] tls " in said
    assert "vault" not in said, "nobody has tried it yet"


async def test_vault_is_a_warning_and_no_reason_to_be_unready(readiness: Any) -> None:
    """What can be served without it would be lost with it."""
    broker, ask = readiness
    session = broker.outside.vault.serving("transit")
    await session.look()
    _, said = await ask()
    assert "[!] vault denied for 'default' since " in said
    assert "/nowhere/at/all" in said
    assert "[-] vault" not in said
