"""Policy cases: given this request, expect that decision, because.

Cases are the security team's tests.  They lie beside the policies, in the same YAML, and say what
a policy is for in requests that anyone can read; a policy that stops doing it fails its cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from broker.policy.chains import decide_new_order
from broker.policy.decisions import EabGrant, Lever, NewOrderDecision, NewOrderFacts
from broker.policy.document import PolicyDocument
from broker.policy.units import Duration, format_duration
from broker.policy.upstream_facts import UpstreamDescription, UpstreamOverrides, facts_for
from broker.policy.yamlfile import FileModel, load_model
from broker.protocol.identifiers import Identifier, parse_name_or_address
from broker.protocol.problems import Problem

__all__ = ["PolicyCase", "PolicyCases", "check_case", "parse_cases"]

_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class GivenEab(FileModel):
    """The external account binding of the account that asks."""

    key_id: _Text
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


class GivenUpstream(FileModel):
    """An upstream that is ready."""

    name: _Text
    description: _Text = Field(description="Name of a description in the facts file.")
    overrides: UpstreamOverrides = UpstreamOverrides()
    suspended: tuple[str | None, ...] = Field(
        default=(), description="Its profiles that are suspended; null: its default."
    )


class Given(FileModel):
    """A request, and the world at that moment."""

    names: tuple[str, ...] = Field(description="DNS names that are ordered.")
    profile: str | None = None
    not_after: Duration | None = Field(
        default=None, description="The end that the client asks for, counted from now."
    )
    at: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)
    eab: GivenEab | None = None
    upstreams: tuple[GivenUpstream, ...]
    public_suffixes: tuple[str, ...] = ()


class Expected(FileModel):
    """What is expected of the decision; what is left out is not looked at."""

    decision: Literal["allow", "refuse"]
    checks: tuple[str, ...] = Field(default=(), description="The checks that find something.")
    refused: tuple[str, ...] | None = Field(default=None, description="The names refused.")
    upstream: str | None = None
    upstream_profile: str | None = None
    lever: Lever | None = None
    cap: Duration | None = None
    challenges: dict[str, tuple[str, ...]] = Field(
        default={}, description="The challenges that each name needs; an empty list: none."
    )


class PolicyCase(FileModel):
    """One case."""

    name: _Text
    given: Given
    expect: Expected
    because: _Text


class PolicyCases(FileModel):
    """A file of cases about one policy."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["PolicyCases"]
    policy: _Text = Field(description="The policy's file, as seen from the folder of policies.")
    cases: tuple[PolicyCase, ...] = Field(min_length=1)


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
    try:
        identifiers = tuple(parse_name_or_address(name) for name in case.given.names)
    except Problem as problem:
        return (f"given what is neither a DNS name nor an address: {problem.detail}",)
    facts = _facts(document, case.given, identifiers, descriptions)
    return _compare(case.expect, decide_new_order(document, facts))


def _facts(
    document: PolicyDocument,
    given: Given,
    identifiers: tuple[Identifier, ...],
    descriptions: Mapping[str, UpstreamDescription],
) -> NewOrderFacts:
    eab = given.eab
    grant = None if eab is None else EabGrant(
        key_id=eab.key_id, names=eab.names, profiles=eab.profiles
    )  # fmt: skip
    return NewOrderFacts(
        community=document.community,
        identifiers=identifiers,
        profile=given.profile,
        not_before=None,
        not_after=None if given.not_after is None else given.at + given.not_after,
        at=given.at,
        account_thumbprint="",
        eab=grant,
        public_suffixes=frozenset(given.public_suffixes),
        upstreams=tuple(
            facts_for(upstream.name, upstream.description, upstream.overrides, descriptions)
            for upstream in given.upstreams
        ),
        suspended=frozenset(
            (upstream.name, profile)
            for upstream in given.upstreams
            for profile in upstream.suspended
        ),
    )


def _compare(expect: Expected, decision: NewOrderDecision) -> tuple[str, ...]:
    told = "; ".join(finding.sentence for finding in decision.findings) or "no findings"
    got = "refuse" if decision.is_refused else "allow"
    if got != expect.decision:
        return (f"expected {expect.decision}, got {got}: {told}",)
    differences: list[str] = []

    def compare(what: str, expected: object, found: object) -> None:
        if expected != found:
            differences.append(f"expected {what} {expected}, got {found}: {told}")

    if expect.checks:
        compare("checks", sorted(expect.checks), sorted({str(f.check) for f in decision.findings}))
    if expect.refused is not None:
        refused = {f.identifier.value for f in decision.findings if f.identifier is not None}
        compare("refused", sorted(expect.refused), sorted(refused))
    if decision.plan is not None:
        plan = decision.plan
        for what, expected, found in (
            ("upstream", expect.upstream, plan.upstream),
            ("upstream_profile", expect.upstream_profile, plan.upstream_profile),
            ("lever", expect.lever, plan.lever),
            ("cap", expect.cap and format_duration(expect.cap), format_duration(plan.cap)),
        ):
            if expected is not None:
                compare(what, expected, found)
    challenges = {
        identifier.value: [str(kind) for kind in need.challenges]
        for identifier, need in decision.requirements.items()
    }
    for name, wanted in expect.challenges.items():
        compare(f"challenges of {name}", list(wanted), challenges.get(name))
    return tuple(differences)
