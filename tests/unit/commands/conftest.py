"""A configuration on disk, and operations that only remember."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import broker.app
from broker.cli import main
from broker.issuance.events import Actor
from tests.unit.config.conftest import write

ANSWERS: dict[str, Any] = {
    "status": {"version": "0.1.0", "counts": {"orders_valid": 1}, "suspensions": []},
    "order_show": {"order": "o1", "names": ["a.example"], "lever": "ask", "error": None},
    "order_list": [{"order": "o1", "status": "valid", "names": ["a.example", "b.example"]}],
    "cert_show": {"certificate": "c1", "chain_pem": "-----BEGIN CERTIFICATE-----\nMAA=\n"},
    "cert_list": [],
    "cert_revoke": {"certificate": "c1", "revoked": "2026-03-01T12:00:00Z"},
    "account_show": {"account": "a1"},
    "account_list": [{"account": "a1", "contacts": ["mailto:\x1b[31mx@example.com"]}],
    "account_deactivate": {"account": "a1", "status": "deactivated"},
    "eab_mint": {"key_id": "k1", "mac_key": "bWFj"},
    "eab_list": [{"key_id": "k1"}],
    "eab_revoke": {"key_id": "k1"},
    "upstream_list": [
        {
            "upstream": "local",
            "kind": "built-in",
            "accounts": [],
            "suspensions": [{"profile": None}],
        }
    ],
    "upstream_register": [{"upstream": "ca", "community": "default", "url": "https://ca/1"}],
    "upstream_check": [{"upstream": "ca", "community": "default", "faults": []}],
    "upstream_resume": {"upstream": "ca", "suspended": False},
    "ca_show": {"root": {"subject": "CN=Root"}},
    "ca_init": {
        "upstream": "local",
        "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----\n",
        "spki_sha256": "5be1",
    },
    "ca_accept": {"root": {"subject": "CN=Root"}},
    "ca_rotate_prepare": {
        "upstream": "local",
        "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----\n",
        "spki_sha256": "5be1",
    },
    "ca_rotate_activate": {"root": {"subject": "CN=Root"}},
    "ca_rotate_retire": {"root": {"subject": "CN=Root"}},
}


class FakeOperations:
    """Answers each command from a table, and remembers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers = dict(ANSWERS)
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        async def answer(*, actor: Actor | None = None, **arguments: Any) -> Any:
            self.asked.append((name, {**arguments, "actor": actor}))
            if self.error is not None:
                raise self.error
            return self.answers[name]

        return answer


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> FakeOperations:
    """What commands are done by, since no broker runs."""
    made = FakeOperations()

    @asynccontextmanager
    async def open_offline(config: object) -> AsyncIterator[FakeOperations]:
        yield made

    monkeypatch.setattr(broker.app, "open_offline", open_offline)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The smallest configuration, with its state in the test's own directory."""
    path = tmp_path / "penstock.yaml"
    path.write_text(write({"state": str(tmp_path)}))
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command and return its exit status, output and talk."""
    monkeypatch.setenv("PENSTOCK_CONFIG", str(config))

    def do(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return do
