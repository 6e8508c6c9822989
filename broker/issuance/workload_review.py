"""What a pod would get that is not there yet, by the same rules and checks; nothing is kept.

Whoever admits pods asks here, so that one which would wait for ever for its certificate is refused
before it starts, with the reason.  The answer is no promise: what is spent meanwhile is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.issuance.budgets import Budget, Limits, order_of
from broker.issuance.cluster_rules import Cluster, fill, grant_of
from broker.issuance.freezes import Freezes
from broker.issuance.joining_ports import Grant
from broker.issuance.node_ports import EnrolmentMethod
from broker.issuance.origins import NOWHERE
from broker.issuance.planning import Planner
from broker.issuance.ports import Clock, Policies
from broker.issuance.quotas import limited
from broker.issuance.records import AccountRecord
from broker.issuance.requesting import requester_of
from broker.issuance.standing import WORTH_LEAVING
from broker.policy.chains import Explanation, explain_name
from broker.policy.decisions import (
    EabGrant,
    Finding,
    NewOrderDecision,
    NewOrderFacts,
    RuleRef,
)
from broker.policy.document import PolicyDocument
from broker.protocol.identifiers import Identifier, parse_name_or_address
from broker.protocol.problems import Problem
from broker.protocol.resources import AccountStatus
from broker.protocol.service_account_token import ServiceAccount, TokenRejected

__all__ = ["Budget", "Reason", "Review", "Workload", "WorkloadReviews"]

UNNAMED: Final = "x"
"""Stands for what a pod's name does not say yet."""

