"""What let a check pass: the rule behind each yes, for ``policy explain``.

A refusal names its rule in its finding.  A yes has a rule as well, the pattern that covers a name
or the cap that was held, and whoever reviews a policy wants to see that one too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.policy.checks import Case, CheckName
from broker.policy.communities import requirement_for
from broker.policy.decisions import NewOrderFacts, RuleRef
from broker.policy.validity import Judgement, is_kept_private, rule_cap
from broker.protocol.identifiers import Identifier

__all__ = ["Ground", "grounds_of"]


@dataclass(frozen=True, slots=True)
class Ground:
    """A rule that let something pass."""

    rule: RuleRef
    identifier: Identifier | None = None
    """The name that it let pass; None: the whole order."""


def grounds_of(
    check: CheckName, case: Case[NewOrderFacts], judged: Sequence[Judgement]
) -> tuple[Ground, ...]:
    """Return the rules that had *check* find nothing; empty: no rule had a say."""
    if case.profile is None:
        return ()
    if check is CheckName.CAP_PLAN:
        return tuple(_of_plan(judged))
    find = _GROUNDS.get(check)
    return () if find is None else tuple(find(case))


def _profile_offered(case: Case[Any]) -> Iterator[Ground]:
    yield Ground(case.chosen.rule)


def _name_allowed(case: Case[Any]) -> Iterator[Ground]:
    for identifier in dict.fromkeys(case.identifiers):
        rule = case.document.allow.covering(identifier.value)
        if rule is not None:
            yield Ground(rule, identifier)


def _profile_names(case: Case[Any]) -> Iterator[Ground]:
    names = case.chosen.names
    for identifier in dict.fromkeys(case.identifiers) if names is not None else ():
        rule = None if names is None else names.covering(identifier.value)
        if rule is not None:
            yield Ground(rule, identifier)


def _wildcard_allowed(case: Case[Any]) -> Iterator[Ground]:
    for identifier in dict.fromkeys(case.identifiers):
        if identifier.is_wildcard and case.document.wildcards:
            yield Ground(case.document.wildcards_rule, identifier)


def _control_provable(case: Case[Any]) -> Iterator[Ground]:
    for identifier in dict.fromkeys(case.identifiers):
        needed = requirement_for(case.document, case.chosen, case.eab, identifier)
        if needed is not None:
            yield Ground(needed.granted_by or case.document.challenges_rule, identifier)


def _private_name(case: Case[Any]) -> Iterator[Ground]:
    for identifier in dict.fromkeys(case.identifiers):
        if is_kept_private(case.document, identifier):
            yield Ground(case.document.ct_rule, identifier)


def _not_after(case: Case[NewOrderFacts]) -> Iterator[Ground]:
    if case.facts.not_after is not None:
        yield Ground(rule_cap(case.document, case.chosen, case.identifiers).rule)


def _of_plan(judged: Sequence[Judgement]) -> Iterator[Ground]:
    taken = next((one for one in judged if one.plan is not None), None)
    if taken is not None and taken.plan is not None:
        yield Ground(taken.plan.rule)
        yield Ground(taken.choice.rule)


_GROUNDS: Final[Mapping[CheckName, Callable[[Case[NewOrderFacts]], Iterator[Ground]]]] = {
    CheckName.PROFILE_OFFERED: _profile_offered,
    CheckName.NAME_ALLOWED: _name_allowed,
    CheckName.PROFILE_NAMES: _profile_names,
    CheckName.WILDCARD_ALLOWED: _wildcard_allowed,
    CheckName.CONTROL_PROVABLE: _control_provable,
    CheckName.PRIVATE_NAME: _private_name,
    CheckName.NOT_AFTER: _not_after,
}
"""What is asked for the rule behind a yes; a check that is not here has none."""
