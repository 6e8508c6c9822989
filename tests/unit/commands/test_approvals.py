"""Commands about requests that people answer: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ROW = {"approval": "a1", "status": "waiting", "names": ["www.example.com"], "profile": "server"}


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["list"], "approval_list",
         {"limit": 100}),
        (["list", "--status", "all", "--community", "lab"], "approval_list",
         {"status": "all", "community": "lab", "limit": 100}),
        (["list", "--ending-within", "30d"], "approval_list",
         {"ending_within": "30d", "limit": 100}),
        (["show", "a1"], "approval_show", {"approval": "a1"}),
        (["approve", "a1", "--evidence", "ticket=7", "--evidence", "note=x"], "approval_approve",
         {"approval": "a1", "evidence": ["ticket=7", "note=x"], "names": [], "profiles": [],
          "owner": "", "contact": ""}),
        (["approve", "a1", "--name", "**.example.com", "--profile", "server", "--owner", "Carl"],
         "approval_approve",
         {"approval": "a1", "evidence": [], "names": ["**.example.com"], "profiles": ["server"],
          "owner": "Carl", "contact": ""}),
        (["deny", "a1"], "approval_deny", {"approval": "a1", "evidence": []}),
        (["renew", "a1"], "approval_renew", {"approval": "a1", "evidence": []}),
        (["suspend", "a1"], "approval_suspend", {"approval": "a1"}),
        (["resume", "a1"], "approval_resume", {"approval": "a1"}),
        (["withdraw", "a1"], "approval_withdraw", {"approval": "a1"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
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
    operations.answers |= {command: [ROW] if command == "approval_list" else ROW}
    status, out, err = run("approval", *arguments, *form)
    assert (status, err) == (0, "")
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    assert (asked, arguments_given) == (command, given)
    assert "www.example.com" in out


def test_reason_goes_along(run: Run, operations: FakeOperations) -> None:
    """With the answer that it is for."""
    operations.answers |= {"approval_deny": ROW}
    run("approval", "deny", "a1", "--reason", "nobody knows you")
    ((_, given),) = operations.asked
    assert given["actor"].reason == "nobody knows you"
