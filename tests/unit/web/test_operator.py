"""The operator socket: who asked is what the kernel says, and only commands are commands."""

import getpass
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


def test_user_without_a_name_has_a_number() -> None:
    """In containers there may be no line in /etc/passwd."""
    assert user_name(2**31 - 7) == f"uid-{2**31 - 7}"
