"""A command is done by the running broker, or here when none runs."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import structlog

from broker.app.kept_config import KeptConfig, begin_with
from broker.commands import connection
from broker.commands.failures import CommandFailed
from broker.issuance.errors import Broken
from broker.web.listeners import start_unix
from broker.web.operator import create_operator_app
from tests.unit.commands.conftest import FakeOperations, Run
from tests.unit.config.conftest import write


class Desk:
    """The operations of a running broker."""

    async def order_show(self, *, order_id: str) -> Any:
        if order_id == "none":
            raise Broken("there is no order 'none'")
        return {"order": order_id, "by": "the running broker"}

    async def key_check(self) -> Any:
        key = "vault:t/k#1"
        return [{"key": key, "use": "account", "kind": "barring", "finding": "it rotates"}]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A running broker's operator socket, served by a thread of its own."""
    path = tmp_path / "operator.sock"
    ready, stop = Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        listener = await start_unix(create_operator_app(Desk()), path)  # type: ignore[arg-type]
        ready.set()
        await stop.wait()
        await listener.stop()

    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield path
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


@pytest.mark.usefixtures("running")
def test_running_broker_is_asked_first(run: Run, operations: FakeOperations) -> None:
    """The store is its own; nobody opens it behind its back."""
    status, out, _ = run("order", "show", "o1", "--json")
    assert (status, json.loads(out)["by"]) == (0, "the running broker")
    assert operations.asked == []


@pytest.mark.parametrize("text", ["a: [", None], ids=["broken", "another-socket"])
@pytest.mark.usefixtures("running")
def test_broker_that_serves_by_a_kept_configuration_is_found(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """Whatever the file says now: a person has to see why it is refused."""
    kept = begin_with(config).reading
    path = tmp_path / "last-good.json"
    KeptConfig(path).write(kept, kept)
    config.write_text(text or write({"listen.operator": {"socket": str(tmp_path / "none.sock")}}))
    monkeypatch.setenv("PENSTOCK_LAST_GOOD", str(path))
    status, out, _ = run("order", "show", "o1", "--json")
    assert (status, json.loads(out)["by"]) == (0, "the running broker")


@pytest.mark.usefixtures("running")
def test_broken_file_is_told_where_nothing_is_kept(run: Run, config: Path) -> None:
    """As ever."""
    config.write_text("a: [")
    status, out, err = run("order", "show", "o1", "--json")
    assert (status, out) == (2, "")
    assert "is not YAML" in err


@pytest.mark.usefixtures("running")
def test_refusal_of_the_running_broker_is_told(run: Run, operations: FakeOperations) -> None:
    """In its words, with exit status 1."""
    status, out, err = run("order", "show", "none")
    assert (status, out) == (1, "")
    assert err == "penstock: error: there is no order 'none'\n"


@pytest.mark.parametrize("has_vault", [True, False], ids=["vault", "files"])
@pytest.mark.usefixtures("running")
def test_running_broker_is_asked_about_its_keys_in_vault(
    run: Run, operations: FakeOperations, config: Path, has_vault: bool
) -> None:
    """Without --online as well: it has asked Vault, so whoever checks here need not."""
    login = {"method": "certificate", "certificate": "/a.crt", "key": "/a.key"}
    vault = {"addresses": ["https://vault.corp.example:8200"], "serve": login}
    changes: dict[str, object] = {"vault": vault} if has_vault else {}
    config.write_text(write({"state": str(config.parent), **changes}))
    status, _, err = run("check")
    assert status == (2 if has_vault else 0)
    assert ("penstock: error: account: it rotates" in err) == has_vault
    assert operations.asked == []


def test_broker_that_cannot_be_asked_about_its_keys_is_told(run: Run, config: Path) -> None:
    """A configuration can be checked by who may not command the broker; it is odd all the same."""
    login = {"method": "certificate", "certificate": "/a.crt", "key": "/a.key"}
    vault = {"addresses": ["https://vault.corp.example:8200"], "serve": login}
    socket = {"socket": f"{config}/operator.sock"}
    config.write_text(
        write({"state": str(config.parent), "vault": vault, "listen.operator": socket})
    )
    status, _, err = run("check")
    assert status == 0
    assert "penstock: warning: keys in Vault: the broker that runs here was not asked" in err
    assert run("check", "--strict")[0] == 3


def test_without_a_broker_it_is_done_here(run: Run, operations: FakeOperations) -> None:
    """With the store's lock."""
    status, out, _ = run("order", "show", "o1", "--json")
    assert (status, json.loads(out)["order"]) == (0, "o1")
    assert len(operations.asked) == 1


def test_failure_here_is_told_the_same_way(run: Run, operations: FakeOperations) -> None:
    """Whichever way a command is done, it fails in one form."""
    operations.error = Broken("there is no order 'o1'")
    status, _, err = run("order", "show", "o1")
    assert (status, err) == (1, "penstock: error: there is no order 'o1'\n")


def test_socket_that_cannot_be_there_is_a_failure(
    run: Run, operations: FakeOperations, config: Path
) -> None:
    """Whether a broker runs is not known, so nothing is done behind its back."""
    config.write_text(write({"listen.operator": {"socket": f"{config}/operator.sock"}}))
    status, _, err = run("order", "show", "o1")
    assert status == 1
    assert f"operator socket {config}/operator.sock cannot be used: not a directory" in err
    assert operations.asked == []


def test_missing_configuration_is_misuse(run: Run, tmp_path: Path) -> None:
    """Nothing is tried without one."""
    status, _, err = run("order", "show", "o1", "--config", str(tmp_path / "gone.yaml"))
    assert status == 2
    assert "gone.yaml cannot be read: no such file" in err


def test_nonsense_from_the_socket_leaves_the_outcome_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told to look before asking again."""

    class Odd:
        def __init__(self, path: Path) -> None:
            pass

        def connect(self) -> None:
            pass

        def request(self, *_: object, **__: object) -> None:
            raise ConnectionResetError("reset")

        def close(self) -> None:
            pass

    monkeypatch.setattr(connection, "_UnixConnection", Odd)
    with pytest.raises(CommandFailed, match="no usable answer") as caught:
        connection._ask_running(tmp_path, "{}")
    assert "look before asking again" in str(caught.value.hint)


def test_waiting_says_nothing_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A log is no place for a spinner."""
    with connection.working("waiting"):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_is_logged_here_is_no_part_of_the_answer(
    run: Run, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the data reads nothing else."""
    show = operations.order_show

    async def tell(**given: Any) -> Any:
        structlog.get_logger("penstock").warning("said beside")
        return await show(**given)

    monkeypatch.setattr(operations, "order_show", tell, raising=False)
    kept = structlog.get_config()
    try:
        status, out, said = run("order", "show", "o1", "--json")
    finally:
        structlog.configure(**kept)
    assert status == 0
    json.loads(out)
    assert "said beside" in said
