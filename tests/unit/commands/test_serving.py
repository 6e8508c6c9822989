"""``penstock serve`` and ``penstock demo``: what they start, and how they fail."""

import logging
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

import broker.app
import broker.demo
from broker.app.kept_config import Beginning, KeptConfig, begin_with
from broker.issuance.errors import Broken, Unreachable
from broker.storage.faults import StoreLocked
from tests.unit.commands.conftest import Run
from tests.unit.config.conftest import write


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Leave the process's log as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_serve_runs_the_broker_of_the_configuration(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends with it."""
    served: list[Beginning] = []

    async def serve(first: Beginning) -> None:
        served.append(first)

    monkeypatch.setattr(broker.app, "serve", serve)
    assert run("serve")[0] == 0
    assert run("serve", "--follow", "--linger", "8")[0] == 0
    assert served[0].reading.config.external_url == "https://acme.corp.example"
    assert [first.is_following for first in served] == [False, True]
    assert [first.linger for first in served] == [timedelta(0), timedelta(seconds=8)]
    assert run("serve", "--linger", "-1")[0] == 2


def test_serve_goes_on_with_what_served_last(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the file is no use and the option says where that is; without it, it fails."""
    served: list[Beginning] = []

    async def serve(first: Beginning) -> None:
        served.append(first)

    monkeypatch.setattr(broker.app, "serve", serve)
    kept = begin_with(config).reading
    KeptConfig(tmp_path / "last-good.json").write(kept, kept)
    config.write_text("a: [")
    assert run("serve")[0] == 2
    assert run("serve", "--last-good", str(tmp_path / "last-good.json"))[0] == 0
    monkeypatch.setenv("PENSTOCK_LAST_GOOD", str(tmp_path / "last-good.json"))
    assert run("serve")[0] == 0
    assert [first.reading.text for first in served] == [kept.text] * 2
    assert all(first.error is not None for first in served)


def failing(error: Exception) -> Callable[[Beginning], Coroutine[Any, Any, None]]:
    """Return a broker that cannot start."""

    async def serve(first: Beginning) -> None:
        raise error

    return serve


@pytest.mark.parametrize("error", [Broken("port 8443 is taken"), Unreachable("port 8443 is taken")])
def test_broker_that_cannot_start_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In one sentence, without a traceback."""
    monkeypatch.setattr(broker.app, "serve", failing(error))
    status, _, err = run("serve")
    assert status != 0
    assert err == "penstock: error: port 8443 is taken\n"


def test_second_broker_is_told_of_the_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its process id; the configuration is not what is wrong, so the status is 1."""
    monkeypatch.setattr(broker.app, "serve", failing(StoreLocked(tmp_path / "penstock.db", 4711)))
    status, _, err = run("serve")
    assert status == 1
    assert "penstock.db is in use by process 4711\n" in err


def test_serve_starts_nothing_with_a_fault(run: Run, config: Path) -> None:
    """Exit status 2, and every fault."""
    config.write_text(write({"limits.body": 5}))
    status, _, err = run("serve")
    assert status == 2
    assert "limits.body" in err


class FakeDemo:
    """Remembers what was asked for; fails if it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Path | None, Path]] = []

    async def __call__(
        self, directory: Path | None, *, certbot: Path, say: Callable[[str], None]
    ) -> None:
        self.asked.append((directory, certbot))
        say("one step")
        if self.error is not None:
            raise self.error


def test_demo_runs_the_demonstration(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the client and the directory that were asked for; what it says is the output."""
    demo = FakeDemo()
    monkeypatch.setattr(broker.demo, "run_demo", demo)
    certbot = tmp_path / "certbot"
    done = run("demo", "--certbot", str(certbot), "--directory", str(tmp_path))
    assert done == (0, "one step\n", "")
    assert demo.asked == [(tmp_path, certbot)]


def test_demo_that_fails_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one sentence, after what it had said."""
    monkeypatch.setattr(broker.demo, "run_demo", FakeDemo(broker.demo.DemoFailed("no certbot")))
    done = run("demo", "--certbot", str(tmp_path / "certbot"))
    assert done == (1, "one step\n", "penstock: error: no certbot\n")


def test_demo_needs_a_client(run: Run) -> None:
    """It brings none of its own; `make demo` does."""
    status, _, err = run("demo")
    assert status == 2
    assert "--certbot" in err
