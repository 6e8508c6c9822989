"""Rights: every command has its line, each line fits its command, and some roles stay apart."""

import inspect

import pytest

from broker.policy.roles import EVERYWHERE, Role
from broker.web.operator import COMMANDS, Operations
from broker.web.rights import RIGHTS, Caller, Thing

CHANGING = sorted(
    name for name in COMMANDS if "actor" in inspect.signature(getattr(Operations, name)).parameters
)


def test_every_command_has_its_line() -> None:
    """A command that is not in the table is done for nobody, and one too many is no command."""
    assert set(RIGHTS) == COMMANDS


def test_table_is_in_order() -> None:
    """It is read by people."""
    assert list(RIGHTS) == sorted(RIGHTS)


@pytest.mark.parametrize("command", sorted(set(RIGHTS) & COMMANDS))
def test_references_are_arguments_of_the_command(command: str) -> None:
    """A line that names another argument would find no community."""
    arguments = inspect.signature(getattr(Operations, command)).parameters
    assert {one.argument for one in RIGHTS[command].references} <= set(arguments)


@pytest.mark.parametrize("command", sorted(set(CHANGING) & set(RIGHTS)))
def test_what_changes_something_is_not_for_everybody(command: str) -> None:
    """A viewer sees and changes nothing; an auditor the audit alone."""
    assert Role.VIEWER not in RIGHTS[command].roles


@pytest.mark.parametrize("command", sorted(set(RIGHTS) & COMMANDS))
def test_no_line_is_for_nobody(command: str) -> None:
    """A command without a role is one that was forgotten."""
    assert RIGHTS[command].roles


@pytest.mark.parametrize("command", sorted(set(RIGHTS) & COMMANDS))
def test_rows_and_references_exclude_each_other(command: str) -> None:
    """A list is narrowed by its rows, or by its argument, and not by half of each."""
    right = RIGHTS[command]
    assert not (right.by_rows and right.references)


def test_roles_everywhere_are_held_in_each_community() -> None:
    """And those of one community in no other."""
    caller = Caller(
        name="jane",
        roles={EVERYWHERE: frozenset({Role.VIEWER}), "web": frozenset({Role.OPERATOR})},
    )
    assert caller.held("web") == {Role.VIEWER, Role.OPERATOR}
    assert caller.held("mail") == {Role.VIEWER}
    assert caller.held(EVERYWHERE) == {Role.VIEWER}
    assert caller.communities() == ["web"]


def test_owner_of_the_broker_holds_every_role() -> None:
    """They could change the store itself."""
    assert Caller(name="root", roles={}, is_owner=True).held("web") == frozenset(Role)


def test_every_thing_stands_in_the_table_or_awaits_its_command() -> None:
    """A kind of thing that no command names is a leftover."""
    named = {one.thing for right in RIGHTS.values() for one in right.references}
    assert set(Thing) - named <= {Thing.APPROVAL}
