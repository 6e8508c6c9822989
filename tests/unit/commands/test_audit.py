"""Commands about the trail: what they ask for, and how they end."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker.commands.failures import CommandFailed
from broker.commands.remote import Server, choose
from broker.issuance.checkpoints import Checkpointing
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.fakes.clock import FakeClock
from tests.fakes.signer import FakeSigner
from tests.unit.commands.conftest import FakeOperations, Run
from tests.unit.issuance.test_checkpoints import KEY, OneKey


async def make_store(folder: Path, count: int = 3) -> str:
    """Write a store with so many records and a checkpoint; return the public key."""
    store = await SqliteStore.open(folder / "penstock.db")
    signer = FakeSigner()
    await signer.create_key(KEY, "ec-p256")
    for _ in range(count):
        await store.append(given.event(), durable=True)
    checkpointing = Checkpointing(
        store, OneKey(), signer, broker="https://acme.example", clock=FakeClock()
    )
    await checkpointing.take()
    _, pem = await checkpointing.public_key()
    await store.close()
    return pem


@pytest.mark.parametrize(
    ("arguments", "command", "answer"),
    [
        pytest.param(("status",), "audit_status", {"last_record": 7}, id="status"),
        pytest.param(("checkpoint",), "audit_checkpoint", {"jws": "a.b.c"}, id="checkpoint"),
        pytest.param(("public-key",), "audit_public_key", {"pem": "PEM\n"}, id="public-key"),
        pytest.param(
            ("trace", "o1"), "audit_trace", [{"record": 7, "kind": "order-created"}], id="trace"
        ),
    ],
)
def test_command_asks_the_broker(
    run: Run,
    operations: FakeOperations,
    arguments: tuple[str, ...],
    command: str,
    answer: object,
) -> None:
    """And shows what it answers."""
    operations.answers[command] = answer
    status, out, _ = run("audit", *arguments)
    assert (status, operations.asked[0][0]) == (0, command)
    assert any(word in out for word in ("7", "a.b.c", "PEM"))


def test_untouched_store_verifies(run: Run, config: Path, make: str) -> None:
    """In words and as JSON; what was not looked at is said."""
    status, out, _ = run("audit", "verify")
    assert status == 0
    assert "the chain fits" in out
    assert "give --public-key" in out
    key = config.with_name("key.pem")
    key.write_text(make)
    status, out, _ = run("audit", "verify", "--public-key", str(key), "--json")
    found = json.loads(out)
    assert (status, found["findings"], found["checkpoints"]["covered"]) == (0, [], 3)


def test_changed_store_fails(run: Run, config: Path, make: str) -> None:
    """With a status of its own, so that a schedule tells it from a broken command."""
    import sqlite3
    from contextlib import closing

    assert make
    with closing(sqlite3.connect(config.with_name("penstock.db"))) as db:
        db.execute("DROP TRIGGER events_stay_as_written")
        db.execute("UPDATE events SET actor = 'operator:nobody' WHERE seq = 2")
        db.commit()
    status, out, err = run("audit", "verify")
    assert status == 3
    assert "FINDING: record 2" in out
    assert "1 findings" in err


def test_export_is_read_back(run: Run, config: Path, make: str) -> None:
    """To standard output or into a new file, never over another."""
    target = config.with_name("export.jsonl")
    assert run("audit", "export", "--output", str(target))[0] == 0
    assert run("audit", "export", "--output", str(target))[0] == 1
    status, out, _ = run("audit", "export", "--after", "1")
    assert (status, len(out.splitlines())) == (0, 3)
    key = config.with_name("key.pem")
    key.write_text(make)
    arguments = ("--file", str(target), "--checkpoints", str(target), "--public-key", str(key))
    status, out, _ = run("audit", "verify", *arguments)
    assert (status, "records: 1 to 3" in out) == (0, True)


class ServerThere:
    """A broker elsewhere with an export of several pages."""

    def __init__(self, pages: Sequence[dict[str, Any]]) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def ask(self, server: Server, command: str, given: Any, *_: object) -> Any:
        """Answer with the next page."""
        assert (server.host, command) == ("acme.corp.example", "audit_export")
        self.asked.append(dict(given))
        if not self.pages:
            raise CommandFailed("it cannot be reached")
        return self.pages.pop(0)


def page(lines: Sequence[str], after: int, checkpoint: int, *, is_all: bool) -> dict[str, Any]:
    """Return a page of an export."""
    return {"lines": list(lines), "after": after, "checkpoint": checkpoint, "is_all": is_all}


RECORDS = [f'{{"digest":"d","record":{{"seq":{seq}}}}}' for seq in range(4)]
SIGNED = [f'{{"checkpoint":"a.b.c","seq":{seq}}}' for seq in range(4)]


@pytest.mark.parametrize(
    ("words", "first"),
    [(("verify",), "verify"), (("reconcile", "{log}"), "reconcile")],
    ids=["verify", "reconcile"],
)
@pytest.mark.usefixtures("elsewhere", "make")
def test_store_of_this_machine_is_not_taken_for_that_of_a_broker_elsewhere(
    run: Run, config: Path, words: tuple[str, ...], first: str
) -> None:
    """Nothing is read, and it is said what to do instead."""
    status, out, err = run("audit", *[word.format(log=config) for word in words])
    assert (status, out) == (2, "")
    assert f"'audit {first}' without --file is about this machine and takes no --server" in err
    assert "audit export --output FILE" in err


def test_file_is_verified_whatever_broker_elsewhere_is_named(
    run: Run, config: Path, make: str, request: pytest.FixtureRequest
) -> None:
    """It says itself what is read."""
    assert make
    target = config.with_name("export.jsonl")
    assert run("audit", "export", "--output", str(target))[0] == 0
    request.getfixturevalue("elsewhere")
    status, out, _ = run("audit", "verify", "--file", str(target))
    assert (status, "the chain fits" in out) == (0, True)


@pytest.mark.usefixtures("elsewhere", "make")
def test_export_of_a_broker_elsewhere_is_taken_page_by_page(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in its order, and not from the store beside; to standard output or into a file."""
    pages = [page([RECORDS[1], SIGNED[1]], 1, 1, is_all=False),
             page([RECORDS[2], RECORDS[3], SIGNED[3]], 3, 2, is_all=True)]  # fmt: skip
    lines = [RECORDS[1], SIGNED[1], RECORDS[2], RECORDS[3], SIGNED[3]]
    there = ServerThere(pages)
    monkeypatch.setattr("broker.commands.audit.ask_server", there.ask)
    status, out, _ = run("audit", "export")
    assert (status, out.splitlines()) == (0, lines)
    assert there.asked == [{"after": 0, "checkpoint": 0}, {"after": 1, "checkpoint": 1}]
    there.pages = list(pages)
    target = config.with_name("there.jsonl")
    status, _, err = run("audit", "export", "--output", str(target))
    assert (status, err) == (0, "5 lines\n")
    assert target.read_text("utf-8").splitlines() == lines


