"""Commands about the keys of our accounts."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

KEY = "vault:transit/penstock.default.ca#2"


@pytest.fixture(autouse=True)
def _answers(operations: FakeOperations) -> None:
    """What the broker says."""
    operations.answers["upstream_rotate_key"] = [
        {
            "upstream": "ca",
            "community": "default",
            "url": "https://ca/1",
            "thumbprint": "abc",
            "key": KEY,
            "not_retired": None,
        }
    ]
    operations.answers["upstream_show"] = {
        "upstream": "ca",
        "accounts": [
            {"url": "https://ca/1", "key": {"id": KEY, "rotates": "2026-05-30T12:00:00Z"}}
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["upstream", "rotate-key", "ca"], "upstream_rotate_key", {"upstream": "ca"}),
        (["upstream", "rotate-key", "ca", "--community", "lab"], "upstream_rotate_key",
         {"upstream": "ca", "community": "lab"}),
        (["upstream", "show", "ca"], "upstream_show", {"upstream": "ca"}),
    ],
    ids=["all", "one", "show"],
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


def test_rotated_key_is_shown(run: Run) -> None:
    """The account is the same; its key is another."""
    status, out, err = run("upstream", "rotate-key", "ca")
    assert (status, err) == (0, "")
    for words in ("https://ca/1", "abc", KEY):
        assert words in out


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
def test_versions_that_may_still_sign_are_warned_of(
    run: Run, operations: FakeOperations, arguments: list[str]
) -> None:
    """The command has done what it was to do, and no word of Vault's steers the terminal."""
    operations.answers["upstream_rotate_key"][0]["not_retired"] = "Vault \x1b[31mis sealed"
    status, _, err = run("upstream", "rotate-key", "ca", *arguments)
    assert status == 0
    assert f"penstock: warning: versions before {KEY} may still sign" in err
    assert "is sealed" in err
    assert "\x1b" not in err


def test_upstream_is_shown_with_its_keys(run: Run) -> None:
    """In lines for people."""
    status, out, _ = run("upstream", "show", "ca")
    assert status == 0
    assert KEY in out
    assert "2026-05-30T12:00:00Z" in out
