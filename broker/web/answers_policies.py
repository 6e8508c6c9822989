"""How an order would be decided, as the operator API describes it (see ``web.answers``)."""

# No deferred annotations: whether a member may be left out would not be seen through them.
from typing import TypedDict

from broker.web.answers import Time

__all__ = ["PolicyExplanation"]


class ExplainedRequest(TypedDict):
    """What was supposed of the request; null: nothing was, and the time is now."""

    address: str | None
    client_names: list[str]
    client_fingerprint: str | None
    at: Time
    renewal: bool


class ExplainedFinding(TypedDict):
    """Why a check says no, about which name, and by which rule."""

    sentence: str
    name: str | None
    rule: str | None
    problem: str


class ExplainedGround(TypedDict):
    """A rule by which a check says yes, and about which name."""

    rule: str | None
    name: str | None


class ExplainedCheck(TypedDict):
    """A check that ran."""

    check: str
    findings: list[ExplainedFinding]
    grounds: list[ExplainedGround]


class ExplainedRule(TypedDict):
    """A rule that speaks of the order."""

    name: str
    rule: str | None
    because: str
    enforced: bool
    names: list[str]
    fault: str | None


class ExplainedApproval(TypedDict):
    """People who would have to say yes."""

    people: int
    answer_within: str
    holds: str
    evidence: list[str]
    by: list[str] | None
    names: list[str]
    rules: list[str | None]


class ExplainedQuota(TypedDict):
    """A quota that would count the order."""

    per: str
    limit: str
    kept_for_renewals: float
    upstreams: list[str] | None
    enforced: bool
    rule: str | None


class ExplainedRequirement(TypedDict):
    """What a name needs: one of the challenges, or nothing by a rule."""

    challenges: list[str]
    granted_by: str | None


class ExplainedUpstream(TypedDict):
    """An upstream that was thought of, and what stands in its way."""

    choice: str
    taken: bool
    obstacle: str | None
    sentence: str


class ExplainedPlan(TypedDict):
    """How the cap would be held, and at which upstream."""

    lever: str
    retires_after: str | None
    upstream: str
    upstream_profile: str | None
    ask_not_after: bool
    tolerance: str
    ct_logged: bool


class PolicyExplanation(TypedDict):
    """How an order would be decided, and by which rules."""

    names: list[str]
    community: str
    owner: str | None
    frozen: str | None
    caa: str
    request: ExplainedRequest
    allowed: bool
    profile: str | None
    policy_sha256: str
    checks: list[ExplainedCheck]
    not_run: list[str]
    rules: list[ExplainedRule]
    warnings: list[ExplainedFinding]
    approval: ExplainedApproval | None
    quotas: list[ExplainedQuota]
    keys: list[str]
    requirements: dict[str, ExplainedRequirement]
    cap: str | None
    cap_rule: str | None
    upstreams: list[ExplainedUpstream]
    plan: ExplainedPlan | None
