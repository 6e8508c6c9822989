"""Named checks on what rules and bindings refuse outright: requests, requesters, what is unsure.

What rules narrow is no affair of theirs: the policy and the profile of a case are narrowed
already, so the other checks find what goes beyond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from broker.policy.checks import Case, CheckName, refused
from broker.policy.decisions import Finding, NewOrderDecision
from broker.policy.names import PatternSet
from broker.policy.requesters import Requester
from broker.policy.rulings import Hit
from broker.policy.units import format_duration
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import ProblemType, printable

__all__ = ["refusal_of", "shortfalls"]

MAX_NAMED: Final = 3
"""Most rules that one sentence names."""


def eab_names(case: Case[Any], identifier: Identifier) -> Finding | None:
    """The account's EAB key, if limited to names, is limited to ones that cover this one."""
    if case.eab is None or not case.eab.names:
        return None
    try:
        limits = PatternSet.parse(case.eab.names)
    except ValueError:
        limits = PatternSet([])  # A limit that cannot be read lets nothing through.
    if limits.covering(identifier.value) is not None:
        return None
    holder = printable(case.eab.holder, 300)
    return refused(CheckName.EAB_NAMES, identifier, f"is outside the names of {holder}")


def eab_profile(case: Case[Any]) -> Finding | None:
    """The account's EAB key, if limited to profiles, is limited to ones with this one."""
    if case.eab is None or not case.eab.profiles or case.chosen.name in case.eab.profiles:
        return None
    allowed = printable(", ".join(case.eab.profiles), 300)
    return Finding(
        check=CheckName.EAB_PROFILE,
        type=ProblemType.UNAUTHORIZED,
        sentence=f"profile '{case.chosen.name}' is outside the profiles of "
        f"{printable(case.eab.holder, 300)}: {allowed}",
    )


def rule_unsure(case: Case[Any]) -> Finding | None:
    """Every expression that had a say could be evaluated: what is unsure is refused."""
    for hit in case.ruling.enforced:
        if hit.fault is not None:
            return Finding(
                check=CheckName.RULE_UNSURE,
                type=ProblemType.SERVER_INTERNAL,
                sentence=f"{hit.rule} could not be evaluated, so nothing is allowed: "
                f"{printable(hit.fault, 300)}",
                rule=hit.rule.ref,
            )
    return None


def rule_refused(case: Case[Any]) -> Finding | None:
    """No rule that is about whole orders refuses this one, or this requester."""
    for hit in case.ruling.enforced:
        sentence = None if hit.is_about_names else refusal_of(case, hit)
        if sentence is not None:
            return Finding(
                check=CheckName.RULE_REFUSED,
                type=ProblemType.UNAUTHORIZED,
                sentence=f"the order is refused by {hit.rule}: {sentence}",
                rule=hit.rule.ref,
            )
    return _left_nothing(case)


def _left_nothing(case: Case[Any]) -> Finding | None:
    """Return what rules leave nothing of: no CSR and no certificate could be right."""
    for what, left, rule in (
        ("extended key usage", case.chosen.usages, case.chosen.usages_rule),
        ("kind of key", case.document.key_kinds, case.document.keys_rule),
    ):
        if not left and rule is not None and case.ruling.enforced:
            return Finding(
                check=CheckName.RULE_REFUSED,
                type=ProblemType.UNAUTHORIZED,
                sentence=f"the rules leave no {what} to profile '{case.chosen.name}', with "
                f"{rule.path} ({rule.source}:{rule.line})",
                rule=rule,
            )
    return _left_nobody(case)


def _left_nobody(case: Case[Any]) -> Finding | None:
    """Return that the rules want more people than they leave who may approve."""
    demand = case.ruling.approval
    if demand is None or demand.by is None or len(demand.by) >= demand.people:
        return None
    left = f"{', '.join(sorted(demand.by))} alone" if demand.by else "nobody"
    shown = ", ".join(f"{one.path} ({one.source}:{one.line})" for one in demand.rules[:MAX_NAMED])
    return Finding(
        check=CheckName.RULE_REFUSED,
        type=ProblemType.UNAUTHORIZED,
        sentence=f"the rules leave {left} to approve the order where {demand.people} "
        f"{'person has' if demand.people == 1 else 'people have'} to: {shown}; "
        "ask for fewer names at a time",
        rule=demand.rules[-1],
    )


