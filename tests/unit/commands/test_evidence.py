"""``cert evidence`` for a person and for a program."""

import json
from typing import Any

from tests.unit.commands.conftest import FakeOperations, Run

RECORD = {"record": 7, "at": "2026-03-01T12:00:00.000000Z", "kind": "order-created"}
FOUND: dict[str, Any] = {
    "certificate": {"serial": "0a", "names": ["a.example"]},
    "requester": {"account": {"account": "a1"}},
    "request": {"order": "o1"},
    "decided_at_order": {"policy_sha256": "5be1"},
    "decided_at_finalize": None,
    "proofs": [{"name": "a.example", "proof": "challenge"}],
    "upstream": {"name": "ca", "order": None},
    "approvals": [],
    "signatures": [{"record": 8, "at": "x", "key": "vault:t/k#1", "vault_request": "r-1"}],
    "deliveries": [],
    "revocation": [],
    "records": [RECORD],
    "chain": {"records": [7], "covered_by": None},
}


def test_evidence_is_one_page(run: Run, operations: FakeOperations) -> None:
    """With a head for each question, and nothing said to be nothing."""
    operations.answers["cert_evidence"] = FOUND
    status, out, _ = run("cert", "evidence", "0a")
    assert status == 0
    for word in ("WHO ASKED", "5be1", "r-1", "WHO APPROVED\nnothing", "no checkpoint covers"):
        assert word in out
    assert operations.asked[0][1]["certificate"] == "0a"


def test_what_an_approval_refers_to_is_told(run: Run, operations: FakeOperations) -> None:
    """An auditor asks on what grounds somebody said yes."""
    referred = {"evidence": ["ticket=https://tickets.corp.example/7"]}
    said = {**RECORD, "kind": "approval-granted", "actor": "operator:jane", "data": referred}
    operations.answers["cert_evidence"] = {**FOUND, "approvals": [said]}
    _, out, _ = run("cert", "evidence", "0a")
    assert "ticket=https://tickets.corp.example/7" in out.split("WHO APPROVED")[1]


def test_covering_checkpoint_is_printed(run: Run, operations: FakeOperations) -> None:
    """Whole, so that it can be verified elsewhere."""
    covering = {"number": 3, "at": "2026-03-01T12:01:00Z", "jws": "a.b.c"}
    chain = {"records": [7], "covered_by": covering}
    operations.answers["cert_evidence"] = {**FOUND, "chain": chain}
    _, out, _ = run("cert", "evidence", "0a")
    assert "covered by checkpoint 3" in out
    assert out.endswith("a.b.c\n")


def test_program_gets_the_document(run: Run, operations: FakeOperations) -> None:
    """As it is."""
    operations.answers["cert_evidence"] = FOUND
    assert json.loads(run("cert", "evidence", "0a", "--json")[1]) == FOUND
