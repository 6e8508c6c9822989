"""The values that policy takes and gives: facts, findings, decisions.

They carry no behaviour beyond small properties; ``checks.py`` and ``chains.py`` do the deciding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.policy.requesters import NOBODY, ClientCertificate, Requester
from broker.policy.upstream_values import DatedChange, ProfileLifetime, UpstreamFacts
from broker.protocol.certificates import Chain
from broker.protocol.challenges import ChallengeType
from broker.protocol.csr import ParsedCsr
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType

__all__ = [
    "ApprovalDemand",
    "CapPlan",
    "ClientCertificate",
    "DatedChange",
    "EabGrant",
    "FinalizeFacts",
    "Finding",
    "IssuedFacts",
    "Lever",
    "NewOrderDecision",
    "NewOrderFacts",
    "OnWithdrawal",
    "ProfileLifetime",
    "QuotaDemand",
    "QuotaPer",
    "Requester",
    "Requirement",
    "Retirement",
    "RuleRef",
    "UpstreamFacts",
]


RETRY_WHEN_UNSERVED: Final = timedelta(seconds=60)
"""When a client may ask again for what no upstream can be ordered for now.

What stands in the way (a suspension, an account that is not registered yet) ends by a person's
doing, so asking more often than once a minute finds nothing sooner.
"""

UNSERVED_STATUS: Final = 403
"""HTTP status of a finding that is no fault of the request.

