"""The part of the desk about limits: what is left of each, and which CAs are left alone."""

from __future__ import annotations

from typing import Any, Final

from broker.issuance.quota_ports import BucketKind, BucketRecord
from broker.issuance.renewal_budget import bucket_as_of
from broker.operations import views
from broker.operations.rooms import Desk
from broker.policy.published_limits import LimitPer
from broker.policy.units import format_rate
from broker.web.operator import OperationError

__all__ = ["QuotaDesk"]

MAX_BUCKETS: Final = 1000
"""Most rows of one list: the emptiest buckets come first, and are the ones that matter."""


class QuotaDesk(Desk):
    """Commands about limits."""

    async def quota_show(
        self,
        *,
        community: str | None = None,
        upstream: str | None = None,
        limit: int = 100,
    ) -> Any:
        """Return what is left of limits and quotas that anything was taken of, and how CAs stand.

        Buckets that are full are not among them.
        """
        if not 0 < limit <= MAX_BUCKETS:
            raise OperationError(f"limit {limit} is not between 1 and {MAX_BUCKETS}")
        if community is not None:
            self._check_community(community)
        prefix = f"{BucketKind.CA}|{upstream}|" if upstream is not None else ""
        found = await self._store.list_buckets(prefix, MAX_BUCKETS)
        rows = [self._bucket(record) for record in found]
        rows = [row for row in rows if community in (None, row["community"])]
        now = self._rooms.clock.now()
        return {
            "buckets": rows[:limit],
            "holds": []
            if community is not None
            else [
                {
                    "upstream": hold.upstream,
                    "about": hold.subject or ("our account" if hold.account else "everything"),
                    "until": views.time_view(hold.until),
                    "since": views.time_view(hold.since),
                    "reason": hold.reason,
                }
                for hold in await self._store.holds(upstream, now)
            ][:limit],
            "left_alone": [
                {
                    "upstream": one.upstream,
                    "state": str(one.state),
                    "since": views.time_view(one.since),
                    "next_look": views.time_view(one.until),
                    "reason": one.reason,
                }
                for one in await self._store.breakers()
                if upstream in (None, one.upstream)
            ],
        }

    def _bucket(self, record: BucketRecord) -> views.View:
        now = self._rooms.clock.now()
        bucket = bucket_as_of(record, now)
        full = now + bucket.wait_for(float(bucket.rate.count))
        return {
            **_named(record),
            "limit": format_rate(bucket.rate),
            "left": int(bucket.level),
            "full": views.time_view(full),
        }


def _named(record: BucketRecord) -> views.View:
    """Return what the name of a bucket says."""
    kind, owner, *rest = record.bucket.split("|")
    if kind == BucketKind.CA:
        per, subject = rest[0], rest[-1]
        is_account = per == LimitPer.ACCOUNT
        return {
            "of": f"upstream {owner}",
            "per": per,
            "subject": subject,
            "community": subject if is_account else None,
        }
    rule, per, subject = rest[0], rest[1], rest[-1]
    return {"of": f"rule {rule}", "per": per, "subject": subject, "community": owner}
