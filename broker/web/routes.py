"""Where each command is found in the operator API, and what it takes: read off its own signature.

The path is in the words of the command line: ``penstock order list`` is ``/v1/order/list``.  What
changes nothing and takes nothing but single words is a GET with a query; all else is a POST with a
JSON object.  Nothing is written by hand, so no command can be forgotten, and none can be elsewhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from broker.web.operator import COMMANDS, OperationError, Operations
from broker.web.shapes import NotOfShape, check_value, from_text, is_scalar

__all__ = ["ROOT", "Argument", "Route", "body_arguments", "query_arguments", "route_of", "routes"]

ROOT: Final = "/v1"
"""What every path begins with.  Members may be added to answers and arguments under it; whatever
would break somebody gets another number."""

REASON: Final = "reason"
"""The member of a body that tells why, for the event.  No command has an argument of that name."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command."""

    name: str
    shape: Any
    default: object
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A command as the API has it."""

    command: str
    method: str
    path: str
    arguments: Mapping[str, Argument]
    answer: Any
    """The type of what it answers."""
    is_changing: bool
    """Whether it takes an actor, who enters an event."""


@functools.cache
def route_of(command: str) -> Route:
    """Return where *command* is found.

    Raises:
        KeyError: There is no such command.
    """
    if command not in COMMANDS:
        raise KeyError(command)
    method = getattr(Operations, command)
    hints = get_type_hints(method)
    parameters = inspect.signature(method).parameters
    arguments = {
        name: Argument(name, hints[name], one.default, one.default is inspect.Parameter.empty)
        for name, one in parameters.items()
        if name not in ("self", "actor")
    }
    is_changing = "actor" in parameters
    is_plain = all(is_scalar(one.shape) for one in arguments.values())
    group, _, verb = command.partition("_")
    return Route(
        command=command,
        method="GET" if is_plain and not is_changing else "POST",
        path="/".join(filter(None, (ROOT, group, verb.replace("_", "-")))),
        arguments=arguments,
        answer=hints["return"],
        is_changing=is_changing,
    )


def routes() -> list[Route]:
    """Return the routes of all commands, by name."""
    return [route_of(command) for command in sorted(COMMANDS)]


def query_arguments(route: Route, query: Mapping[str, str], count: int) -> dict[str, object]:
    """Return the arguments that a query of *count* pairs gives.

    Raises:
        OperationError: It does not fit the command.
    """
    if count != len(query):
        raise OperationError("an argument stands twice in the query")
    given: dict[str, object] = {}
    for name, text in query.items():
        argument = _known(route, name)
        try:
            given[name] = from_text(argument.shape, text)
        except NotOfShape as error:
            raise OperationError(f"argument '{name}' {error}") from None
    return _verified(route, given)


def body_arguments(route: Route, body: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments that a JSON object gives; ``reason`` is none of them.

    Raises:
        OperationError: It does not fit the command.
    """
    given = {name: value for name, value in body.items() if name != REASON}
    for name in given:
        _known(route, name)
    return _verified(route, given)


def _known(route: Route, name: str) -> Argument:
    argument = route.arguments.get(name)
    if argument is None:
        known = ", ".join(route.arguments) or "none"
        raise OperationError(
            f"there is no argument '{name[:64]}' of {route.path}", f"it takes {known}"
        )
    return argument


def _verified(route: Route, given: dict[str, object]) -> dict[str, object]:
    for name, argument in route.arguments.items():
        if name not in given:
            if argument.is_required:
                raise OperationError(f"argument '{name}' of {route.path} is missing")
            continue
        try:
            check_value(argument.shape, given[name])
        except NotOfShape as error:
            raise OperationError(f"argument '{name}' {error}") from None
    return given
