"""The gate that every command passes: who asks, where it is done, and whether they may.

Socket and API have it in common, so that a right holds by whatever way a person comes.  What is of
another community is not there for who has no role in it: the answer is the one for what does not
exist.  Each refusal is an event, with who asked and how they were known.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import structlog

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import Clock
from broker.policy.roles import EVERYWHERE
from broker.web.operator import COMMANDS, Json, OperationError, Operations, perform
from broker.web.rights import READING, RIGHTS, Caller, Reference, Right, Thing

__all__ = ["Belonging", "Gate", "NotAllowed", "Record"]

MAX_ROWS: Final = 1000
"""Most rows that are asked of a command at a time when those of others are left out."""

Record = Callable[[Event], Awaitable[None]]
"""Keeps an event."""

_log = structlog.get_logger("penstock.operator")


class NotAllowed(OperationError):
    """A command that is not for who asked; the message is for them."""


class Belonging(Protocol):
    """Knows which community a thing is of."""

    async def communities_of(self, thing: Thing, reference: str) -> frozenset[str]:
        """Return the communities of what *reference* names; none when there is no such thing."""
        ...


class Gate:
    """Lets commands through to those who may have them done."""

    def __init__(
        self,
        operations: Operations,
        belonging: Belonging,
        *,
        clock: Clock,
        record: Record,
        has_approvers: Callable[[], bool] = lambda: False,
    ) -> None:
        """Stand before *operations*; *has_approvers* tells whether anybody is named as one."""
        self._operations = operations
        self._belonging = belonging
        self._clock = clock
        self.record = record
        self._has_approvers = has_approvers

    async def perform(
        self,
        caller: Caller,
        command: str,
        arguments: Mapping[str, object],
        reason: str | None = None,
    ) -> Json:
        """Have *command* done for *caller* and return what of the answer is for them.

        Raises:
            NotAllowed: They may not; an event tells it.
            OperationError: There is no such command or thing, and whatever the command raises.
        """
        right = RIGHTS.get(command)
        if command not in COMMANDS or right is None:
            raise OperationError(f"there is no command '{command[:64]}'")
        actor = Actor(f"operator:{caller.name}", reason)
        try:
            narrowed = await self._verify(caller, command, right, arguments)
        except NotAllowed as refusal:
            await self._note(refusal, caller, command, actor)
            raise
        if right.by_rows and not caller.held(EVERYWHERE) & right.roles:
            return await self._own_rows(caller, command, narrowed, actor)
        return await perform(self._operations, command, narrowed, actor)

    # ------------------------------------------------------------------------------ the decision

    async def _verify(
        self, caller: Caller, command: str, right: Right, arguments: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Return the arguments, with the community that they leave to be understood."""
        if right.is_personal and self._has_approvers():
            if not caller.is_person:
                raise NotAllowed(
                    f"command '{command}' takes a person, and '{caller.name}' is none that the "
                    "configuration names",
                    "come with a certificate or token of your own, or name the user in operators",
                )
            # Whoever owns the broker has here what is written beside their name, and no more.
            caller = replace(caller, is_owner=False)
        if caller.held(EVERYWHERE) & right.roles:
            return arguments
        if right.by_rows:
            if not any(caller.held(one) & right.roles for one in caller.communities()):
                raise NotAllowed(f"command '{command}' takes {_wanted(right)} in some community")
            return arguments
        given = dict(arguments)
        await self._verify_place(caller, command, right, given)
        return given

    async def _verify_place(
        self, caller: Caller, command: str, right: Right, given: dict[str, object]
    ) -> None:
        found = _references(command, right, given, caller)
        if not found:
            raise NotAllowed(
                f"command '{command}' takes {_wanted(right)} everywhere ('*')",
                f"'{caller.name}' has {_had(caller)}",
            )
        places: set[str] = set()
        for reference, value in found:
            if reference.thing is Thing.COMMUNITY:
                given[reference.argument] = value
                of = frozenset({value})
            else:
                of = await self._belonging.communities_of(reference.thing, value)
            if not of or not all(caller.held(place) for place in of):
                raise _not_seen(reference.thing, value)
            places |= of
        for place in sorted(places):
            if not caller.held(place) & right.roles:
                raise NotAllowed(
                    f"command '{command}' takes {_wanted(right)} in community '{place}'",
                    f"'{caller.name}' has {_had(caller)}",
                )

    async def _note(self, refusal: NotAllowed, caller: Caller, command: str, actor: Actor) -> None:
        _log.warning("command refused", command=command, caller=caller.name, why=refusal.message)
        data = {"command": command, "why": refusal.message, **caller.proof}
        kind = EventKind.OPERATOR_REFUSED
        await self.record(Event(kind=kind, at=self._clock.now(), actor=actor, data=data))

    # ----------------------------------------------------------------------------------- the rows

    async def _own_rows(
        self, caller: Caller, command: str, arguments: Mapping[str, object], actor: Actor
    ) -> Json:
        """Return those rows of the answer that are of communities where *caller* has a role."""
        right = RIGHTS[command]
        parameters = inspect.signature(getattr(Operations, command)).parameters
        has_limit = "limit" in parameters
        limit = arguments.get("limit", parameters["limit"].default) if has_limit else None
        asked = dict(arguments) | ({"limit": MAX_ROWS} if has_limit else {})
        kept: list[Any] = []
        while True:
            page = await perform(self._operations, command, asked, actor)
            kept += [row for row in page if caller.held(str(row.get("community"))) & right.roles]
            is_last = right.page_by is None or len(page) < MAX_ROWS
            if isinstance(limit, int) and len(kept) >= limit:
                return kept[:limit]
            if is_last:
                return kept
            asked["after"] = page[-1][right.page_by]


def _references(
    command: str, right: Right, given: Mapping[str, object], caller: Caller
) -> list[tuple[Reference, str]]:
    """Return every argument that names a thing; without one, that which names the community."""
    things = [
        (reference, str(given[reference.argument]))
        for reference in right.references
        if reference.thing is not Thing.COMMUNITY and given.get(reference.argument) is not None
    ]
    if things:
        return things
    parameters = inspect.signature(getattr(Operations, command)).parameters
    for reference in right.references:
        if reference.thing is Thing.COMMUNITY:
            value = given.get(reference.argument)
            if value is None:
                value = _understood(parameters[reference.argument].default, caller, right)
            return [] if value is None else [(reference, str(value))]
    return []


def _understood(default: object, caller: Caller, right: Right) -> str | None:
    """Return the community that is meant where none is named."""
    if isinstance(default, str):
        return default
    own = [one for one in caller.communities() if caller.held(one) & right.roles]
    if len(own) > 1:
        raise OperationError(
            "the community has to be named, for you have roles in several",
            f"one of {', '.join(own)}",
        )
    return own[0] if own else None


def _not_seen(thing: Thing, reference: str) -> NotAllowed:
    # The same words whether it is of another community or of none: nobody learns what there is.
    if thing is Thing.COMMUNITY:
        return NotAllowed(f"community '{reference[:64]}' is none in which you have a role")
    return NotAllowed(f"there is no {thing} '{reference[:128]}' in a community of yours")


def _wanted(right: Right) -> str:
    if right.roles >= READING:
        return "any role"
    return f"the role {' or '.join(sorted(right.roles))}"


def _had(caller: Caller) -> str:
    held = [
        f"{' and '.join(sorted(roles))} in '{place}'"
        for place, roles in sorted(caller.roles.items())
        if roles
    ]
    return ", ".join(held) or "no role anywhere"