def rule_refused_name(case: Case[Any], identifier: Identifier) -> Finding | None:
    """No rule that is about names refuses this one, or refuses it to this requester."""
    for hit in case.ruling.enforced:
        if not hit.is_about_names or identifier not in hit.identifiers:
            continue
        sentence = refusal_of(case, hit)
        if sentence is not None:
            return Finding(
                check=CheckName.RULE_REFUSED_NAME,
                type=ProblemType.REJECTED_IDENTIFIER,
                sentence=f"'{identifier}' is refused by {hit.rule}: {sentence}",
                identifier=identifier,
                rule=hit.rule.ref,
            )
    return None


def refusal_of(case: Case[Any], hit: Hit) -> str | None:
    """Return why the rule of *hit* refuses outright, or None."""
    rule = hit.rule
    if hit.fault is not None:
        return None
    if rule.refuse is not None:
        return rule.refuse
    if rule.only is not None and not rule.only.is_like(case.ruling.requester, if_unseen=False):
        return f"not for this requester: {rule.because}"
    return None


def owner_required(case: Case[Any]) -> Finding | None:
    """Somebody answers for the requester, where a rule asks for that."""
    if case.ruling.requester.owner:
        return None
    for hit in case.ruling.enforced:
        if hit.rule.is_owner_required:
            return Finding(
                check=CheckName.OWNER_REQUIRED,
                type=ProblemType.UNAUTHORIZED,
                sentence=f"{hit.rule} wants an owner, and nobody answers for this requester yet: "
                "an operator names one with penstock owner set",
                rule=hit.rule.ref,
            )
    return None


def attestation_required(case: Case[Any]) -> Finding | None:
    """The requester is a node that was let in by one of the ways that every rule asks for."""
    requester = case.ruling.requester
    for hit in case.ruling.enforced:
        ways = hit.rule.attestation
        if ways is None or requester.attestation in ways:
            continue
        return Finding(
            check=CheckName.ATTESTATION_REQUIRED,
            type=ProblemType.UNAUTHORIZED,
            sentence=f"{hit.rule} wants a node attested by {' or '.join(sorted(ways))}, "
            f"{_attested(requester)}",
            rule=hit.rule.ref,
        )
    return None


def _attested(requester: Requester) -> str:
    if requester.node is None:
        return "and this account is not one of a node with an agent"
    return f"and node '{requester.node}' was let in by {requester.attestation or 'no known way'}"


def shortfalls(
    decision: NewOrderDecision, supposed: NewOrderDecision, hits: Sequence[Hit]
) -> Iterator[Finding]:
    """Yield what an order would have less of, or need more for, if *hits* were enforced."""
    less = []
    if decision.plan is not None and supposed.plan is not None:
        before, after = decision.plan, supposed.plan
        if after.cap < before.cap:
            less.append(
                f"cap {format_duration(after.cap)} instead of {format_duration(before.cap)}"
            )
        if (after.upstream, after.upstream_profile) != (before.upstream, before.upstream_profile):
            less.append(f"upstream '{after.upstream}' instead of '{before.upstream}'")
    if less:
        yield _would(CheckName.RULE_NARROWS, hits, " and ".join(less))
    if supposed.approval is not None and supposed.approval != decision.approval:
        people = supposed.approval.people
        what = f"the approval of {people} {'person' if people == 1 else 'people'}"
        yield _would(CheckName.APPROVAL_REQUIRED, hits, what)


def _would(check: CheckName, hits: Sequence[Hit], what: str) -> Finding:
    told = " and ".join(str(hit.rule) for hit in hits[:MAX_NAMED])
    return Finding(
        check=check,
        type=ProblemType.UNAUTHORIZED,
        sentence=f"{told}, once enforced, means {what}",
        rule=hits[0].rule.ref,
    )
