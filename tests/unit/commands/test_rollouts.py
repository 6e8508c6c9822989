"""Commands about rollout groups: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ROW = {"group": "web", "status": "halted", "under_way": 0, "waiting": 3, "why": "canary failed"}


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["rollout", "list"], "rollout_list", {}),
        (["rollout", "show", "web"], "rollout_show", {"group": "web"}),
        (["rollout", "halt", "web"], "rollout_halt", {"group": "web"}),
        (["rollout", "resume", "web"], "rollout_resume", {"group": "web"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_command_asks_for_what_its_line_says(
    run: Run,
    operations: FakeOperations,
    arguments: list[str],
    command: str,
    given: dict[str, Any],
    form: list[str],
) -> None:
    """And prints what it was answered."""
    operations.answers |= {command: [ROW] if command == "rollout_list" else ROW}
    status, out, err = run(*arguments, *form)
    assert (status, err) == (0, "")
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    assert (asked, arguments_given) == (command, given)
    assert "canary failed" in out
