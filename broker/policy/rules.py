"""Rules as they decide: conditions that can be asked, demands that can be merged.

A rule speaks of an order when every condition of it holds.  It knows neither the other rules nor
what becomes of its demands: ``rule_index`` finds rules, ``rulings`` merges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from broker.policy.addresses import parse_address
from broker.policy.decisions import OnWithdrawal, QuotaPer, Requester, RuleRef
from broker.policy.expressions import Expression
from broker.policy.names import PatternSet
from broker.policy.rule_form import ApprovalForm, RequesterForm, RuleForm, WhoForm
from broker.policy.units import Rate
from broker.policy.words import Usage
from broker.policy.yamlfile import KeyPath, Lines
from broker.protocol.identifiers import Identifier

__all__ = ["Approval", "Grade", "Quota", "Rule", "Who", "approval_of", "compile_rules"]


class Grade(StrEnum):
    """What a rule does to an order that it speaks of."""

    ENFORCE = "enforce"
    WARN = "warn"
    EXEMPT = "exempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """A description of requesters."""

    accounts: frozenset[str] | None = None
    eab: frozenset[str] | None = None
    nodes: PatternSet | None = None
    clusters: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    service_accounts: frozenset[str] | None = None
    networks: PatternSet | None = None
    certificates: frozenset[str] | None = None
    """Fingerprints behind ``sha256:``, and URIs."""
    client_names: PatternSet | None = None
    any: tuple[Who, ...] = ()

    def is_like(self, requester: Requester, *, if_unseen: bool) -> bool:
        """Return whether *requester* is like this.

        *if_unseen* is the answer about the network of a requester whose address nobody saw: what
        cannot be ruled out narrows, so it depends on what the answer is for.  A node has no
        address: the broker orders for it.
        """
        return (
            _is_in(requester.thumbprint, self.accounts)
            and _is_in(requester.eab_key_id, self.eab)
            and _is_covered(requester.node, self.nodes)
            and _is_in(requester.cluster, self.clusters)
            and _is_in(requester.namespace, self.namespaces)
            and self._fits_service_account(requester)
            and self._fits_network(requester, if_unseen=if_unseen)
            and self._fits_certificate(requester)
            and (not self.any or any(o.is_like(requester, if_unseen=if_unseen) for o in self.any))
        )

    def _fits_service_account(self, requester: Requester) -> bool:
        if self.service_accounts is None:
            return True
        return f"{requester.namespace}/{requester.service_account}" in self.service_accounts

    def _fits_network(self, requester: Requester, *, if_unseen: bool) -> bool:
        if self.networks is None:
            return True
        if requester.address is None:
            return if_unseen and requester.node is None
        if parse_address(requester.address) is None:
            return if_unseen
        return self.networks.covering(requester.address) is not None

    def _fits_certificate(self, requester: Requester) -> bool:
        shown = requester.client_certificate
        if self.certificates is not None and (
            shown is None
            or self.certificates.isdisjoint((f"sha256:{shown.fingerprint}", *shown.names))
        ):
            return False
        if self.client_names is None:
            return True
        return shown is not None and any(
            "/" not in name and self.client_names.covering(name) is not None for name in shown.names
        )


def _is_in(value: str | None, entries: frozenset[str] | None) -> bool:
    return entries is None or (value is not None and value in entries)


def _is_covered(value: str | None, patterns: PatternSet | None) -> bool:
    return patterns is None or (value is not None and patterns.covering(value) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """That people have to say yes."""

    people: int
    answer_within: timedelta
    holds: timedelta
    reproof: timedelta | None
    on_withdrawal: OnWithdrawal
    evidence: tuple[str, ...]
    by: frozenset[str] | None = None
    """The only people who may; None: everybody who approves in the community."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many orders may be made in a time."""

    per: QuotaPer
    rate: Rate
    kept_for_renewals: float
    upstreams: frozenset[str] | None = None
    """Upstreams of which orders count; None: all."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.  Without slots, since what it is called is kept."""

    name: str
    ref: RuleRef
    because: str
    grade: Grade
    renewal_grade: Grade
    """What it does to renewals of unchanged names."""
    who: Who | None = None
    not_who: Who | None = None
    names: PatternSet | None = None
    profiles: frozenset[str] | None = None
    starts: date | None = None
    until: date | None = None
    when: Expression | None = None
    refuse: str | None = None
    only: Who | None = None
    cap: timedelta | None = None
    keys: frozenset[str] | None = None
    usages: frozenset[Usage] | None = None
    challenges: frozenset[str] | None = None
    upstreams: frozenset[str] | None = None
    """Names of the upstreams that remain."""
    renew_at: float | None = None
    approval: Approval | None = None
    quotas: tuple[Quota, ...] = ()
    is_owner_required: bool = False
    attestation: frozenset[str] | None = None
    """Ways of node attestation of which one is needed."""

    @cached_property
    def place(self) -> tuple[str, int, str]:
        """Return what rules are sorted by, so that no order of files or entries matters."""
        return self.ref.source, self.ref.line, self.name

    def grade_for(self, *, is_unchanged_renewal: bool) -> Grade:
        """Return what the rule does to an order that it speaks of."""
        return self.renewal_grade if is_unchanged_renewal else self.grade

    def is_in_force(self, at: datetime) -> bool:
        """Return whether *at* lies within the rule's dates."""
        day = at.astimezone(UTC).date()
        is_begun = self.starts is None or self.starts <= day
        return is_begun and (self.until is None or day <= self.until)

    def is_about_requester(self, requester: Requester) -> bool:
        """Return whether the rule may speak of *requester*; what is unsure counts."""
        if self.who is not None and not self.who.is_like(requester, if_unseen=True):
            return False
        return self.not_who is None or not self.not_who.is_like(requester, if_unseen=False)

    def touched(self, identifiers: Sequence[Identifier]) -> tuple[Identifier, ...]:
        """Return those of *identifiers* that the rule speaks of; all, where it names none."""
        if self.names is None:
            return tuple(identifiers)
        return tuple(one for one in identifiers if self.names.touching(one.value))

    def __str__(self) -> str:
        return f"rule '{self.name}' ({self.ref.source}:{self.ref.line})"


