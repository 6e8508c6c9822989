"""Commands about orders, certificates, accounts and keys: what they ask for, what they print."""

import json
from typing import Any

import pytest

from broker.issuance.events import Actor
from tests.unit.commands.conftest import ANSWERS, FakeOperations, Run


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["status"], "status", {}),
        (["order", "show", "o1"], "order_show", {"order_id": "o1"}),
        (["order", "list", "--status", "valid", "--limit", "5"], "order_list",
         {"status": "valid", "limit": 5}),
        (["cert", "show", "c1"], "cert_show", {"certificate": "c1"}),
        (["cert", "list", "--after", "c0"], "cert_list", {"after": "c0", "limit": 100}),
        (["cert", "revoke", "c1", "--code", "superseded"], "cert_revoke",
         {"certificate": "c1", "code": 4}),
        (["account", "show", "a1"], "account_show", {"account_id": "a1"}),
        (["account", "list", "--community", "lab"], "account_list",
         {"community": "lab", "limit": 100}),
        (["account", "deactivate", "a1"], "account_deactivate", {"account_id": "a1"}),
        (["eab", "mint", "--name", "*.a", "--name", "b", "--profile", "server", "--reusable"],
         "eab_mint", {"community": "default", "label": "", "names": ["*.a", "b"],
                      "profiles": ["server"], "reusable": True, "owner": "", "contact": ""}),
        (["eab", "mint", "--owner", "team-web", "--contact", "web@corp.example"],
         "eab_mint", {"community": "default", "label": "", "names": [], "profiles": [],
                      "reusable": False, "owner": "team-web", "contact": "web@corp.example"}),
        (["eab", "list"], "eab_list", {}),
        (["eab", "revoke", "k1"], "eab_revoke", {"key_id": "k1", "community": "default"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_command_asks_for_what_its_line_says(
    run: Run, operations: FakeOperations, arguments: list[str], command: str, given: dict[str, Any]
) -> None:
    """Under the name that the operator socket knows, without what was left out."""
    status, out, err = run(*arguments, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == ANSWERS[command]
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    assert (asked, arguments_given) == (command, given)


@pytest.mark.parametrize(
    "arguments",
    [["cert", "revoke", "c1"], ["account", "deactivate", "a1"], ["eab", "mint"],
     ["eab", "revoke", "k1"]],
    ids=" ".join,
)  # fmt: skip
def test_change_carries_who_and_why(
    run: Run, operations: FakeOperations, arguments: list[str]
) -> None:
    """Both enter the event."""
    assert run(*arguments, "--reason", "left the company")[0] == 0
    actor = operations.asked[0][1]["actor"]
    assert isinstance(actor, Actor)
    assert actor.name.startswith("operator:")
    assert actor.reason == "left the company"


def test_pem_alone_can_be_piped_into_a_file(run: Run, operations: FakeOperations) -> None:
    """Byte for byte what is kept."""
    assert run("cert", "show", "c1", "--pem")[1] == ANSWERS["cert_show"]["chain_pem"]


def test_list_is_a_table_for_people(run: Run, operations: FakeOperations) -> None:
    """Names of columns, a row each, dashes for what is not there."""
    header, row = run("order", "list")[1].splitlines()
    assert header.split() == [
        "ORDER", "CREATED", "STATUS", "NAMES", "PROFILE", "UPSTREAM", "ACCOUNT"
    ]  # fmt: skip
    assert row.split() == ["o1", "-", "valid", "a.example,", "b.example", "-", "-", "-"]


def test_text_of_clients_steers_no_terminal(run: Run, operations: FakeOperations) -> None:
    """A contact with an escape sequence is shown as what it is."""
    out = run("account", "list")[1]
    assert "\x1b" not in out
    assert "\\u001b[31mx@example.com" in out
