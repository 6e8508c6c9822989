"""What is answered about pods that are not there yet, as the operator API describes it."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["WorkloadBudget", "WorkloadReason", "WorkloadReview"]


class WorkloadReason(TypedDict):
    """Why a pod would get nothing: a named check, and the rule that decided."""

    check: str
    detail: str
    rule: str | None
    file: str | None
    line: int | None


class WorkloadBudget(TypedDict):
    """What is left of a limit that the pod's order would take from."""

    upstream: str
    quota: str
    limit: str
    used: int
    would_exceed: bool
    detail: str | None


class WorkloadReview(TypedDict):
    """What a pod of a service account would get."""

    allowed: bool
    cluster: str
    namespace: str
    service_account: str
    community: str | None
    node: str | None
    names: list[str]
    profile: str | None
    upstreams: list[str]
    upstream: str | None
    reasons: list[WorkloadReason]
    budget: list[WorkloadBudget]
