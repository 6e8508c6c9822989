"""Further commands about upstreams."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

RECORDS = [
    {
        "community": "default",
        "name": "corp.example",
        "flags": 0,
        "tag": "issue",
        "value": "ca.example",
        "line": 'corp.example. IN CAA 0 issue "ca.example"',
    }
]


@pytest.fixture(autouse=True)
def _answers(operations: FakeOperations) -> None:
    """What the broker says."""
    operations.answers["upstream_caa"] = RECORDS


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["upstream", "caa", "ca"], "upstream_caa", {"upstream": "ca", "names": []}),
        (["upstream", "caa", "ca", "--name", "a.example", "--iodef", "mailto:a@b.example"],
         "upstream_caa",
         {"upstream": "ca", "names": ["a.example"], "iodef": "mailto:a@b.example"}),
    ],
    ids=["caa", "caa-of-one"],
)  # fmt: skip
def test_command_asks_for_what_its_line_says(
    run: Run, operations: FakeOperations, arguments: list[str], command: str, given: dict[str, Any]
) -> None:
    """Under the name that the operator socket knows."""
    status, _, _ = run(*arguments, "--json")
    assert status == 0
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    assert (asked, arguments_given) == (command, given)


def test_records_are_printed_as_a_zone_file_has_them(run: Run) -> None:
    """With a comment that says whose they are, ready to be copied."""
    status, out, _ = run("upstream", "caa", "ca")
    assert status == 0
    assert out.splitlines() == ["; upstream ca, community default", RECORDS[0]["line"]]
