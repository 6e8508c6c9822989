"""The worker of a DNS provider, as far as what it is told and how its answers are taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams import provider
from broker.upstreams.children import ChildResult
from broker.upstreams.placement import PlacedRecord, ZoneLocks
from broker.upstreams.provider import ProviderSettings, ProviderZone
from tests.fakes.zones import FakeZoneMap

SETTINGS = ProviderSettings(
    provider="powerdns",
    zone="acme.example",
    options={"pdns_server": "http://10.0.0.53"},
    secrets={"auth_token": "hush"},
    proxy="http://user:pass@proxy.example:3128",
)
PLACED = PlacedRecord("acme.example.", "a.acme.example.", "value")


class FakeWorker:
    """Remembers how it was run, and answers as it is told."""

    def __init__(self, output: bytes, status: int = 0) -> None:
        self.result = ChildResult(status, output, b"it said hush")
        self.runs: list[tuple[list[str], dict[str, Any], dict[str, str]]] = []

    async def __call__(
        self, command: list[str], *, given: bytes, environment: dict[str, str], **_more: object
    ) -> ChildResult:
        self.runs.append((command, json.loads(given), environment))
        return self.result


def zone(monkeypatch: pytest.MonkeyPatch, worker: FakeWorker) -> ProviderZone:
    """Return a zone whose worker is *worker*."""
    monkeypatch.setattr(provider, "run_child", worker)
    return ProviderZone(SETTINGS, ZoneLocks(), zones=FakeZoneMap())


async def test_the_worker_is_told_by_its_input_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is in its arguments; the zone and the name have no dot at their end."""
    worker = FakeWorker(b'{"done": true, "confined": ["files"]}')
    await zone(monkeypatch, worker).remove(PLACED)
    ((command, task, environment),) = worker.runs
    assert command[1:] == ["-I", "-B", str(provider.WORKER)]
    assert task == {
        "provider": "powerdns",
        "zone": "acme.example",
        "action": "cleanup",
        "name": "a.acme.example",
        "value": "value",
        "ttl_seconds": 120,
        "options": {"pdns_server": "http://10.0.0.53"},
        "secrets": {"auth_token": "hush"},
        "files": [],
    }
    assert environment["HTTPS_PROXY"] == SETTINGS.proxy


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        pytest.param(b"", Broken, "no answer, see the log", id="nothing"),
        pytest.param(b"[1]", Broken, "no answer, see the log", id="nonsense"),
        pytest.param(
            b'{"done": false, "error": "HTTPError", "status": 503, "passing": true}',
            Unreachable,
            r"failed \(HTTPError, status 503\)",
            id="passing",
        ),
        pytest.param(
            b'{"done": false, "error": "AuthenticationError", "status": null}',
            Broken,
            r"is refused \(AuthenticationError\)",
            id="refused",
        ),
        pytest.param(
            b'{"done": false, "error": "ModuleNotFoundError", "missing": "lexicon"}',
            Broken,
            r"expected penstock\[dns\]",
            id="library",
        ),
        pytest.param(
            b'{"done": false, "error": "ModuleNotFoundError", "missing": "boto3"}',
            Broken,
            "needs the Python package 'boto3'",
            id="package",
        ),
    ],
)
async def test_a_failure_is_ours_to_mend(
    monkeypatch: pytest.MonkeyPatch, output: bytes, kind: type[Exception], words: str
) -> None:
    """Never a refusal of the order; the secret is in no sentence."""
    with pytest.raises(kind, match=words) as caught:
        await zone(monkeypatch, FakeWorker(output)).remove(PLACED)
    assert "hush" not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    """Settings are printed when something is wrong with them."""
    assert "hush" not in repr(SETTINGS)
    assert "pass@" not in repr(SETTINGS)


def test_one_lock_for_each_zone() -> None:
    """Whoever changes a zone waits for the others that do."""
    locks = ZoneLocks()
    assert locks.of("a", "x.") is locks.of("a", "x.")
    assert locks.of("a", "x.") is not locks.of("a", "y.")
