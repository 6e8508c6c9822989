"""``penstock policy``."""

import json
from typing import Any

from tests.unit.commands.conftest import FakeOperations, Run

EXPLAINED = {
    "names": ["www.corp.example"],
    "community": "default",
    "allowed": False,
    "profile": "server",
    "owner": "web-team",
    "frozen": "community 'default'",
    "policy_sha256": "ab12",
    "caa": "report",
    "request": {
        "address": "192.0.2.7",
        "client_names": ["build.corp.example"],
        "client_fingerprint": "ab12",
        "at": "2027-03-15T08:00:00Z",
        "renewal": True,
    },
    "checks": [
        {
            "check": "profile-offered",
            "findings": [],
            "grounds": [{"rule": "default.yaml:13 profiles.server", "name": None}],
        },
        {
            "check": "name-allowed",
            "findings": [{"sentence": "no rule", "name": "x", "rule": "default.yaml:9 n"}],
            "grounds": [],
        },
    ],
    "not_run": ["cap-plan"],
    "rules": [
        {
            "name": "short",
            "rule": "shared/a.yaml:5 rule 'short'",
            "because": "it is tried",
            "enforced": False,
            "names": ["www.corp.example"],
            "fault": "it has no name",
        }
    ],
    "warnings": [{"sentence": "would be refused", "name": None, "rule": None}],
    "approval": {"people": 2, "by": ["anna", "ben"], "rules": ["default.yaml:30 rule 'ask'"]},
    "quotas": [
        {"per": "requester", "limit": "5/7d", "enforced": False, "rule": "default.yaml:40 r"}
    ],
    "requirements": {"www.corp.example": {"challenges": ["http-01"], "granted_by": None}},
    "cap": "47d",
    "cap_rule": "default.yaml:20 profiles.server.cap",
    "upstreams": [
        {"choice": "upstream 'local'", "taken": True, "sentence": "upstream 'local' is asked"}
    ],
    "plan": {"lever": "ask"},
}  # fmt: skip


def test_explanation_names_checks_and_rules(run: Run, operations: FakeOperations) -> None:
    """Every check, what it found, and where the rule stands."""
    operations.answers["policy_explain"] = EXPLAINED
    status, out, _ = run("policy", "explain", "www.corp.example", "--eab", "k1")
    assert status == 0
    assert "refused in community default" in out
    assert "no  name-allowed" in out
    assert "owner: web-team" in out
    assert "nothing is ordered now: community 'default' is frozen" in out
    assert "by default.yaml:9 n" in out
    assert "by default.yaml:13 profiles.server" in out
    assert "shared/a.yaml:5 rule 'short', warns: it is tried" in out
    assert "its expression failed, so it refuses: it has no name" in out
    assert "warning: would be refused" in out
    assert "2 people have to say yes (only anna, ben), by default.yaml:30 rule 'ask'" in out
    assert "quota per requester: 5/7d, only warned of, by default.yaml:40 r" in out
    assert "cap: 47d, by default.yaml:20 profiles.server.cap" in out
    assert "taken: upstream 'local' is asked" in out
    assert operations.asked[0][1]["eab"] == "k1"
    assert operations.asked[0][1]["names"] == ["www.corp.example"]


def test_explanation_comes_as_json_too(run: Run, operations: FakeOperations) -> None:
    """For programs."""
    operations.answers["policy_explain"] = EXPLAINED
    assert json.loads(run("policy", "explain", "a", "--json")[1]) == EXPLAINED


def given_to(operations: FakeOperations) -> dict[str, Any]:
    """Return the arguments of the last command, without who asked."""
    return {name: one for name, one in operations.asked[-1][1].items() if name != "actor"}


def test_what_is_supposed_of_the_request_is_asked_and_told(
    run: Run, operations: FakeOperations
) -> None:
    """Each option by its own name; what is left out is not sent, and not told."""
    operations.answers["policy_explain"] = EXPLAINED
    words = ("--address", "192.0.2.7", "--client-name", "build.corp.example", "--client-name", "b")
    more = ("--client-fingerprint", "ab12", "--at", "2027-03-15T08:00:00Z", "--renewal")
    status, out, _ = run("policy", "explain", "a", *words, *more)
    assert status == 0
    assert given_to(operations) == {
        "names": ["a"],
        "community": "default",
        "address": "192.0.2.7",
        "client_names": ["build.corp.example", "b"],
        "client_fingerprint": "ab12",
        "at": "2027-03-15T08:00:00Z",
        "renewal": True,
    }
    assert "address: 192.0.2.7" in out
    assert "client certificate: build.corp.example, ab12" in out
    assert "at: 2027-03-15T08:00:00Z" in out
    assert "it renews unchanged names" in out
    plain = {name: value for name, value in EXPLAINED.items() if name != "request"}
    operations.answers["policy_explain"] = plain
    _, out, _ = run("policy", "explain", "a", "--no-renewal")
    assert given_to(operations) == {"names": ["a"], "community": "default", "renewal": False}
    assert "address:" not in out
    assert "renews" not in out


def test_schema_needs_no_configuration(run: Run) -> None:
    """It is for editors, wherever they run."""
    status, out, _ = run("policy", "schema")
    assert status == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")
    status, out, _ = run("policy", "schema", "--kind", "PolicyCases")
    assert status == 0
    assert "cases" in json.loads(out)["properties"]
