"""Nodes that are bound to pods: those that have ended, and those that nobody asks about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.node_ports import NodeRecord
from broker.storage.nodes import NODES
from broker.storage.part import Part
from broker.storage.rows import json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Pods"]

_ENDED: Final = " ".join(
    (
        NODES.select,
        "INDEXED BY nodes_of_pods",
        "WHERE pod IS NOT NULL AND status IN ('active', 'drained') AND identity_not_after < ?1",
        "ORDER BY identity_not_after, node_id LIMIT ?2",
    )
)
_HALF_ENDED: Final = " ".join(
    (
        NODES.select,
        "INDEXED BY nodes_of_pods",
        "WHERE pod IS NOT NULL AND status = 'revoked' AND identity_not_after < ?1",
        # Whatever came in between when its account was to be closed.
        "AND EXISTS (SELECT 1 FROM accounts a WHERE a.account_id = nodes.account_id",
        "AND a.status = 'valid')",
        "ORDER BY identity_not_after, node_id LIMIT ?2",
    )
)
_FORGETTABLE: Final = " ".join(
    (
        "n.pod IS NOT NULL AND n.status = 'revoked' AND n.identity_not_after < ?1",
        # An account without its node would be one that nothing narrows.
        "AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.account_id = n.account_id",
        "AND a.status = 'valid')",
        # What was delivered, and is on its way, or was for a certificate that is still good.
        "AND NOT EXISTS (SELECT 1 FROM managed m JOIN deliveries d ON d.managed_id = m.managed_id",
        "LEFT JOIN certificates c ON c.certificate_id = d.certificate_id",
        "WHERE m.node_id = n.node_id",
        "AND (d.ended_at IS NULL OR d.ended_at >= ?1 OR c.not_after >= ?1))",
        # What an incident is, or was, about stays for whoever reads about it.
        "AND NOT EXISTS (SELECT 1 FROM managed m WHERE m.node_id = n.node_id AND m.managed_id IN",
        "(SELECT managed_id FROM incident_items WHERE managed_id IS NOT NULL))",
    )
)
_TO_FORGET: Final = " ".join(
    (
        "SELECT n.node_id FROM nodes n INDEXED BY nodes_of_pods WHERE",
        _FORGETTABLE,
        "ORDER BY n.identity_not_after, n.node_id LIMIT ?2",
    )
)
_STILL: Final = " ".join(
    (
        "SELECT n.node_id FROM nodes n",
        "WHERE n.node_id IN (SELECT value FROM json_each(?2)) AND",
        _FORGETTABLE,
    )
)
_GIVEN: Final = "(SELECT value FROM json_each(?))"
_OF_NODES: Final = f"node_id IN {_GIVEN}"
_MANAGED: Final = f"SELECT managed_id FROM managed WHERE {_OF_NODES}"  # noqa: S608 - words of ours
_DELIVERIES: Final = f"SELECT delivery_id FROM deliveries WHERE managed_id IN ({_MANAGED})"  # noqa: S608 - words of ours
_FORGET: Final = (
    f"UPDATE join_tokens SET used_by = NULL WHERE used_by IN {_GIVEN}",  # noqa: S608 - words of ours
    f"UPDATE enrolment_requests SET node_id = NULL WHERE {_OF_NODES}",  # noqa: S608 - words of ours
    # Whose jobs would find nothing.
    f"DELETE FROM jobs WHERE kind = 'deliver' AND subject IN ({_DELIVERIES})",  # noqa: S608 - words of ours
    f"DELETE FROM deliveries WHERE managed_id IN ({_MANAGED})",  # noqa: S608 - words of ours
    *(
        f"DELETE FROM {table} WHERE {_OF_NODES}"  # noqa: S608 - words of ours
        for table in (
            "managed", "node_bundles", "node_messages", "node_sequences", "node_identities",
            "nodes",
        )
    ),
)  # fmt: skip
"""What is forgotten with a node, in the order in which one names the other."""


class Pods(Part):
    """The port PodNodes."""

    async def ended_pods(self, before: datetime, limit: int) -> Sequence[NodeRecord]:
        """Return nodes of pods whose identity ended before that, unless they are revoked and
        their accounts closed."""
        at = time_of(before)

        def look(snapshot: Snapshot) -> Sequence[NodeRecord]:
            found = NODES.read_all(snapshot.all(_ENDED, at, limit))
            return [*found, *NODES.read_all(snapshot.all(_HALF_ENDED, at, limit - len(found)))]

        return await self._database.scan(look)

    async def forget_pods(self, before: datetime, limit: int) -> int:
        """Forget the first *limit* that nobody asks about any more; see ``issuance.pod_ends``.

        They are looked for beside the writer, and what they are is seen to again in the
        transaction that forgets them.
        """
        at = time_of(before)

        def look(snapshot: Snapshot) -> list[str]:
            return [found for (found,) in snapshot.all(_TO_FORGET, at, limit)]

        ids = await self._database.scan(look)
        if not ids:
            return 0

        def forget(transaction: Transaction) -> int:
            still = [found for (found,) in transaction.all(_STILL, at, json_of(ids))]
            words = json_of(still)
            for statement in _FORGET:
                transaction.change(statement, words)
            return len(still)

        return await self._database.write(forget, durable=False)
