"""Policy cases: given this request, expect that decision, because.

Cases are the security team's tests.  They lie beside the policies, in the same YAML, and say what
a policy is for in requests that anyone can read; a policy that stops doing it fails its cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker.policy.case_form import Expected, Given, PolicyCase, PolicyCases, Stage
from broker.policy.decisions import Finding, NewOrderDecision, RuleRef
from broker.policy.document import PolicyDocument
from broker.policy.stories import Story, tell_story
from broker.policy.units import Rate, format_duration, format_rate
from broker.policy.upstream_facts import UpstreamDescription
from broker.policy.yamlfile import load_model
from broker.protocol.problems import Problem

__all__ = [
    "Expected",
    "Given",
    "PolicyCase",
    "PolicyCases",
    "Stage",
    "check_case",
    "judge_case",
    "parse_cases",
]


def parse_cases(text: str, *, source: str) -> PolicyCases:
    """Return the cases in *text*.

    Raises:
        Faults: Everything that is wrong with it.
    """
    return load_model(text, source, PolicyCases)[0]


def check_case(
    document: PolicyDocument, case: PolicyCase, descriptions: Mapping[str, UpstreamDescription]
) -> tuple[str, ...]:
    """Return a sentence for each way in which *document* does not decide as expected.

    Raises:
        UnknownDescription: An upstream's description is not there.
    """
    return judge_case(document, case, descriptions)[0]


def judge_case(
    document: PolicyDocument, case: PolicyCase, descriptions: Mapping[str, UpstreamDescription]
) -> tuple[tuple[str, ...], tuple[RuleRef, ...]]:
    """Return the same together with every rule that spoke of the case's order.

    Raises:
        UnknownDescription: An upstream's description is not there.
    """
    try:
        story = tell_story(document, case.given, descriptions)
    except Problem as problem:
        return (f"given what is neither a DNS name nor an address: {problem.detail}",), ()
    return _compare(case.expect, story), story.decision.rules


def _compare(expect: Expected, story: Story) -> tuple[str, ...]:
    told = _told(story.findings)
    got = "refuse" if story.is_refused else "allow"
    if got != expect.decision:
        return (f"expected {expect.decision}, got {got}: {told}",)
    pairs = [*_of_findings(expect, story), *_of_plan(expect, story.decision)]
    pairs += [*_of_challenges(expect, story.decision), *_of_rules(expect, story.decision)]
    return tuple(
        f"expected {what} {expected}, got {found}: {told}"
        for what, expected, found in pairs
        if expected is not None and expected != found
    )


def _told(findings: tuple[Finding, ...]) -> str:
    return "; ".join(finding.sentence for finding in findings) or "no findings"


def _of_findings(expect: Expected, story: Story) -> Iterator[tuple[str, object, object]]:
    found = story.findings
    if story.is_refused:
        yield "stage", expect.stage, story.stage
    if expect.checks:
        yield "checks", sorted(expect.checks), sorted({str(one.check) for one in found})
    if expect.refused is not None:
        refused = {one.identifier.value for one in found if one.identifier is not None}
        yield "refused", sorted(expect.refused), sorted(refused)


def _of_plan(expect: Expected, decision: NewOrderDecision) -> Iterator[tuple[str, object, object]]:
    plan = decision.plan
    if plan is None:
        return
    yield "upstream", expect.upstream, plan.upstream
    yield "upstream_profile", expect.upstream_profile, plan.upstream_profile
    yield "lever", expect.lever, plan.lever
    yield "cap", expect.cap and format_duration(expect.cap), format_duration(plan.cap)


def _of_challenges(
    expect: Expected, decision: NewOrderDecision
) -> Iterator[tuple[str, object, object]]:
    challenges = {
        identifier.value: [str(kind) for kind in need.challenges]
        for identifier, need in decision.requirements.items()
    }
    for name, wanted in expect.challenges.items():
        yield f"challenges of {name}", list(wanted), challenges.get(name)


def _of_rules(expect: Expected, decision: NewOrderDecision) -> Iterator[tuple[str, object, object]]:
    if expect.rules is not None:
        applied = {name for rule in decision.rules if (name := _name_of(rule)) is not None}
        yield "rules", sorted(expect.rules), sorted(applied)
    if expect.warnings is not None:
        warned = {name for one in decision.warnings if (name := _name_of(one.rule)) is not None}
        yield "warnings", sorted(expect.warnings), sorted(warned)
    if expect.approval is not None:
        yield "approval", expect.approval, 0 if decision.approval is None else (
            decision.approval.people
        )  # fmt: skip
    if expect.approvers is not None:
        by = None if decision.approval is None else decision.approval.by
        yield "approvers", sorted(expect.approvers), "everybody" if by is None else sorted(by)
    if expect.quotas is not None:
        counted = [
            f"{one.per} {format_rate(Rate(one.limit, one.window))}" for one in decision.quotas
        ]
        yield "quotas", sorted(expect.quotas), sorted(counted)


def _name_of(rule: RuleRef | None) -> str | None:
    """Return what a rule is called, from the path that `rules` gives it."""
    if rule is None or not rule.path.startswith("rule '"):
        return None
    return rule.path.removeprefix("rule '").removesuffix("'")
