"""The part of the desk about pods that are not there yet: what they would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.issuance.budgets import Budget
from broker.issuance.workload_review import Reason, Review, Workload
from broker.operations.rooms import Desk
from broker.operations.views import View
from broker.web.operator import OperationError

__all__ = ["WorkloadDesk"]


class WorkloadDesk(Desk):
    """Commands about workloads of clusters."""

    async def workload_review(
        self,
        *,
        cluster: str,
        namespace: str,
        service_account: str,
        pod: str = "",
        services: Sequence[str] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        names: Sequence[str] | None = None,
        profile: str | None = None,
    ) -> Any:
        """Return what a pod would get, and why not; nothing is taken or kept."""
        reviews = self._rooms.workloads
        if reviews is None or not reviews.communities_of(cluster):
            raise OperationError(
                f"there is no cluster '{cluster[:64]}'", "see agents.clusters of the configuration"
            )
        workload = Workload(
            cluster=cluster,
            namespace=namespace,
            service_account=service_account,
            pod=pod,
            services=None if services is None else tuple(services),
            labels=pod_labels,
            names=tuple(names or ()),
            profile=profile or None,
        )
        found = await reviews.review(workload)
        return {
            "allowed": found.is_allowed,
            "cluster": cluster,
            "namespace": namespace,
            "service_account": service_account,
            **_review_view(found),
        }


def _review_view(review: Review) -> View:
    return {
        "community": review.community or None,
        "node": review.node or None,
        "names": list(review.names),
        "profile": review.profile,
        "upstreams": list(review.upstreams),
        "upstream": review.upstream,
        "reasons": [_reason_view(one) for one in review.reasons],
        "budget": [_budget_view(one) for one in review.budgets],
    }


def _reason_view(reason: Reason) -> View:
    rule = reason.rule
    return {
        "check": reason.check,
        "detail": reason.detail,
        "rule": None if rule is None else rule.path,
        "file": None if rule is None else rule.source,
        "line": None if rule is None else rule.line,
    }


def _budget_view(budget: Budget) -> View:
    return {
        "upstream": budget.upstream,
        "quota": budget.quota,
        "limit": budget.limit,
        "used": budget.used,
        "would_exceed": budget.would_exceed,
        "detail": budget.detail or None,
    }
