"""Commands about renewal: what they ask for, what they print."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

WINDOW = {"certificate": "c1", "suggested": {"start": "2026-12-01T00:00:00Z"}}
RETIRING = [{"certificate": "c1", "retires": "2026-12-24T00:00:00Z", "status": "waiting"}]


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["cert", "renewal", "c1"], "cert_renewal", {"certificate": "c1"}),
        (["cert", "renewal", "c1", "--ask"], "cert_renewal_ask", {"certificate": "c1"}),
        (["cert", "retiring"], "cert_retiring", {"limit": 100}),
        (["cert", "retiring", "--status", "overdue"], "cert_retiring",
         {"status": "overdue", "limit": 100}),
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
    operations.answers |= {
        "cert_renewal": WINDOW,
        "cert_renewal_ask": WINDOW,
        "cert_retiring": RETIRING,
    }
    status, out, err = run(*arguments, *form)
    assert (status, err) == (0, "")
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    kept = {name: value for name, value in arguments_given.items() if value is not None}
    assert (asked, kept) == (command, given)
    assert "c1" in out
