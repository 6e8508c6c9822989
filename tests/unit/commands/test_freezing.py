"""The commands that stop issuance: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ROW = {
    "what": "upstream",
    "name": "ca",
    "id": "ca",
    "community": None,
    "since": "2026-12-01T00:00:00Z",
    "until": None,
    "by": "operator:anna",
    "reason": "it misissues",
    "told": None,
    "ask": None,
}
WHY = ["--reason", "it misissues"]


@pytest.mark.parametrize(
    ("line", "command", "given"),
    [
        pytest.param(["freeze", "upstream", "ca", *WHY], "freeze", {"upstream": "ca"}, id="ca"),
        pytest.param(
            ["freeze", "eab", "k", "--community", "lab", "--until", "2h", *WHY],
            "freeze",
            {"eab": "k", "community": "lab", "until": "2h"},
            id="key",
        ),
        pytest.param(
            ["freeze", "node", "web-01", "--tell", "wait", "--ask", "soc", *WHY],
            "freeze",
            {"node": "web-01", "tell": "wait", "ask": "soc"},
            id="node",
        ),
        pytest.param(
            ["unfreeze", "community", "lab", *WHY], "unfreeze", {"community": "lab"}, id="freed"
        ),
        pytest.param(["frozen"], "frozen", {}, id="list"),
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
    """With its reason, and prints what it was answered."""
    operations.answers |= {"freeze": ROW, "unfreeze": ROW, "frozen": [ROW]}
    status, out, err = run(*line, *form)
    assert (status, err) == (0, "")
    ((asked, arguments),) = operations.asked
    actor = arguments.pop("actor")
    assert asked == command
    assert {key: value for key, value in arguments.items() if value is not None} == given
    assert command == "frozen" or (actor is not None and actor.reason == "it misissues")
    assert all(word in out for word in ("upstream", "operator:anna", "it misissues"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(["freeze", "upstream", "ca"], "--reason", id="no reason"),
        pytest.param(["freeze", "weather", "rain", *WHY], "weather", id="no such thing"),
        pytest.param(
            ["freeze", "upstream", "ca", "--community", "lab", *WHY],
            "--community goes with an EAB key alone",
            id="half of one",
        ),
    ],
)
def test_misuse_asks_nothing(
    run: Run, operations: FakeOperations, line: list[str], why: str
) -> None:
    """Exit status 2, and what is wrong."""
    status, _, err = run(*line)
    assert status == 2
    assert why in err
    assert operations.asked == []
