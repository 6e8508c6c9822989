"""The commands about owners: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

OWNED = {
    "what": "eab-key",
    "name": "web",
    "id": "web",
    "community": "default",
    "status": "valid",
    "owner": "team-web",
    "contact": "web@corp.example",
    "by": "own",
}
CERTIFICATE = {
    "certificate": "c1",
    "account": "a1",
    "community": "default",
    "names": ["www.example.com"],
    "not_after": "2026-12-01T00:00:00Z",
}
ANSWERS: dict[str, Any] = {
    "owner_list": [
        {"owner": "team-web", "contacts": "web@corp.example", "accounts": 2, "eab_keys": 1,
         "nodes": 0}
    ],
    "owner_show": {"owner": "team-web", "things": [OWNED], "certificates": [CERTIFICATE]},
    "owner_set": OWNED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "command", "given"),
    [
        pytest.param(["list"], "owner_list", {"limit": 100}, id="list"),
        pytest.param(
            ["list", "web", "--community", "lab", "--limit", "5"],
            "owner_list",
            {"text": "web", "community": "lab", "limit": 5},
            id="some",
        ),
        pytest.param(
            ["show", "team-web"], "owner_show", {"owner": "team-web", "limit": 100}, id="show"
        ),
        pytest.param(
            ["set", "eab", "web", "--owner", "team-web", "--contact", "w", "--community", "lab"],
            "owner_set",
            {"eab": "web", "owner": "team-web", "contact": "w", "community": "lab"},
            id="key",
        ),
        pytest.param(
            ["set", "node", "web-01", "--owner", ""],
            "owner_set",
            {"node": "web-01", "owner": "", "contact": ""},
            id="nobody",
        ),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_command_asks_for_what_its_line_says(
    run: Run,
    operations: FakeOperations,
    line: list[str],
    command: str,
    given: dict[str, Any],
    form: list[str],
) -> None:
    """And prints what it was answered."""
    operations.answers |= ANSWERS
    status, out, err = run("owner", *line, *form)
    assert (status, err) == (0, "")
    ((asked, arguments),) = operations.asked
    arguments.pop("actor")
    assert asked == command
    assert {key: value for key, value in arguments.items() if value is not None} == given
    assert "team-web" in out
    assert command != "owner_show" or "www.example.com" in out


def test_community_goes_with_a_key_alone(run: Run, operations: FakeOperations) -> None:
    """An account's id and a node's name are enough."""
    status, _, err = run("owner", "set", "node", "a", "--owner", "b", "--community", "lab")
    assert status == 2
    assert "--community goes with an EAB key alone" in err
    assert operations.asked == []
