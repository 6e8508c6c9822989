"""The operator socket: who asked is what the kernel says, and only commands are commands."""

import asyncio
import getpass
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor
from broker.protocol.encoding import format_timestamp
from broker.protocol.problems import Problem, ProblemType
from broker.web.listeners import start_unix
from broker.web.operator import (
    COMMAND_PATH,
    COMMANDS,
    OperationError,
    create_operator_app,
    failure_of,
    perform,
    user_name,
)
from broker.web.rights import Caller
from tests.fakes.clock import START


class FakeOperations:
    """Remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Actor]] = []
        self.error: Exception | None = None

    async def eab_revoke(self, *, actor: Actor, key_id: str, community: str = "default") -> Any:
        self.asked.append((key_id, actor))
        if self.error is not None:
            raise self.error
        return {"key_id": key_id}

    async def status(self) -> Any:
        return {"version": "0.1.0"}

    async def drop_everything(self) -> Any:
        raise AssertionError("this is no command")


@pytest.fixture
def operations() -> FakeOperations:
    """What the socket leads to."""
    return FakeOperations()


@pytest.fixture
async def session(
    tmp_path: Path, operations: FakeOperations
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the operator socket."""
    path = tmp_path / "operator.sock"
    listener = await start_unix(create_operator_app(operations), path)  # type: ignore[arg-type]
    async with aiohttp.ClientSession(
        "http://localhost", connector=aiohttp.UnixConnector(str(path))
    ) as made:
        yield made
    await listener.stop()


async def post(session: aiohttp.ClientSession, body: object) -> tuple[int, Any]:
    """Return status and answer."""
    async with session.post(COMMAND_PATH, json=body) as answer:
        return answer.status, await answer.json()


async def test_command_is_done_for_whoever_the_kernel_names(
    session: aiohttp.ClientSession, operations: FakeOperations
) -> None:
    """Name and reason reach the event."""
    body = {"command": "eab_revoke", "arguments": {"key_id": "k1"}, "reason": "left the company"}
    assert await post(session, body) == (200, {"result": {"key_id": "k1"}})
    (asked,) = operations.asked
    assert asked == ("k1", Actor(f"operator:{getpass.getuser()}", "left the company"))


async def test_reading_command_takes_no_actor(session: aiohttp.ClientSession) -> None:
    """There is no event for it to enter."""
    assert await post(session, {"command": "status"}) == (200, {"result": {"version": "0.1.0"}})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"command": "drop_everything"}, "no command 'drop_everything'"),
        ({"command": "__init__"}, "no command '__init__'"),
        ({}, "no command 'None'"),
        ({"command": "eab_revoke"}, "arguments do not fit"),
        ({"command": "eab_revoke", "arguments": {"key": 1}}, "arguments do not fit"),
        ({"command": "status", "arguments": {"actor": "operator:root"}}, "do not fit"),
        ({"command": "status", "arguments": []}, "arguments are no object"),
        ({"command": "status", "reason": 5}, "reason is no text"),
        ({"command": "status", "reason": "x" * 501}, "at most 500 characters"),
        ([], "is not an object"),
    ],
    ids=["unlisted", "dunder", "none", "missing", "unknown", "actor", "list", "number", "long",
         "no-object"],
)  # fmt: skip
async def test_what_is_no_command_is_told_so(
    session: aiohttp.ClientSession, operations: FakeOperations, body: object, words: str
) -> None:
    """Only what the list names can be called."""
    status, answer = await post(session, body)
    assert status == 422
    assert words in answer["error"]
    assert operations.asked == []


async def test_actor_cannot_be_given(operations: FakeOperations) -> None:
    """Who asks is not for the asker to say."""
    with pytest.raises((OperationError, TypeError)):
        await perform(
            operations,  # type: ignore[arg-type]
            "eab_revoke",
            {"key_id": "k", "actor": "operator:root"},
            Actor("operator:me"),
        )
    assert operations.asked == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationError("no", "look"), {"error": "no", "hint": "look"}),
        (Problem(ProblemType.MALFORMED, "no such"), {"error": "no such", "hint": None}),
        (
            Refused(Problem(ProblemType.CAA, "no")),
            {"error": "the CA refused: no", "hint": None},
        ),
        (Unreachable("down"), {"error": "down", "hint": "try again later"}),
        (
            Unreachable("busy", retry_at=START),
            {"error": "busy", "hint": f"try again after {format_timestamp(START)}"},
        ),
        (Unreachable("down", hint="unseal"), {"error": "down", "hint": "unseal"}),
        (Broken("odd"), {"error": "odd", "hint": None}),
        (Conflict("gone"), {"error": "gone", "hint": None}),
    ],
    ids=[
        "operation",
        "problem",
        "refused",
        "unreachable",
        "unreachable-until",
        "unreachable-hint",
        "broken",
        "conflict",
    ],
)
async def test_outcome_is_told_in_its_words(
    session: aiohttp.ClientSession, operations: FakeOperations, error: Exception, told: object
) -> None:
    """An operator learns the reason, which clients do not."""
    operations.error = error
    body = {"command": "eab_revoke", "arguments": {"key_id": "k1"}}
    assert await post(session, body) == (422, told)
    assert failure_of(error) == told


