"""Commands about mass replacement: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ROW = {"incident": "i1", "status": "open", "certificates": 3, "left": 1, "what_is_left": []}
SELECTED = ["--issuer", "Old CA", "--node", "web-01", "--after", "2026-11-01"]
SELECTION = {"issuer": "Old CA", "node": "web-01", "after": "2026-11-01"}


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["incident", "plan", *SELECTED], "incident_plan", {"select": SELECTION}),
        (["incident", "plan", "--key", "00", "--deadline", "24h"], "incident_plan",
         {"select": {"key": "00"}, "deadline": "24h"}),
        (["incident", "start", *SELECTED, "--deadline", "5d", "--code", "1", "--at-once", "9",
          "--explanation", "https://status.example"], "incident_start",
         {"select": SELECTION, "deadline": "5d", "code": 1, "at_once": 9,
          "explanation": "https://status.example"}),
        (["incident", "start", "--profile", "server"], "incident_start",
         {"select": {"profile": "server"}, "code": 4}),
        (["incident", "list"], "incident_list", {}),
        (["incident", "show", "i1"], "incident_show", {"incident": "i1"}),
        (["incident", "pause", "i1"], "incident_pause", {"incident": "i1"}),
        (["incident", "resume", "i1"], "incident_resume", {"incident": "i1"}),
        (["incident", "abandon", "i1"], "incident_abandon", {"incident": "i1"}),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
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
    operations.answers |= {command: [ROW] if command == "incident_list" else ROW}
    status, out, err = run(*arguments, *form)
    assert (status, err) == (0, "")
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    kept = {name: value for name, value in arguments_given.items() if value is not None}
    assert (asked, kept) == (command, given)
    assert "i1" in out
