"""The shipped policies do what their cases say, and a case that is wrong is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.policy.cases import Expected, Given, PolicyCase, PolicyCases, check_case, parse_cases
from broker.policy.chains import FINALIZE, NEW_ORDER
from broker.policy.checks import CheckName
from broker.policy.document import parse_policy
from broker.policy.upstream_facts import parse_upstream_facts
from broker.policy.yamlfile import Faults

POLICIES = Path(__file__).parents[3] / "policies"
DESCRIPTIONS = parse_upstream_facts(
    (POLICIES / "upstreams.yaml").read_text("utf-8"), source="upstreams.yaml"
)


def read(path: Path) -> PolicyCases:
    """Return the cases of a shipped file."""
    return parse_cases(path.read_text("utf-8"), source=path.name)


FILES = {path: read(path) for path in sorted((POLICIES / "cases").glob("*.yaml"))}
SHIPPED = [
    pytest.param(made.policy, case, id=f"{path.stem}: {case.name}")
    for path, made in FILES.items()
    for case in made.cases
]
DEFAULT = parse_policy((POLICIES / "default.yaml").read_text("utf-8"), source="default.yaml")


@pytest.mark.parametrize(("policy", "case"), SHIPPED)
def test_a_shipped_policy_does_what_its_case_says(policy: str, case: PolicyCase) -> None:
    """Given this request, that decision."""
    document = parse_policy((POLICIES / policy).read_text("utf-8"), source=policy)
    assert check_case(document, case, DESCRIPTIONS) == (), case.because


def test_every_shipped_policy_has_cases() -> None:
    """A policy without cases is one whose purpose is not written down."""
    policies = [POLICIES / "default.yaml", *(POLICIES / "communities").glob("*.yaml")]
    assert {POLICIES / made.policy for made in FILES.values()} == set(policies)


def test_the_names_of_cases_are_different() -> None:
    """So that a failing one is found."""
    for made in FILES.values():
        assert len({case.name for case in made.cases}) == len(made.cases)


def test_cases_speak_of_checks_that_exist() -> None:
    """A misspelt check would be expected for ever."""
    known = {str(check.name) for chain in (NEW_ORDER, FINALIZE) for check in chain}
    spoken = {name for m in FILES.values() for case in m.cases for name in case.expect.checks}
    assert spoken <= known


def test_communities_of_shipped_policies_are_different() -> None:
    """One policy a community."""
    documents = [
        parse_policy((POLICIES / made.policy).read_text("utf-8"), source=made.policy)
        for made in FILES.values()
    ]
    assert sorted(document.community for document in documents) == ["default", "web"]


def case(given: dict[str, Any] | None = None, **expect: Any) -> PolicyCase:
    """Return a case about the default policy."""
    built_in = {"name": "local", "description": "built-in"}
    values = {"names": ("app.internal",), "upstreams": (built_in,), **(given or {})}
    return PolicyCase(
        name="a case",
        given=Given.model_validate(values, strict=False),
        expect=Expected.model_validate({"decision": "allow", **expect}, strict=False),
        because="it is tried",
    )


@pytest.mark.parametrize(
    ("given", "expect", "difference"),
    [
        pytest.param({}, {"decision": "refuse"}, "expected refuse, got allow", id="allowed"),
        pytest.param({"names": ("a.example",)}, {}, "expected allow, got refuse", id="refused"),
        pytest.param({}, {"upstream": "other"}, "upstream other, got local", id="upstream"),
        pytest.param({}, {"upstream_profile": "x"}, "upstream_profile x, got None", id="profile"),
        pytest.param({}, {"lever": "profile"}, "lever profile, got ask", id="lever"),
        pytest.param({}, {"cap": "90d"}, "cap 90d, got 47d", id="cap"),
        pytest.param(
            {},
            {"challenges": {"app.internal": ()}},
            "challenges of app.internal [], got ['http-01', 'dns-01']",
            id="challenges",
        ),
        pytest.param(
            {"names": ("a.example",)},
            {"decision": "refuse", "checks": ("name-denied",)},
            "checks ['name-denied'], got ['name-allowed']",
            id="checks",
        ),
        pytest.param(
            {"names": ("a.example", "b.example")},
            {"decision": "refuse", "refused": ("a.example",)},
            "refused ['a.example'], got ['a.example', 'b.example']",
            id="names",
        ),
        pytest.param({"names": ("a_b",)}, {}, "neither a DNS name nor", id="no-name"),
        pytest.param(
            {"names": ("a.example",)},
            {"decision": "refuse", "stage": "finalize"},
            "expected stage finalize, got new-order",
            id="stage",
        ),
        pytest.param({}, {"rules": ("short",)}, "expected rules ['short'], got []", id="rules"),
        pytest.param({}, {"warnings": ("w",)}, "expected warnings ['w'], got []", id="warnings"),
        pytest.param({}, {"approval": 2}, "expected approval 2, got 0", id="approval"),
        pytest.param(
            {}, {"quotas": ("eab 5/1d",)}, "expected quotas ['eab 5/1d'], got []", id="quotas"
        ),
        pytest.param(
            {"csr": {"key": "ed25519"}}, {}, "got refuse: key of the CSR is ed25519", id="csr"
        ),
    ],
)
def test_a_case_that_does_not_hold_is_told(
    given: dict[str, Any], expect: dict[str, Any], difference: str
) -> None:
    """What was expected, what came, and the findings."""
    [told] = check_case(DEFAULT, case(given, **expect), DESCRIPTIONS)
    assert difference in told


def test_a_case_that_holds_has_no_differences() -> None:
    """The twin of the table above."""
    good = case(upstream="local", lever="ask", cap="47d")
    assert check_case(DEFAULT, good, DESCRIPTIONS) == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param(
            "apiVersion: penstock.dev/v1\nkind: PolicyCases\npolicy: x\ncases: []\n",
            "cases: tuple should have at least 1 item",
            id="no-cases",
        ),
        pytest.param(
            "apiVersion: penstock.dev/v1\nkind: PolicyCases\npolicy: x\n"
            "cases: [{name: a, given: {names: [], upstreams: []}, expect: {decision: allow}}]\n",
            "missing key 'because'",
            id="no-reason",
        ),
    ],
)
def test_broken_cases_are_refused(text: str, fault: str) -> None:
    """Cases that test nothing must not pass for tests."""
    with pytest.raises(Faults) as caught:
        parse_cases(text, source="f.yaml")
    assert fault in str(caught.value)


def test_check_names_in_a_finding_are_words() -> None:
    """What a case compares with is what the record shows."""
    assert f"{CheckName.NAME_ALLOWED}" == "name-allowed"