async def test_unknown_failure_is_an_incident(
    session: aiohttp.ClientSession, operations: FakeOperations
) -> None:
    """Its text goes to the log alone."""
    operations.error = RuntimeError("hunter2")
    with capture_logs() as lines:
        status, answer = await post(
            session, {"command": "eab_revoke", "arguments": {"key_id": "k1"}}
        )
    assert status == 500
    assert "hunter2" not in str(answer)
    assert lines[0]["incident"] in answer["hint"]
    assert failure_of(RuntimeError()) is None


def test_commands_are_those_of_the_protocol() -> None:
    """The list is made from the Protocol, so neither can have what the other lacks."""
    assert {"eab_mint", "ca_init", "policy_explain", "status"} <= COMMANDS
    assert not any(name.startswith("_") for name in COMMANDS)


class People:
    """Knows two users of this host."""

    def __init__(self, owner: Caller | None, other: Caller | None) -> None:
        self._owner = owner
        self._other = other

    def by_user(self, user: str, *, is_owner: bool) -> Caller | None:
        return self._owner if is_owner else self._other


class Told:
    """A gate that tells who came."""

    async def perform(
        self, caller: Caller, command: str, arguments: Any, reason: str | None
    ) -> Any:
        return {"name": caller.name, "owner": caller.is_owner, "command": command}


JANE = Caller(name="jane", roles={}, is_person=True)

NOBODY_UID = 65_534
"""A user that owns no broker, in case these tests are run by root."""


def ask_as_another(path: Path) -> tuple[int, Any]:
    """Return what another user of this host is answered; or 599."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the test may run on in here, whatever happens.
        try:
            if os.getuid() == 0:
                os.setuid(NOBODY_UID)
            os.write(writing, _ask(path))
        except OSError as error:
            os.write(writing, f"HTTP/1.1 599\r\n\r\n{json.dumps(str(error))}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        head, _, said = answers.read().partition(b"\r\n\r\n")
    os.waitpid(child, 0)
    return int(head.split()[1]), json.loads(said)


def _ask(path: Path) -> bytes:
    body = b'{"command": "status"}'
    head = f"POST {COMMAND_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        (People(None, JANE), (200, {"name": "jane", "owner": False, "command": "status"})),
        (People(JANE, None), (403, "is no operator here")),
    ],
    ids=["named", "stranger"],
)
async def test_other_users_of_the_host_are_the_people_they_are_named_as(
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    people: People,
    expected: tuple[int, Any],
) -> None:
    """Where the socket is shared; who connects is what the kernel says."""
    if os.getuid() != 0:
        monkeypatch.setattr("broker.web.operator.os.geteuid", lambda: NOBODY_UID)
    app = create_operator_app(operations, gate=Told(), users=people)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - a directory that others may enter
        path = Path(folder) / "shared.sock"
        listener = await start_unix(app, path, is_shared=True)
        try:
            status, said = await asyncio.to_thread(ask_as_another, path)
        finally:
            await listener.stop()
    assert status == expected[0]
    assert said == {"result": expected[1]} if status == 200 else expected[1] in said["error"]


async def test_owner_who_is_named_is_that_person(
    tmp_path: Path, operations: FakeOperations
) -> None:
    """And one who is not is called as the user is."""
    for people, name in ((People(JANE, None), "jane"), (People(None, None), getpass.getuser())):
        app = create_operator_app(operations, gate=Told(), users=people)  # type: ignore[arg-type]
        path = tmp_path / f"{name}.sock"
        listener = await start_unix(app, path)
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            assert (await post(session, {"command": "status"}))[1]["result"]["name"] == name
        await listener.stop()


def test_user_without_a_name_has_a_number() -> None:
    """In containers there may be no line in /etc/passwd."""
    assert user_name(2**31 - 7) == f"uid-{2**31 - 7}"
