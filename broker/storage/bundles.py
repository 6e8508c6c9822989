"""Bundles of anchors and revocation lists, and which nodes want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.issuance.bundle_ports import BundleRecord, NodeBundle
from broker.issuance.node_ports import NodeMessage
from broker.storage.outbox import queue
from broker.storage.part import Part
from broker.storage.rows import RowCodec
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Bundles"]

BUNDLES: Final = RowCodec("bundles", BundleRecord)
NODE_BUNDLES: Final = RowCodec("node_bundles", NodeBundle)

_BEHIND: Final = (
    "SELECT node_id FROM node_bundles INDEXED BY node_bundles_behind"
    " WHERE community = ? AND bundle = ? AND sent_version < ? AND EXISTS (SELECT 1 FROM nodes"
    " WHERE nodes.node_id = node_bundles.node_id AND nodes.status = 'active') LIMIT ?"
)


class Bundles(Part):
    """The port BundleStore."""

    async def bundles_of(self, node_id: str) -> Sequence[NodeBundle]:
        """Return what a node wants."""
        statement = NODE_BUNDLES.select + " WHERE node_id = ? ORDER BY bundle"
        return await self._database.read(
            lambda snapshot: NODE_BUNDLES.read_all(snapshot.all(statement, node_id))
        )

    async def keep_wanted(
        self, node_id: str, wanted: Sequence[NodeBundle], dropped: Sequence[str]
    ) -> None:
        """Keep what a node wants from now on, and forget what it no longer does."""

        def work(transaction: Transaction) -> None:
            transaction.change_each(
                "DELETE FROM node_bundles WHERE node_id = ? AND bundle = ?",
                [(node_id, bundle) for bundle in dropped],
            )
            transaction.change_each(
                NODE_BUNDLES.insert + " ON CONFLICT (node_id, bundle) DO NOTHING",
                [NODE_BUNDLES.values(one) for one in wanted],
            )

        await self._database.write(work)

    async def find_bundle(self, community: str, bundle: str) -> BundleRecord | None:
        """Return the bundle, or None."""

        def work(snapshot: Snapshot) -> BundleRecord | None:
            statement = BUNDLES.select + " WHERE community = ? AND bundle = ?"
            row = snapshot.first(statement, community, bundle)
            return None if row is None else BUNDLES.read(row)

        return await self._database.read(work)

    async def keep_bundle(self, record: BundleRecord) -> None:
        """Keep *record* in place of what is there; a version never goes down."""
        statement = " ".join(
            (
                BUNDLES.insert,
                "ON CONFLICT (community, bundle) DO UPDATE SET version = excluded.version,",
                "sha256 = excluded.sha256, changed_at = excluded.changed_at",
                "WHERE excluded.version > version",
            )
        )
        values = BUNDLES.values(record)
        await self._database.write(lambda transaction: transaction.change(statement, *values))

    async def nodes_behind(
        self, community: str, bundle: str, version: int, limit: int
    ) -> Sequence[str]:
        """Return ids of nodes that want the bundle and were sent no such version yet."""
        rows = await self._database.read(
            lambda snapshot: snapshot.all(_BEHIND, community, bundle, version, limit)
        )
        return [node_id for (node_id,) in rows]

    async def send_bundle(self, bundle: str, version: int, messages: Sequence[NodeMessage]) -> None:
        """Queue a version for these nodes, and note that it was sent."""

        def work(transaction: Transaction) -> None:
            queue(transaction, messages)
            transaction.change_each(
                "UPDATE node_bundles SET sent_version = max(sent_version, ?)"
                " WHERE node_id = ? AND bundle = ?",
                [(version, one.node_id, bundle) for one in messages],
            )

        await self._database.write(work)

    async def note_installed(self, node_id: str, bundle: str, version: int) -> None:
        """Note what a node has installed; without fsync, for it says so again."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "UPDATE node_bundles SET installed_version = ? WHERE node_id = ? AND bundle = ?"
                " AND ? <= sent_version",
                version,
                node_id,
                bundle,
                version,
            )

        await self._database.write(work, durable=False)