MAX_NAMES: Final = 100
"""Most names that are looked at, as many as an order may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A pod that may come."""

    cluster: str
    namespace: str
    service_account: str
    pod: str = ""
    """Its name, or what its name begins with and ends in ``-``, or empty: it has none yet."""
    services: tuple[str, ...] | None = None
    """Services that select it; None: its cluster is asked, by *labels*."""
    labels: Mapping[str, str] | None = None
    names: tuple[str, ...] = ()
    """What it asks for; empty: what its rule gives it."""
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a pod would get nothing."""

    check: str
    detail: str
    rule: RuleRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What became of a question."""

    node: str = ""
    community: str = ""
    names: tuple[str, ...] = ()
    profile: str | None = None
    upstreams: tuple[str, ...] = ()
    upstream: str | None = None
    reasons: tuple[Reason, ...] = ()
    budgets: tuple[Budget, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """Return whether nothing speaks against it."""
        return not self.reasons and self.upstream is not None


class WorkloadReviews:
    """Answers what a pod would get."""

    def __init__(
        self,
        clusters: Sequence[Cluster],
        *,
        planner: Planner,
        policies: Policies,
        limits: Limits,
        clock: Clock,
        freezes: Freezes | None = None,
    ) -> None:
        self._clusters = {one.name: one for one in clusters}
        self._planner = planner
        self._policies = policies
        self._limits = limits
        self._clock = clock
        self._freezes = freezes

    def communities_of(self, cluster: str) -> frozenset[str]:
        """Return the communities that pods of *cluster* can be of; none for a stranger."""
        found = self._clusters.get(cluster)
        return frozenset() if found is None else found.communities

    async def review(self, workload: Workload) -> Review:
        """Return what the pod would get, and why not.

        Raises:
            LookupError: There is no such cluster.
            Unreachable: Its Services have to be asked for, and its API server is away.
        """
        cluster = self._clusters[workload.cluster]
        account = _account_of(workload)
        try:
            cluster = _with_known_names(cluster, account, workload)
            services = await self._services(cluster, account, workload)
            grant = grant_of(cluster, account, services)
        except TokenRejected as error:
            return Review(reasons=(Reason(check="cluster-rule", detail=str(error)),))
        node = _shown(cluster, account, workload)
        review = Review(node=node, community=grant.community, names=workload.names)
        try:
            names = workload.names or tuple(one for one in grant.names if "*" not in one)
            identifiers = tuple(parse_name_or_address(name) for name in names)
        except (ValueError, Problem) as error:
            text = error.detail if isinstance(error, Problem) else str(error)
            return replace(review, reasons=(Reason(check="names", detail=text),))
        if not names or len(names) > MAX_NAMES:
            detail = (
                f"{len(names)} names are asked for, at most {MAX_NAMES}"
                if names
                else f"no names are asked for, and the rule of cluster '{workload.cluster}' for "
                f"{account} gives none without a wildcard"
            )
            return replace(review, reasons=(Reason(check="names", detail=detail),))
        return await self._ask(replace(review, names=names), grant, identifiers, workload)

    async def _services(
        self, cluster: Cluster, account: ServiceAccount, workload: Workload
    ) -> Sequence[str]:
        if workload.services is not None or not cluster.rule_for(account).has_service_names:
            return workload.services or ()
        if cluster.pods is None or workload.labels is None:
            return ()
        return await cluster.pods.services_for(workload.namespace, workload.labels)

    # ------------------------------------------------------------------------------- the decision

    async def _ask(
        self,
        review: Review,
        grant: Grant,
        identifiers: tuple[Identifier, ...],
        workload: Workload,
    ) -> Review:
        asker = self._asker(grant)
        facts = await self._facts(asker, grant, identifiers, workload)
        document = self._policies.current(grant.community)
        explained = explain_name(document, facts)
        decision = explained.decision
        review = replace(
            review,
            profile=decision.profile,
            upstreams=_open_upstreams(explained),
            reasons=(
                *(_reason(found) for found in decision.findings),
                *_needed(decision, document),
                *await self._frozen(asker),
            ),
        )
        if decision.is_refused:
            return review
        return await self._within_limits(review, asker, facts)

    def _asker(self, grant: Grant) -> AccountRecord:
        """Return the account that the pod would have; it is in no store."""
        return AccountRecord(
            account_id="nobody",
            community=grant.community,
            status=AccountStatus.VALID,
            jwk_json="{}",
            thumbprint="",
            contacts=(),
            terms_agreed=True,
            eab_key_id=None,
            created_at=self._clock.now(),
        )

    async def _facts(
        self,
        asker: AccountRecord,
        grant: Grant,
        identifiers: tuple[Identifier, ...],
        workload: Workload,
    ) -> NewOrderFacts:
        facts = await self._planner.facts(
            asker,
            identifiers=identifiers,
            profile=workload.profile or None,
            not_before=None,
            not_after=None,
        )
        given = EabGrant(
            key_id="",
            names=grant.names,
            profiles=grant.profiles,
            node=grant.node,
            cluster=grant.cluster,
            namespace=grant.namespace,
            service_account=grant.service_account,
            attestation=EnrolmentMethod.KUBERNETES,
            upstreams=grant.upstreams,
            owner=grant.owner or None,
        )
        requester = requester_of(asker, given, NOWHERE, given.owner)
        return replace(facts, eab=given, requester=requester)

    async def _frozen(self, asker: AccountRecord) -> Sequence[Reason]:
        found = None if self._freezes is None else await self._freezes.of_account(asker)
        if found is None:
            return ()
        return (Reason(check="frozen", detail=f"nothing is ordered now: {found} is frozen"),)

    # ---------------------------------------------------------------------------------- the limits

    async def _within_limits(
        self, review: Review, asker: AccountRecord, facts: NewOrderFacts
    ) -> Review:
        """Return *review* with the CA that would be taken, or why none has room.

        It goes from CA to CA as ``spending.make_within`` does.
        """
        budgets: list[Budget] = []
        first: Reason | None = None
        while True:
            decision = self._planner.decide(facts)
            plan = decision.plan
            if plan is None or (first is not None and plan.upstream in facts.away):
                reasons = review.reasons if first is None else (*review.reasons, first)
                return replace(review, reasons=reasons, budgets=tuple(budgets))
            order = order_of(asker, facts, decision, plan)
            found, over = await self._limits.look(asker, order, decision.quotas)
            budgets += found
            if over is None:
                return replace(review, upstream=plan.upstream, budgets=tuple(budgets))
            first = first or Reason(check="budget", detail=limited(over).detail)
            if over.wait <= WORTH_LEAVING:
                reasons = (*review.reasons, first)
                return replace(review, reasons=reasons, budgets=tuple(budgets))
            away = {**facts.away, plan.upstream: limited(over).detail}
            facts = replace(facts, away=away)


def _account_of(workload: Workload) -> ServiceAccount:
    pod = workload.pod
    return ServiceAccount(
        namespace=workload.namespace,
        name=workload.service_account,
        pod=f"{pod}{UNNAMED}" if not pod or pod.endswith("-") else pod,
        node=None,
    )


def _is_named(workload: Workload) -> bool:
    return bool(workload.pod) and not workload.pod.endswith("-")


def _with_known_names(cluster: Cluster, account: ServiceAccount, workload: Workload) -> Cluster:
    """Return *cluster* with the names alone that do not hang on a pod's name that is not known.

    Raises:
        TokenRejected: None is left, or no rule speaks of it.
    """
    rule = cluster.rule_for(account)
    if _is_named(workload):
        return cluster
    known = tuple(name for name in rule.names if "{pod}" not in name)
    if rule.names and not known:
        raise TokenRejected(
            f"the names that the rule of cluster '{cluster.name}' gives {account} hang on the name "
            "of the pod, which is not known yet"
        )
    return replace(cluster, rules=(replace(rule, names=known),))


def _shown(cluster: Cluster, account: ServiceAccount, workload: Workload) -> str:
    """Return what the node will be called, with a star for what is not known yet."""
    values = {
        "cluster": cluster.name,
        "namespace": account.namespace,
        "service_account": account.name,
        "pod": workload.pod if _is_named(workload) else "*",
    }
    return fill(cluster.rule_for(account).node, values)


def _open_upstreams(explained: Explanation) -> tuple[str, ...]:
    found = [judged.choice.upstream for judged in explained.choices if judged.plan is not None]
    return tuple(dict.fromkeys(found))


def _reason(found: Finding) -> Reason:
    return Reason(check=found.check, detail=found.sentence, rule=found.rule)


def _needed(decision: NewOrderDecision, document: PolicyDocument) -> Sequence[Reason]:
    """Return what the order would wait for, and no pod can do."""
    reasons = []
    if decision.approval is not None:
        rule = decision.approval.rules[0] if decision.approval.rules else None
        people = decision.approval.people
        what = "a person has" if people == 1 else f"{people} people have"
        detail = f"{what} to say yes to each order, which no pod can wait for"
        reasons.append(Reason(check="approval", detail=detail, rule=rule))
    profile = document.profile(decision.profile)
    on_nodes = profile.on_nodes.challenges if profile is not None else ()
    for identifier, needed in decision.requirements.items():
        if needed.granted_by is None and not set(needed.challenges) & set(on_nodes):
            detail = (
                f"control of '{identifier}' would have to be proved, and profile "
                f"'{decision.profile}' has no such challenge under 'on_nodes': let the rules of "
                "'trusted' name its nodes"
            )
            reasons.append(Reason(check="control", detail=detail))
    return reasons
