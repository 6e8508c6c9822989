"""What probes are told while one turn of a broker follows the other.

The listener itself is tried in tests/contract/app/test_turns.py.
"""

from pathlib import Path

import aiohttp
import pytest

from broker.app import health_port
from broker.app.health_port import HealthPort
from broker.web.listeners import start_unix


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for little."""
    monkeypatch.setattr(health_port, "WAIT_SECONDS", 0.01)


async def test_probe_that_comes_between_two_turns_is_told_the_reason(tmp_path: Path) -> None:
    """The process lives, nobody is served, and there are no metrics to be had."""
    port, path = HealthPort(), tmp_path / "health.sock"
    listener = await start_unix(port.app(), path)
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://health", connector=connector) as session:

        async def ask(what: str) -> tuple[int, str]:
            async with session.get(what) as answer:
                return answer.status, await answer.text()

        assert await ask("/readyz") == (503, "[-] serving not serving yet\nnot ready\n")
        port.say("going on by another configuration")
        assert await ask("/livez") == (200, "ok\n")
        assert await ask("/readyz") == (
            503,
            "[-] serving going on by another configuration\nnot ready\n",
        )
        assert (await ask("/metrics"))[0] == 503
        port.say("the broker is ending", is_passing=False)
        assert (await ask("/readyz"))[1] == "[-] serving the broker is ending\nnot ready\n"
    await listener.stop()
