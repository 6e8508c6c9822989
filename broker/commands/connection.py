"""How a command gets done: by the running broker, or, when none runs, here.

The operator socket is asked first.  When nobody answers there, the store is opened with its
exclusive lock, so that a broker that starts meanwhile waits or fails instead of racing.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from broker.commands.failures import CommandFailed, readable
from broker.commands.options import LAST_GOOD
from broker.commands.remote import ask_server, chosen

__all__ = ["ask", "ask_running", "working"]

ANSWER_SECONDS: Final = 180
"""Longest wait for the running broker: registering at a CA that is slow takes a minute or two."""

SPINNER_SECONDS: Final = 0.2
"""Pause between two pictures of the spinner, in seconds."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


def ask(
    config_path: Path, command: str, arguments: Mapping[str, object], reason: str | None = None
) -> Any:
    """Have *command* done and return its answer.

    Raises:
        CommandFailed: It could not be done; says why.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    server = chosen()
    if server is not None:
        with working(f"{command.replace('_', ' ')} …"):
            return ask_server(server, command, given, reason, ANSWER_SECONDS)
    from broker.config import load_config
    from broker.issuance.errors import Broken
    from broker.policy.yamlfile import Faults

    body = json.dumps({"command": command, "arguments": given, "reason": reason})
    with readable():
        try:
            config = load_config(config_path)
        except (Broken, Faults):
            answer = _ask_past_the_file(body)
            if answer is None:
                raise
            return answer["result"]
    with working(f"{command.replace('_', ' ')} …"):
        answer = _ask_running(config.operator_socket, body) or _ask_past_the_file(body)
        if answer is not None:
            return answer["result"]
        import asyncio

        with readable():
            return asyncio.run(_do_here(config, command, given, reason))


def _ask_past_the_file(body: str) -> dict[str, Any] | None:
    """Return what a broker answers that serves by the kept configuration and not by the file.

    None where none is kept, or nobody serves by it.
    """
    named = os.environ.get(LAST_GOOD)
    if not named:
        return None
    from broker.app.kept_config import KeptConfig

    kept = KeptConfig(Path(named)).read()
    return None if kept is None else _ask_running(kept.reading.config.operator_socket, body)


def ask_running(path: Path, command: str) -> Any | None:
    """Return what the broker at the operator socket *path* answers to *command*, None without one.

    Raises:
        CommandFailed: It cannot be asked, or could not answer.
    """
    answer = _ask_running(path, json.dumps({"command": command, "arguments": {}, "reason": None}))
    return None if answer is None else answer["result"]


def _ask_running(path: Path, body: str) -> dict[str, Any] | None:
    """Return the running broker's answer, or None when no broker runs."""
    from broker.web.rights import COMMAND_PATH

    connection = _UnixConnection(path)
    try:
        connection.connect()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise CommandFailed(
            f"operator socket {path} is not for this user", "run it as the broker's user, or root"
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"operator socket {path} cannot be used: {reason}") from error
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", COMMAND_PATH, body=body, headers=headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandFailed(
            f"the broker at {path} gave no usable answer: {error}",
            "whether it was done is not known: look before asking again",
        ) from error
    finally:
        connection.close()
    if "result" not in answer:
        raise CommandFailed(str(answer.get("error")), answer.get("hint"))
    return answer


async def _do_here(
    config: Any, command: str, arguments: Mapping[str, object], reason: str | None
) -> Any:
    from broker.app import open_offline
    from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
    from broker.issuance.events import Actor
    from broker.protocol.problems import Problem
    from broker.web.operator import OperationError, failure_of, perform, user_name

    _verify_impersonal(config, command)
    actor = Actor(f"operator:{user_name(os.getuid())}", reason)
    _log_beside()
    try:
        async with open_offline(config) as operations:
            return await perform(operations, command, arguments, actor)
    except (OperationError, Problem, Refused, Unreachable, Broken, Conflict) as error:
        failure = failure_of(error) or {}
        raise CommandFailed(str(failure.get("error")), failure.get("hint")) from error


def _verify_impersonal(config: Any, command: str) -> None:
    """Refuse what takes a person who is known: here it is anybody who can read the store."""
    from broker.policy.roles import Role
    from broker.web.rights import RIGHTS

    right = RIGHTS.get(command)
    people = config.operators.people.values() if config.operators is not None else ()
    if right is None or not right.is_personal:
        return
    if any(Role.APPROVER in roles for one in people for roles in one.roles.values()):
        raise CommandFailed(
            f"{command.replace('_', ' ')} takes a running broker, which knows who asks",
            "start it, see penstock serve",
        )


def _log_beside() -> None:
    """Have the log go where it is not taken for the answer."""
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on; elsewhere say nothing."""
    if not sys.stderr.isatty():
        yield
        return
    is_done = threading.Event()

    def spin() -> None:
        seconds = 0.0
        while not is_done.wait(SPINNER_SECONDS):
            seconds += SPINNER_SECONDS
            if seconds >= 1:
                print(f"\r{what} {seconds:.0f} s", end="", file=sys.stderr, flush=True)
        if seconds >= 1:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        yield
    finally:
        is_done.set()
        spinner.join()
