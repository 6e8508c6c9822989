"""What a person is told when an account is recovered."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ROW: dict[str, Any] = {
    "upstream": "ca",
    "community": "default",
    "cause": "key-gone",
    "why": "key k is not there",
    "url": "https://ca.example/acct/1",
    "since": "2026-03-01T12:00:00Z",
    "done": True,
    "remedy": "another account, with a new key",
    "account": {"url": "https://ca.example/acct/2"},
    "key": "k#2",
    "orders_begun_anew": ["o1"],
    "orders_undecided": ["o2"],
    "caa": {
        "old": "https://ca.example/acct/1",
        "note": "replace accounturi=https://ca.example/acct/1",
        "lines": [
            'corp.example. IN CAA 0 issue "ca.example; accounturi=https://ca.example/acct/2"'
        ],
    },
    "certificates": [
        {"certificate": "c1", "names": ["a.example"], "not_after": "2026-04-01", "serial": "0a"}
    ],
    "certificates_in_force": 1,
    "revocation": ["with the certificate's own key"],
}


@pytest.fixture(autouse=True)
def _answers(operations: FakeOperations) -> None:
    """What the broker says."""
    operations.answers["upstream_recover"] = [ROW]
    operations.answers["upstream_former"] = [{"upstream": "ca", "url": "https://ca.example/acct/1"}]
    operations.answers["order_again"] = {"order": "o2", "old_url": "https://ca.example/order/7"}


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["upstream", "recover", "ca"],
         "upstream_recover", {"upstream": "ca", "agree_to_terms": False, "dry_run": False}),
        (["upstream", "recover", "ca", "--community", "lab", "--agree-to-terms", "--dry-run"],
         "upstream_recover",
         {"upstream": "ca", "community": "lab", "agree_to_terms": True, "dry_run": True}),
        (["upstream", "former"], "upstream_former", {}),
        (["order", "again", "o2"], "order_again", {"order_id": "o2"}),
    ],
    ids=["recover", "recover-one", "former", "again"],
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


@pytest.mark.parametrize(
    "told",
    [
        "key-gone",
        "https://ca.example/acct/2",
        "accounturi=https://ca.example/acct/2",
        "penstock order again ORDER",
        "with the certificate's own key",
        "a.example",
    ],
)
def test_person_is_told_what_is_left_to_do(run: Run, told: str) -> None:
    """Cause, new account, records, undecided orders, certificates and how each is revoked."""
    _, out, _ = run("upstream", "recover", "ca")
    assert told in out


def test_dry_run_tells_less(run: Run, operations: FakeOperations) -> None:
    """Nothing was made, so there is nothing to publish."""
    row = {**ROW, "done": False, "account": None, "key": None, "caa": None}
    row |= {"orders_begun_anew": [], "orders_undecided": [], "certificates_in_force": 0}
    operations.answers["upstream_recover"] = [row]
    _, out, _ = run("upstream", "recover", "ca", "--dry-run")
    assert "account now" not in out
    assert "CAA" not in out