def compile_rules(forms: Sequence[RuleForm], lines: Lines, path: KeyPath) -> tuple[Rule, ...]:
    """Return the rules of *forms*, which stand at *path* of the file that *lines* tells of."""
    return tuple(
        _rule(form, RuleRef(lines.source, lines.line((*path, n)), f"rule '{form.name}'"))
        for n, form in enumerate(forms)
    )


def _rule(form: RuleForm, ref: RuleRef) -> Rule:
    return Rule(
        name=form.name,
        ref=ref,
        because=form.because,
        grade=Grade(form.mode),
        renewal_grade=Grade(form.renewals or form.mode),
        who=_who(form.who),
        not_who=_who(form.not_who),
        names=None if form.names is None else PatternSet(form.names),
        profiles=None if form.profiles is None else frozenset(form.profiles),
        starts=form.starts,
        until=form.until,
        when=None if form.when is None else Expression.parse(form.when),
        refuse=form.refuse,
        only=_who(form.only),
        cap=form.cap,
        keys=None if form.keys is None else frozenset(str(kind) for kind in form.keys),
        usages=None if form.usages is None else frozenset(form.usages),
        challenges=(
            None if form.challenges is None else frozenset(str(kind) for kind in form.challenges)
        ),
        upstreams=None if form.upstreams is None else frozenset(form.upstreams),
        renew_at=form.renew_at,
        approval=approval_of(form.approval),
        quotas=tuple(
            Quota(
                per=one.per,
                rate=one.limit,
                kept_for_renewals=one.kept_for_renewals,
                upstreams=_words(one.upstreams),
            )
            for one in form.quotas or ()
        ),
        is_owner_required=form.owner is not None,
        attestation=_words(form.attestation),
    )


def _who(form: RequesterForm | None) -> Who | None:
    if form is None:
        return None
    others = (form.any or ()) if isinstance(form, WhoForm) else ()
    return Who(
        accounts=_words(form.accounts),
        eab=_words(form.eab),
        nodes=None if form.nodes is None else PatternSet(form.nodes),
        clusters=_words(form.clusters),
        namespaces=_words(form.namespaces),
        service_accounts=_words(form.service_accounts),
        networks=None if form.networks is None else PatternSet(form.networks),
        certificates=_words(form.client_certificates),
        client_names=None if form.client_names is None else PatternSet(form.client_names),
        any=tuple(made for one in others if (made := _who(one)) is not None),
    )


def _words(entries: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if entries is None else frozenset(entries)


def approval_of(form: ApprovalForm | None) -> Approval | None:
    """Return what a form demands of people."""
    if form is None:
        return None
    return Approval(
        people=form.people,
        answer_within=form.answer_within,
        holds=form.holds,
        reproof=form.reproof,
        on_withdrawal=form.on_withdrawal,
        evidence=form.evidence,
        by=_words(form.by),
    )
