"""``penstock policy``."""

import json

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


def test_schema_needs_no_configuration(run: Run) -> None:
    """It is for editors, wherever they run."""
    status, out, _ = run("policy", "schema")
    assert status == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")
    status, out, _ = run("policy", "schema", "--kind", "PolicyCases")
    assert status == 0
    assert "cases" in json.loads(out)["properties"]
