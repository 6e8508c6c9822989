"""Records as an operator sees them: plain JSON with stable names, times in RFC 3339.

No private key, no MAC key and no CSR body is ever shown; names and fingerprints are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.issuance.events import Event, EventKind
from broker.issuance.key_rotation import AccountKeyView
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CertificateRecord,
    EabKeyRecord,
    Job,
    OrderRecord,
    Suspension,
    UpstreamAccountRecord,
    WorkRecord,
)
from broker.policy.chains import Explanation
from broker.policy.decisions import (
    ApprovalDemand,
    CapPlan,
    Finding,
    Lever,
    QuotaDemand,
    RuleRef,
)
from broker.policy.grounds import Ground
from broker.policy.rulings import Hit
from broker.policy.units import Rate, format_duration, format_rate
from broker.policy.validity import Judgement
from broker.protocol.encoding import format_timestamp

__all__ = [
    "View",
    "account_key_view",
    "account_view",
    "authorization_view",
    "certificate_view",
    "eab_view",
    "event_view",
    "explanation_view",
    "order_view",
    "suspension_view",
    "time_view",
    "upstream_account_view",
    "waiting_view",
    "work_view",
]

View = dict[str, object]


def time_view(moment: datetime | None) -> str | None:
    """Return a moment, or nothing."""
    return format_timestamp(moment) if moment is not None else None


_time = time_view


def _length(order: OrderRecord) -> View:
    """Return the cap, or what stands in its place: a retirement date is none."""
    length = format_duration(timedelta(seconds=order.cap_seconds))
    is_retiring = order.decision.get("lever") == Lever.RETIRE
    return {"cap": None, "retires_after": length} if is_retiring else {"cap": length}


def _rule(rule: RuleRef | None) -> str | None:
    return f"{rule.source}:{rule.line} {rule.path}" if rule is not None else None


def account_view(account: AccountRecord) -> View:
    """Return an account."""
    return {
        "account": account.account_id,
        "community": account.community,
        "status": str(account.status),
        "contacts": list(account.contacts),
        "thumbprint": account.thumbprint,
        "eab_key": account.eab_key_id,
        "owner": account.owner,
        "contact": account.contact,
        "owner_by": "own" if account.owner else "",
        "created": _time(account.created_at),
    }


def order_view(order: OrderRecord) -> View:
    """Return an order without what belongs to it."""
    return {
        "order": order.order_id,
        "account": order.account_id,
        "community": order.community,
        "status": str(order.status),
        "names": [identifier.value for identifier in order.identifiers],
        "profile": order.profile,
        "upstream": order.upstream,
        "upstream_profile": order.upstream_profile,
        **_length(order),
        "not_before": _time(order.not_before),
        "not_after": _time(order.not_after),
        "created": _time(order.created_at),
        "expires": _time(order.expires_at),
        "finalized": _time(order.finalized_at),
        "csr_sha256": order.csr_sha256,
        "certificate": order.certificate_id,
        "error": dict(order.error) if order.error is not None else None,
    }


def lever_of(order: OrderRecord, events: Sequence[Event]) -> str | None:
    """Return the lever that held the cap: the planned one, unless the last had to.

    A certificate that was withheld was caught by looking at it, whatever had been planned.
    """
    if any(event.kind is EventKind.CERTIFICATE_WITHHELD for event in events):
        return str(Lever.VERIFY)
    planned = order.decision.get("lever")
    return str(planned) if planned is not None else None


def authorization_view(authorization: AuthorizationRecord) -> View:
    """Return an authorization with its challenges, without their tokens."""
    name = authorization.identifier.value
    return {
        "authorization": authorization.authorization_id,
        "name": f"*.{name}" if authorization.is_wildcard else name,
        "status": str(authorization.status),
        "proof": str(authorization.proof) if authorization.proof is not None else None,
        "expires": _time(authorization.expires_at),
        "challenges": [
            {
                "type": str(challenge.type),
                "status": str(challenge.status),
                "validated": _time(challenge.validated_at),
                "error": dict(challenge.error) if challenge.error is not None else None,
            }
            for challenge in authorization.challenges
        ],
    }


def work_view(work: WorkRecord | None) -> View | None:
    """Return the upstream order that an order took."""
    if work is None:
        return None
    return {
        "work": work.work_id,
        "status": str(work.status),
        "url": work.order_url,
        "not_after": _time(work.not_after),
        "created": _time(work.created_at),
    }


def waiting_view(job: Job | None) -> View | None:
    """Return what an unfinished order waits for, as its last attempt said."""
    if job is None:
        return None
    return {"for": job.note, "attempts": job.attempts, "next": _time(job.due_at)}


def certificate_view(certificate: CertificateRecord, retires: datetime | None = None) -> View:
    """Return a certificate without its PEM; *retires* is its retirement date, if it has one."""
    return {
        "certificate": certificate.certificate_id,
        "order": certificate.order_id,
        "account": certificate.account_id,
        "community": certificate.community,
        "upstream": certificate.upstream,
        "names": [identifier.value for identifier in certificate.identifiers],
        "serial": certificate.serial,
        "fingerprint": certificate.fingerprint,
        "not_before": _time(certificate.not_before),
        "not_after": _time(certificate.not_after),
        "retires": _time(retires),
        "received": _time(certificate.received_at),
        "released": certificate.is_released,
        "upstream_account": certificate.upstream_account,
        "revoked": _time(certificate.revoked_at),
        "revocation_reason": certificate.revocation_reason,
    }


def eab_view(key: EabKeyRecord) -> View:
    """Return an external account binding key without its MAC key."""
    return {
        "key_id": key.key_id,
        "community": key.community,
        "label": key.label,
        "names": list(key.names),
        "profiles": list(key.profiles),
        "reusable": key.is_reusable,
        "created": _time(key.created_at),
        "expires": _time(key.expires_at),
        "revoked": _time(key.revoked_at),
        "account": key.bound_account_id,
        "sealed_by": key.sealed_by,
        "owner": key.owner,
        "contact": key.contact,
        "owner_by": "own" if key.owner else "",
    }


def suspension_view(suspension: Suspension) -> View:
    """Return a suspended pair."""
    return {
        "upstream": suspension.upstream,
        "profile": suspension.upstream_profile,
        "since": _time(suspension.since),
        "order": suspension.order_id,
        "rule": suspension.rule,
    }


def upstream_account_view(account: UpstreamAccountRecord) -> View:
    """Return our account at a CA."""
    return {
        "upstream": account.upstream,
        "community": account.community,
        "url": account.account_url,
        "thumbprint": account.thumbprint,
        "registered": _time(account.registered_at),
    }


def account_key_view(key: AccountKeyView) -> View:
    """Return how the key of our account at a CA is; its id tells where it lies."""
    failure = key.failure
    return {
        "id": key.key_id,
        "since": _time(key.since),
        "rotates": _time(key.due_at),
        "failures": failure.failures if failure is not None else 0,
        "failed": _time(failure.failed_at if failure is not None else None),
        "reason": failure.reason if failure is not None else None,
        "not_retired": key.not_retired,
    }


def event_view(number: int, event: Event) -> View:
    """Return one row of the event table."""
    return {
        "number": number,
        "at": _time(event.at),
        "kind": str(event.kind),
        "actor": event.actor.name,
        "reason": event.actor.reason,
        "data": dict(event.data),
    }


def explanation_view(explained: Explanation) -> View:
    """Return why a newOrder would be decided as it would."""
    decision = explained.decision
    ruling = explained.ruling
    is_retiring = decision.plan is not None and decision.plan.retirement is not None
    return {
        "allowed": not decision.is_refused,
        "profile": decision.profile,
        "policy_sha256": decision.policy_sha256,
        "checks": [
            {
                "check": str(step.check),
                "findings": [_finding(each) for each in step.findings],
                "grounds": [_ground(each) for each in step.grounds],
            }
            for step in explained.steps
        ],
        "not_run": [str(name) for name in explained.not_run],
        "rules": [_hit(hit) for hit in explained.rules.hits],
        "warnings": [_finding(each) for each in decision.warnings],
        "approval": _approval(decision.approval),
        "quotas": [_quota(each) for each in decision.quotas],
        "keys": list(decision.key_kinds),
        "requirements": {
            str(identifier): {
                "challenges": [str(kind) for kind in needed.challenges],
                "granted_by": _rule(needed.granted_by),
            }
            for identifier, needed in decision.requirements.items()
        },
        "cap": format_duration(ruling.cap) if ruling is not None and not is_retiring else None,
        "cap_rule": _rule(ruling.rule) if ruling is not None else None,
        "upstreams": [_judgement(judged, decision.plan) for judged in explained.choices],
        "plan": _plan(decision.plan),
    }


def _judgement(judged: Judgement, plan: CapPlan | None) -> View:
    return {
        "choice": str(judged.choice),
        "taken": plan is not None and judged.plan == plan,
        "obstacle": str(judged.obstacle) if judged.obstacle is not None else None,
        "sentence": judged.sentence,
    }


def _hit(hit: Hit) -> View:
    rule = hit.rule
    return {
        "name": rule.name,
        "rule": _rule(rule.ref),
        "because": rule.because,
        "enforced": hit.is_enforced,
        "names": [one.value for one in hit.identifiers],
        "fault": hit.fault,
    }


def _ground(ground: Ground) -> View:
    name = None if ground.identifier is None else ground.identifier.value
    return {"rule": _rule(ground.rule), "name": name}


def _quota(demand: QuotaDemand) -> View:
    return {
        "per": str(demand.per),
        "limit": format_rate(Rate(demand.limit, demand.window)),
        "kept_for_renewals": demand.kept_for_renewals,
        "upstreams": None if demand.upstreams is None else sorted(demand.upstreams),
        "enforced": demand.is_enforced,
        "rule": _rule(demand.rule),
    }


def _approval(demand: ApprovalDemand | None) -> View | None:
    if demand is None:
        return None
    return {
        "people": demand.people,
        "answer_within": format_duration(demand.answer_within),
        "holds": format_duration(demand.holds),
        "evidence": list(demand.evidence),
        "by": None if demand.by is None else sorted(demand.by),
        "names": [one.value for one in demand.identifiers],
        "rules": [_rule(rule) for rule in demand.rules],
    }


def _plan(plan: CapPlan | None) -> View | None:
    if plan is None:
        return None
    return {
        "lever": str(plan.lever),
        "retires_after": format_duration(plan.cap) if plan.retirement is not None else None,
        "upstream": plan.upstream,
        "upstream_profile": plan.upstream_profile,
        "ask_not_after": plan.ask_not_after,
        "tolerance": format_duration(plan.tolerance),
        "ct_logged": plan.is_ct_logged,
    }


def _finding(finding: Finding) -> View:
    return {
        "sentence": finding.sentence,
        "name": finding.identifier.value if finding.identifier is not None else None,
        "rule": _rule(finding.rule),
        "problem": finding.type.token,
    }
