"""``penstock policy test``: cases without a broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.commands.conftest import Run
from tests.unit.config.conftest import write
from tests.unit.policy.builders import policy_text

CASES = """apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: ours
    given: {names: [www.a.example], upstreams: [{name: ca, description: built-in}]}
    expect: {decision: allow}
    because: it is what the policy is for
"""

RULE = {"name": "unseen", "because": "x", "names": ["other.a.example"], "cap": "1d"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy directory with one case."""
    made = tmp_path / "policies"
    (made / "cases").mkdir(parents=True)
    (made / "default.yaml").write_text(policy_text())
    (made / "cases" / "default.yaml").write_text(CASES)
    return made


def test_cases_that_hold_are_counted(run: Run, directory: Path) -> None:
    """One line, unless all are asked for."""
    status, out, err = run("policy", "test", str(directory))
    assert (status, err) == (0, "")
    assert "1 case about 1 policy: all as expected" in out
    assert "cases/default.yaml:5" not in out
    assert "ok    cases/default.yaml:5: ours" in run("policy", "test", "-v", str(directory))[1]


def test_case_that_fails_is_told_with_line_and_reason(run: Run, directory: Path) -> None:
    """And the command fails, so that a pipeline stops."""
    (directory / "default.yaml").write_text(policy_text(names={"allow": ["**.b.example"]}))
    status, out, err = run("policy", "test", str(directory))
    assert status == 1
    assert "FAIL  cases/default.yaml:5: ours" in out
    assert "expected allow, got refuse" in out
    assert "because it is what the policy is for" in out
    assert "1 case failed" in err


def test_broken_file_is_told_by_its_line(run: Run, directory: Path) -> None:
    """Exit status 2: nothing was tried."""
    (directory / "default.yaml").write_text(policy_text(capp="1d"))
    status, _, err = run("policy", "test", str(directory))
    assert status == 2
    assert "unknown key 'capp' (did you mean 'cap'?)" in err


@pytest.mark.parametrize(
    ("rules", "is_cased", "note"),
    [
        pytest.param([RULE], True, "rule 'unseen' (default.yaml:", id="rule"),
        pytest.param([], False, "default.yaml: no case is about this policy", id="policy"),
    ],
)
def test_what_no_case_is_about_is_noted_and_fails_when_strict(
    run: Run, directory: Path, rules: list[object], is_cased: bool, note: str
) -> None:
    """A rule that nobody tried does what nobody knows."""
    (directory / "default.yaml").write_text(policy_text(rules=rules))
    if not is_cased:
        (directory / "cases" / "default.yaml").unlink()
    status, out, _ = run("policy", "test", str(directory))
    assert status == 0
    assert note in out
    assert run("policy", "test", "--strict", str(directory))[0] == 3


def test_strict_passes_where_all_is_tried(run: Run, directory: Path) -> None:
    """The twin of the one above."""
    assert run("policy", "test", "--strict", str(directory))[0] == 0


def test_programs_get_json(run: Run, directory: Path) -> None:
    """Every case with its line."""
    made = json.loads(run("policy", "test", "--json", str(directory))[1])
    assert [(one["line"], one["passed"]) for one in made["cases"]] == [(5, True)]
    assert len(made["sha256"]) == 64


def test_configured_directories_are_taken_where_none_is_named(
    run: Run, directory: Path, config: Path
) -> None:
    """As the broker would read them."""
    config.write_text(write({"state": str(config.parent), "policies": [str(directory)]}))
    assert "1 case about 1 policy" in run("policy", "test")[1]
