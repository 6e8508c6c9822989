"""Commands about nodes: what they ask for, what they print."""

import json
from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

GRANT = {"community": "default", "names": [], "profiles": [], "owner": "", "contact": ""}


@pytest.fixture(autouse=True)
def answers(operations: FakeOperations) -> None:
    """Have every command about nodes answered."""
    for name in ("token", "token_revoke", "approve", "deny", "show", "drain", "resume", "revoke"):
        operations.answers[f"node_{name}"] = {"node": "web-01", "token": "pnst_x"}
    for name in ("tokens", "requests", "list"):
        operations.answers[f"node_{name}"] = [{"node": "web-01", "owner": "web\x1b[31m"}]


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["token", "--node", "web-01", "--name", "*.a", "--owner", "web", "--contact", "x@y",
          "--expires-in", "2h"], "node_token",
         {**GRANT, "node": "web-01", "names": ["*.a"], "owner": "web", "contact": "x@y",
          "expires_in": "2h"}),
        (["token", "--nodes", "*.farm"], "node_token", {**GRANT, "nodes": "*.farm"}),
        (["token", "--list"], "node_tokens", {}),
        (["token", "--revoke", "join-1"], "node_token_revoke", {"token_id": "join-1"}),
        (["requests"], "node_requests", {}),
        (["approve", "r1", "--community", "lab", "--profile", "server"], "node_approve",
         {**GRANT, "request_id": "r1", "community": "lab", "profiles": ["server"]}),
        (["deny", "r1"], "node_deny", {"request_id": "r1"}),
        (["list", "--status", "active"], "node_list", {"status": "active", "limit": 100}),
        (["show", "web-01"], "node_show", {"node": "web-01"}),
        (["drain", "web-01"], "node_drain", {"node": "web-01"}),
        (["resume", "web-01"], "node_resume", {"node": "web-01"}),
        (["revoke", "web-01"], "node_revoke", {"node": "web-01"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_command_asks_for_what_its_line_says(
    run: Run, operations: FakeOperations, arguments: list[str], command: str, given: dict[str, Any]
) -> None:
    """Under the name that the operator socket knows, without what was left out."""
    status, out, err = run("node", *arguments, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == operations.answers[command]
    ((asked, told),) = operations.asked
    told.pop("actor")
    assert (asked, told) == (command, given)


@pytest.mark.parametrize("both", [[], ["--node", "a", "--nodes", "*.b"]], ids=["neither", "both"])
def test_token_is_for_a_node_or_for_a_pattern(run: Run, both: list[str]) -> None:
    """One of both; anything else is misuse."""
    status, out, err = run("node", "token", *both)
    assert (status, out) == (2, "")
    assert "--nodes" in err


def test_list_is_a_table_that_steers_no_terminal(run: Run) -> None:
    """Whatever somebody has called himself."""
    status, out, _ = run("node", "list")
    assert status == 0
    assert out.splitlines()[0].startswith("NODE")
    assert "\x1b" not in out


@pytest.mark.parametrize("command", ["approve", "deny", "drain", "resume", "revoke"])
def test_reason_goes_along(run: Run, operations: FakeOperations, command: str) -> None:
    """Into the event, with the operator's name."""
    run("node", command, "x", "--reason", "ticket 7")
    ((_, told),) = operations.asked
    assert told["actor"].reason == "ticket 7"
