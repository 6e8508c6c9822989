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


SHOWN: dict[str, Any] = {
    **ROW,
    "people": 2,
    "said_yes": 1,
    "evidence_missing": ["ticket"],
    "ends": "2026-03-15T12:00:00Z",
    "asked_by": {"thumbprint": "zFtU"},
    "orders": [],
    "answers": [{"person": "operator:anna", "said": "approve"}],
}


def test_answer_tells_what_is_so_now(run: Run, operations: FakeOperations) -> None:
    """In a few lines: how many have said yes, what is missing, until when."""
    operations.answers |= {"approval_approve": SHOWN}
    status, out, _ = run("approval", "approve", "a1")
    assert status == 0
    assert out.splitlines() == [
        "approval:         a1",
        "status:           waiting",
        "names:            www.example.com",
        "people:           1 of 2 people have said yes",
        "evidence missing: ticket",
        "answer by:        2026-03-15T12:00:00Z",
    ]


def test_key_is_told_with_the_yes_that_minted_it(run: Run, operations: FakeOperations) -> None:
    """This once, below until when it holds."""
    opened = {"status": "approved", "people": 1, "evidence_missing": [], "names": []}
    operations.answers |= {
        "approval_approve": {**SHOWN, **opened, "key_id": "ra-1", "mac_key": "bWFj"}
    }
    _, out, _ = run("approval", "approve", "a1")
    assert out.splitlines()[3:] == [
        "people:      1 of 1 person has said yes",
        "holds until: 2026-03-15T12:00:00Z",
        "key id:      ra-1",
        "mac key:     bWFj",
    ]


def test_no_has_its_reason_and_no_end(run: Run, operations: FakeOperations) -> None:
    """Nothing is missing of what is over."""
    denied = {"status": "denied", "reason": "nobody knows you", "said_yes": 0}
    operations.answers |= {"approval_deny": {**SHOWN, **denied}}
    _, out, _ = run("approval", "deny", "a1", "--reason", "nobody knows you")
    assert "reason:   nobody knows you" in out
    assert "missing" not in out
    assert "2026-03-15" not in out


def test_request_is_shown_with_how_far_it_is(run: Run, operations: FakeOperations) -> None:
    """Beside all the rest."""
    operations.answers |= {"approval_show": SHOWN}
    _, out, _ = run("approval", "show", "a1")
    assert "1 of 2 people have said yes" in out
    assert "evidence missing: ticket" in out
    assert "said yes:" not in out
    assert "operator:anna" in out
