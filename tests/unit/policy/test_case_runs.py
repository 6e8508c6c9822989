"""Files of cases are run against the policies that they are about."""

from __future__ import annotations

import pickle

import pytest

from broker.policy.case_runs import parse_case_file, run_cases
from broker.policy.document import PolicyDocument, parse_policy
from broker.policy.yamlfile import Faults
from tests.unit.policy.builders import policy_text

CASES = """apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: ours
    given: {names: [www.a.example], upstreams: [{name: ca, description: generic}]}
    expect: {decision: refuse}
    because: nobody knows what it issues
  - name: not ours
    given: {names: [www.b.example], upstreams: []}
    expect: {decision: allow}
    because: it is expected wrongly
"""


def document(source: str = "default.yaml", **changes: object) -> PolicyDocument:
    """Return a policy."""
    return parse_policy(policy_text(**changes), source=source)


DESCRIBED = """apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  generic: {as_of: 2026-11-22, source: a test, honours_not_after: false, is_ct_logged: true}
"""


def described() -> dict[str, object]:
    """Return the one description that the cases name."""
    from broker.policy.upstream_facts import parse_upstream_facts

    return dict(parse_upstream_facts(DESCRIBED, source="upstreams.yaml"))


def test_each_case_tells_its_line_and_its_outcome() -> None:
    """A failing case is found by file and line."""
    file = parse_case_file(CASES, source="cases/default.yaml")
    first, second = run_cases([document()], [file], described())  # type: ignore[arg-type]
    assert first.has_passed
    assert (first.source, first.line, second.line) == ("cases/default.yaml", 5, 9)
    assert not second.has_passed
    assert "expected allow, got refuse" in str(second)
    assert second.because == "it is expected wrongly"


def test_file_about_no_policy_fails_as_a_whole() -> None:
    """Nothing shows that the policy does what it is for."""
    file = parse_case_file(CASES, source="cases/default.yaml")
    results = run_cases([document("other.yaml")], [file], described())  # type: ignore[arg-type]
    assert [one.has_passed for one in results] == [False, False]
    assert "there is no policy 'default.yaml' here, there is other.yaml" in str(results[0])


def test_policy_of_the_same_directory_is_meant() -> None:
    """Where a set is made of several directories, each has its own cases."""
    file = parse_case_file(CASES, source="ours/cases/default.yaml")
    theirs = document("theirs/default.yaml", names={"allow": ["**.b.example"]})
    results = run_cases(
        [theirs, document("ours/default.yaml")],
        [file],
        described(),  # type: ignore[arg-type]
    )
    assert [one.policy for one in results] == ["ours/default.yaml"] * 2


def test_policy_that_lies_beside_its_cases_is_meant() -> None:
    """As in a ConfigMap, which has no folders; that of another is named by both names."""
    described_ = described()
    documents = [
        document("theirs/default.yaml", names={"allow": ["**.b.example"]}),
        document("ours/default.yaml"),
    ]
    beside = parse_case_file(CASES, source="ours/cases.yaml")
    results = run_cases(documents, [beside], described_)  # type: ignore[arg-type]
    assert [one.policy for one in results] == ["ours/default.yaml"] * 2
    named = CASES.replace("policy: default.yaml", "policy: theirs/default.yaml")
    apart = parse_case_file(named, source="ours/cases.yaml")
    results = run_cases(documents, [apart], described_)  # type: ignore[arg-type]
    assert [one.policy for one in results] == ["theirs/default.yaml"] * 2


def test_upstream_that_is_not_described_fails_the_case() -> None:
    """A case about nothing known shows nothing."""
    file = parse_case_file(CASES, source="cases/default.yaml")
    first, second = run_cases([document()], [file], {})
    assert "there is no description 'generic'" in first.differences[0]
    assert not second.has_passed


def test_rules_that_spoke_are_told() -> None:
    """So that a rule which no case is about is noticed."""
    rule = {"name": "short", "because": "x", "names": ["**.a.example"], "cap": "1d"}
    file = parse_case_file(CASES, source="cases/default.yaml")
    made = document(rules=[rule])
    first, second = run_cases([made], [file], described())  # type: ignore[arg-type]
    assert [ref.path for ref in first.rules] == ["rule 'short'"]
    assert second.rules == ()


def test_two_cases_of_one_name_are_a_fault() -> None:
    """One of them could fail unseen behind the other."""
    with pytest.raises(Faults, match="a case is called 'ours' already"):
        parse_case_file(CASES.replace("not ours", "ours"), source="f.yaml")


def test_file_is_handed_to_another_process() -> None:
    """Parsing is done elsewhere while a broker runs."""
    file = parse_case_file(CASES, source="cases/default.yaml")
    assert pickle.loads(pickle.dumps(file)) == file
