"""The command about limits: what it asks for, what it prints."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

BUCKET = {
    "of": "upstream ca",
    "per": "names",
    "subject": "www.example.com",
    "community": None,
    "limit": "5/7d",
    "left": 4,
    "full": "2026-12-01T00:00:00Z",
}
SHOWN = {
    "buckets": [BUCKET],
    "holds": [{"upstream": "ca", "about": "everything", "until": "x", "reason": "busy"}],
    "left_alone": [{"upstream": "next", "state": "open", "since": "x", "reason": "no answer"}],
}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        pytest.param([], {"limit": 100}, id="all"),
        pytest.param(
            ["--upstream", "ca", "--limit", "5"], {"upstream": "ca", "limit": 5}, id="one"
        ),
        pytest.param(["--community", "lab"], {"community": "lab", "limit": 100}, id="community"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_command_asks_for_what_its_line_says(
    run: Run,
    operations: FakeOperations,
    arguments: list[str],
    given: dict[str, Any],
    form: list[str],
) -> None:
    """And prints what it was answered."""
    operations.answers |= {"quota_show": SHOWN}
    status, out, err = run("quota", "show", *arguments, *form)
    assert (status, err) == (0, "")
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    kept = {name: value for name, value in arguments_given.items() if value is not None}
    assert (asked, kept) == ("quota_show", given)
    assert all(word in out for word in ("www.example.com", "5/7d", "busy", "no answer"))
