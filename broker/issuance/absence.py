"""When a node has been away for so long that its host may come again as another one.

Until then its key brings it back, so its name is its own, whatever somebody else shows.  Later
nothing brings it back, and a grant for this very node is enough to take its place.  What a person
stopped stays stopped: a drained or frozen node keeps its name until it is revoked.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from broker.issuance.freezes import Freezes
from broker.issuance.joining_ports import Grant
from broker.issuance.node_ports import NodeRecord, NodeStatus
from broker.issuance.ports import Clock

__all__ = ["Absences"]

log = structlog.get_logger("penstock")


class Absences:
    """Knows who is too late to come back, and whose place may be taken therefore."""

    def __init__(
        self, clock: Clock, return_within: timedelta, *, freezes: Freezes | None = None
    ) -> None:
        self._clock = clock
        self._return_within = return_within
        self._freezes = freezes

    def is_late(self, node: NodeRecord) -> bool:
        """Return whether the key of *node* brings it back no more."""
        return self._clock.now() > self._until(node)

    async def is_free_for(self, holder: NodeRecord, grant: Grant, *, is_anew: bool) -> bool:
        """Return whether *grant* takes the place of *holder*; where not, the log tells why.

        *is_anew* says that it is the same pod, started anew: that need not be late.

        Raises:
            Unreachable, Broken: What is frozen cannot be read.
        """
        if is_anew:
            why = await self._why_frozen(holder)
        elif grant.is_for_node:
            why = await self.why_kept(holder, grant.community)
        else:
            why = f"held by node {holder.node_id}, and what was shown was not made for this name"
        if why is None:
            return True
        log.warning("a node's name is held", node=holder.name, reason=f"{why}; revoke it first")
        return False

    async def why_kept(self, holder: NodeRecord, community: str) -> str | None:
        """Return why *holder* keeps its name before any newcomer to *community*; None: a grant for
        this very node takes it.

        Raises:
            Unreachable, Broken: What is frozen cannot be read.
        """
        held = f"held by node {holder.node_id}"
        if not self.is_late(holder):
            return f"{held} until {self._until(holder).isoformat(timespec='seconds')}"
        if holder.community != community:
            return f"{held} of community '{holder.community}'"
        if holder.status is not NodeStatus.ACTIVE:
            return f"{held}, which is {holder.status}"
        return await self._why_frozen(holder)

    async def _why_frozen(self, holder: NodeRecord) -> str | None:
        if self._freezes is None or not await self._freezes.of_account_id(holder.account_id):
            return None
        return f"held by node {holder.node_id}, which is frozen"

    def _until(self, node: NodeRecord) -> datetime:
        return node.identity_not_after + self._return_within