@pytest.mark.usefixtures("elsewhere")
def test_export_past_a_record_leaves_out_what_covers_none_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does beside the store."""
    there = ServerThere([page([SIGNED[1], SIGNED[2], RECORDS[3], SIGNED[3]], 3, 3, is_all=True)])
    monkeypatch.setattr("broker.commands.audit.ask_server", there.ask)
    status, out, _ = run("audit", "export", "--after", "2")
    assert (status, out.splitlines()) == (0, [RECORDS[3], SIGNED[3]])
    assert there.asked == [{"after": 2, "checkpoint": 0}]


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        pytest.param([page(RECORDS[1:2], 1, 0, is_all=False)], "cannot be reached", id="away"),
        pytest.param(
            [page(RECORDS[1:2], 1, 0, is_all=False), page([], 1, 0, is_all=False)],
            "does not go on after record 1",
            id="standing still",
        ),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_export_that_ends_early_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, pages: list[dict[str, Any]], words: str
) -> None:
    """A part is never taken for the whole."""
    monkeypatch.setattr("broker.commands.audit.ask_server", ServerThere(pages).ask)
    status, _, err = run("audit", "export")
    assert (status, words in err) == (1, True)


def test_reconcile_wants_a_log_of_vault(run: Run, config: Path, make: str) -> None:
    """Another file is told to be none."""
    assert make
    status, _, err = run("audit", "reconcile", str(config))
    assert status == 1
    assert "no entry of Vault" in err


def test_reconcile_tells_both_sides(run: Run, config: Path, make: str) -> None:
    """What is only in Vault's log is named, with a status of its own."""
    assert make
    log = config.with_name("audit.log")
    path = "transit/sign/penstock.audit/sha2-256"
    entry = {
        "time": "2026-03-01T12:00:00.1Z",
        "type": "response",
        "auth": {"display_name": "root"},
        "request": {"id": "r9", "operation": "update", "path": path},
    }
    log.write_text(json.dumps(entry) + "\n")
    status, out, err = run("audit", "reconcile", str(log), "--key", "transit/penstock.audit")
    assert status == 3
    assert "ONLY IN VAULT" in out
    assert "r9 by root" in out
    assert "1 signatures are in Vault's log alone" in err
    status, out, _ = run("audit", "reconcile", str(log))
    assert (status, "by another's key transit/penstock.audit: 1" in out) == (0, True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names a broker on another machine."""
    monkeypatch.setenv("PENSTOCK_SERVER", "https://acme.corp.example:8446")
    monkeypatch.setenv("PENSTOCK_TOKEN", "env:MY_TOKEN")
    yield
    choose(None)


@pytest.fixture
def make(tmp_path: Path) -> str:
    """A store beside the configuration; its checkpoints' public key."""
    import asyncio

    return asyncio.run(make_store(tmp_path))
