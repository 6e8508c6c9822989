"""Nodes by the names that they want certificates for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.node_ports import NodeRecord
from broker.storage.nodes import NODES
from broker.storage.part import Part
from broker.storage.rows import json_of

__all__ = ["NodeNames"]

# One read of what is managed: it happens once for each name that a CA wants proven, and takes 30 ms
# over a hundred thousand certificates.
_NAMED_IN: Final = " ".join(
    (
        NODES.select,
        "WHERE status = 'active' AND community IN (SELECT value FROM json_each(?1))",
        "AND node_id IN (SELECT node_id FROM managed WHERE is_wanted = 1",
        "AND instr(identifiers, ?2) > 0) ORDER BY name LIMIT ?3",
    )
)


class NodeNames(Part):
    """The port NodeFinder."""

    async def nodes_named_in(
        self, name: str, communities: Sequence[str], limit: int
    ) -> Sequence[NodeRecord]:
        """Return active nodes that want a certificate for the name or address."""
        # As it stands in a list of identifiers: the whole of it, behind its type.
        text = json_of(["", name])[3:]
        return await self._database.scan(
            lambda snapshot: NODES.read_all(
                snapshot.all(_NAMED_IN, json_of(list(communities)), text, limit)
            )
        )