After 5xx and 429 some clients send the very same request again, several times and whole minutes
apart (lego's command does), and what they show in the end is that its nonce was used; 409 is read
as an account that exists (certbot).  After 403 both show our sentence at once.
"""


class OnWithdrawal(StrEnum):
    """What becomes of certificates whose approval is withdrawn."""

    KEEP = "keep"
    REVOKE = "revoke"


class QuotaPer(StrEnum):
    """What a quota counts orders by.

    REQUESTER: the account.  EAB: the external account binding key, whichever accounts it bound.
    NAMES: the exact set of names.  DOMAIN: each registered domain among the names.  UPSTREAM: our
    account at the upstream that is chosen.  COMMUNITY: all of it together.  WORKLOAD: the service
    account of a cluster, whichever pods have it; who is none counts as its account.
    """

    REQUESTER = "requester"
    EAB = "eab"
    NAMES = "names"
    DOMAIN = "domain"
    UPSTREAM = "upstream"
    COMMUNITY = "community"
    WORKLOAD = "workload"


class Lever(StrEnum):
    """What holds the validity cap, in the order in which they are tried.

    ASK: the upstream honours ``notAfter`` and is asked for it.  PROFILE: the upstream profile is
    short enough on that date by the dated facts.  RETIRE: policy accepts a longer certificate and
    has it replaced and revoked, which holds no cap at all: it gives a retirement date.  REFUSE:
    nothing could meet it, so nothing was ordered.  VERIFY: what came back was longer, was withheld
    and revoked.
    """

    ASK = "ask"
    PROFILE = "profile"
    RETIRE = "retire"
    REFUSE = "refuse"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class RuleRef:
    """Where a rule stands: file name, line from 1, and its path in the file."""

    source: str
    line: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason to refuse, from one named check."""

    check: str
    type: ProblemType
    sentence: str
    identifier: Identifier | None = None
    rule: RuleRef | None = None
    lever: Lever | None = None
    """The lever that this refusal is, for findings about the validity cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EabGrant:
    """What the account's external account binding key, or its node, is limited to."""

    key_id: str
    """Empty for the account of a node."""
    names: tuple[str, ...]
    profiles: tuple[str, ...]
    node: str | None = None
    """Name of the node whose account it is."""
    cluster: str | None = None
    """Kubernetes cluster of that node, as the configuration calls it."""
    namespace: str | None = None
    """Kubernetes namespace of that node."""
    service_account: str | None = None
    """Kubernetes service account of that node."""
    attestation: str | None = None
    """How that node was let in."""
    upstreams: tuple[str, ...] | None = None
    """The only upstreams that issue for it; None: those that policy has."""
    owner: str | None = None
    """Who answers for the key or the node."""

    @property
    def holder(self) -> str:
        """Return what the limits belong to, for people."""
        return f"EAB key '{self.key_id}'" if self.node is None else f"node '{self.node}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrderFacts:
    """All that a newOrder decision may look at."""

    community: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    not_before: datetime | None
    not_after: datetime | None
    at: datetime
    account_thumbprint: str
    eab: EabGrant | None
    public_suffixes: frozenset[str]
    """Those names among the identifiers (without wildcard label) that are public suffixes."""
    upstreams: tuple[UpstreamFacts, ...]
    """Upstreams that are ready, in configuration order."""
    suspended: frozenset[tuple[str, str | None]] = frozenset()
    """(upstream, upstream profile) pairs that may not be ordered from."""
    away: Mapping[str, str] = field(default_factory=dict)
    """Upstreams that do not answer or limit us, each with a sentence; taken where no other will
    do."""
    frozen: Mapping[str, str] = field(default_factory=dict)
    """Upstreams that somebody stopped, each with a sentence; never taken."""
    requester: Requester = NOBODY
    is_unchanged_renewal: bool = False
    """Whether the account holds a certificate of exactly these names under this profile, so that
    rules may be graded apart for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What an identifier needs before it is authorized: one of these challenges, or nothing
    because *granted_by* names a trusted-requester rule."""

    challenges: tuple[ChallengeType, ...]
    granted_by: RuleRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """How a certificate that is longer than the cap comes to its end."""

    longest: timedelta
    """The lifetime that the upstream issues; a certificate past it is a breach all the same."""
    grace: timedelta
    """How long it stays good once its successor is in use."""
    revokes_unreplaced: bool
    """Whether it is revoked on its retirement date without a successor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapPlan:
    """How the validity cap will be held."""

    lever: Lever
    cap: timedelta
    rule: RuleRef
    upstream: str
    upstream_profile: str | None
    ask_not_after: bool
    tolerance: timedelta
    is_ct_logged: bool
    retirement: Retirement | None = None
    """Set under the lever RETIRE alone; then ``cap`` counts to the retirement date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDemand:
    """People have to say yes before the order is made; all rules that want it, merged."""

    people: int
    """How many, who are not the requester."""
    answer_within: timedelta
    """When an unanswered request ends."""
    holds: timedelta
    """How long the approval is good for further orders of these names."""
    reproof: timedelta | None = None
    """When the evidence has to be shown anew; None: when the approval ends."""
    on_withdrawal: OnWithdrawal = OnWithdrawal.KEEP
    evidence: tuple[str, ...] = ()
    """Kinds of evidence that an approver has to refer to."""
    by: frozenset[str] | None = None
    """Those who may, in every rule's eyes; None: everybody who approves in the community."""
    identifiers: tuple[Identifier, ...] = ()
    """Those of the order's identifiers that it is about."""
    rules: tuple[RuleRef, ...] = ()
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaDemand:
    """One quota of one rule; every one of them holds."""

    per: QuotaPer
    limit: int
    """Orders in *window*."""
    window: timedelta
    kept_for_renewals: float = 0.0
    """Share of *limit* that only renewals of unchanged names may use, from 0 to 1."""
    upstreams: frozenset[str] | None = None
    """Upstreams of which orders count; None: all."""
    is_enforced: bool = True
    """False: the rule is ``warn``, so that going past it is told and not refused."""
    identifiers: tuple[Identifier, ...] = ()
    """Those of the order's identifiers that the rule is about."""
    rule: RuleRef
    name: str
    """The rule's name: with *per* and its place among those of the rule, what the count is kept
    under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrderDecision:
    """The answer to a newOrder: findings, or all that is needed to go on."""

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    """Names of the checks that ran, in order."""
    policy_sha256: str
    """Of the whole set of files in force."""
    document_sha256: str = ""
    """Of the community's own document alone: as long as it stays, its rules are the same."""
    profile: str | None = None
    requirements: Mapping[Identifier, Requirement] = field(default_factory=dict)
    plan: CapPlan | None = None
    warnings: tuple[Finding, ...] = ()
    """What rules would find that are ``warn`` and not ``enforce`` yet."""
    approval: ApprovalDemand | None = None
    quotas: tuple[QuotaDemand, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Upstreams that would have been taken, were they not away; each with why."""
    rules: tuple[RuleRef, ...] = ()
    """Every rule that applied, warned of or enforced."""
    key_kinds: tuple[str, ...] = ()
    """Kinds of certificate key that hold after all rules."""
    usages: frozenset[str] = frozenset()
    """Extended key usages that hold after all rules, as dotted OIDs."""
    renew_at: float | None = None
    """Share of the lifetime after which renewal is suggested, the earliest of all rules."""

    @property
    def is_refused(self) -> bool:
        """Return whether anything was found, or no plan could be made."""
        return bool(self.findings) or self.plan is None

    def problem(self) -> Problem:
        """Return the one problem that tells all findings; meaningful only when refused.

        One finding: that problem.  Several: a compound problem, one subproblem each; its detail
        begins with the first of them, since most clients show nothing else.
        """
        made = [
            Problem(found.type, found.sentence, identifier=found.identifier)
            for found in self.findings
        ]
        if not made:
            return Problem(ProblemType.SERVER_INTERNAL, "policy made no plan for this order")
        if len(made) == 1:
            return _combined(made[0].type, made[0].detail, made)
        kinds = {problem.type for problem in made}
        kind = kinds.pop() if len(kinds) == 1 else ProblemType.COMPOUND
        detail = f"{made[0].detail}; and {len(made) - 1} more, see subproblems"
        return _combined(kind, detail, made)


def _combined(kind: ProblemType | None, detail: str, subproblems: Sequence[Problem]) -> Problem:
    """Return the problem over *subproblems*; one that is not the client's doing says when again."""
    if kind is not ProblemType.SERVER_INTERNAL:
        return Problem(kind or ProblemType.COMPOUND, detail, subproblems=subproblems)
    return Problem(
        kind,
        detail,
        status=UNSERVED_STATUS,
        subproblems=subproblems,
        retry_after=RETRY_WHEN_UNSERVED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeFacts:
    """All that a finalize decision may look at."""

    identifiers: tuple[Identifier, ...]
    profile: str
    csr: ParsedCsr
    is_account_key: bool
    weaknesses: tuple[str, ...]
    eab: EabGrant | None
    at: datetime
    granted: frozenset[Identifier] = frozenset()
    """Those of the identifiers that were authorized by a trusted-requester rule and not by a
    challenge: the rule must still stand."""
    requester: Requester = NOBODY
    is_unchanged_renewal: bool = False
    key_kinds: frozenset[str] | None = None
    """Kinds of key that held when the order was made; None: it was not kept."""
    usages: frozenset[str] | None = None
    """Extended key usages that held then, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedFacts:
    """All that the release gate may look at."""

    identifiers: tuple[Identifier, ...]
    profile: str
    csr: ParsedCsr
    chain: Chain
    is_chain_anchored: bool | None
    """None: no anchors are configured for this upstream, so there is nothing to check."""
    anchor_fault: str | None
    is_known: bool
    """Whether this very certificate was kept before."""
    received_at: datetime
    cap: timedelta
    tolerance: timedelta
    not_before: datetime | None
    not_after: datetime | None
    """As the client asked."""
    rule: RuleRef | None = None
    """The rule that set ``cap``; None: the one that would set it now."""
    longest: timedelta | None = None
    """Longest validity of an order that was decided under the lever RETIRE; None: the cap."""
    requester: Requester = NOBODY
    """As the order's decision kept it."""
    is_unchanged_renewal: bool = False
    usages: frozenset[str] | None = None
    """Extended key usages that finalize allowed; None, for orders of before."""
