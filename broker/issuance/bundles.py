"""Trust anchors and revocation lists for nodes that want them: sent when they change.

A bundle's version is higher than any before it, also after a restore from a backup.  A node that
comes and lacks the newest is sent it; when a bundle changes, nodes are sent it a batch at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.bundle_ports import (
    BUNDLE_NAMES,
    BundleContents,
    BundleRecord,
    BundleSource,
    BundleStore,
    NodeBundle,
)
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_ports import Connections, NodeMessage, NodeRecord
from broker.issuance.ports import Clock

__all__ = ["Bundles"]

REFRESH_EVERY: Final = timedelta(minutes=1)
"""How often it is looked whether a bundle has changed: reading files and lists that are in memory;
a revocation is in the lists of nodes within that, and a batch later."""

BATCH: Final = 200
"""Most nodes that are sent a bundle in one turn: with turns of five seconds 10,000 in four minutes,
and no more than a few MiB of messages at once."""

MAX_PEM_BYTES: Final = 2 * 1024 * 1024
"""Largest bundle that is sent, in bytes: half of what one answer of the channel may hold."""

log = structlog.get_logger(__name__)


class Bundles:
    """Sends bundles; implements ``channel.ports.BundleReports``."""

    def __init__(
        self, store: BundleStore, source: BundleSource, connections: Connections, clock: Clock
    ) -> None:
        self._store = store
        self._source = source
        self._connections = connections
        self._clock = clock
        self._known: dict[str, tuple[datetime, Mapping[str, tuple[BundleRecord, BundleContents]]]]
        self._known = {}

    # ------------------------------------------------------------------------ what nodes report

    async def wanted(self, node: NodeRecord, bundles: Sequence[str]) -> None:
        """Note what a node wants, and send what it lacks."""
        have = {one.bundle: one for one in await self._store.bundles_of(node.node_id)}
        dropped = [name for name in have if name not in bundles]
        new = [
            NodeBundle(
                node_id=node.node_id,
                bundle=name,
                community=node.community,
                sent_version=0,
                installed_version=0,
            )
            for name in dict.fromkeys(bundles)
            if name not in have and name in BUNDLE_NAMES
        ]
        if new or dropped:
            await self._store.keep_wanted(node.node_id, new, dropped)
        try:
            known = await self._current(node.community) if bundles else {}
        except (Unreachable, Broken) as error:
            # It is sent in a later turn; what else the node stated must not wait for it.
            log.warning("bundles are not to be had", node=node.name, reason=error.reason)
            return
        for name in {*(one.bundle for one in new), *have} - set(dropped):
            if name in known:
                record, contents = known[name]
                is_there = name in have and have[name].installed_version == record.version
                if not is_there:
                    await self._send(record, contents, [node.node_id])

    async def installed(self, node_id: str, bundle: str, version: int) -> None:
        """Note what a node has installed."""
        await self._store.note_installed(node_id, bundle, version)

    # -------------------------------------------------------------------------------- by the clock

    async def take_turn(self, communities: Sequence[str]) -> None:
        """Send what has changed to a batch of those that want it."""
        for community in communities:
            for name, (record, contents) in (await self._current(community)).items():
                behind = await self._store.nodes_behind(community, name, record.version, BATCH)
                if behind:
                    await self._send(record, contents, behind)

    async def _current(self, community: str) -> Mapping[str, tuple[BundleRecord, BundleContents]]:
        """Return the bundles of a community as they are; looked at anew after a while."""
        now = self._clock.now()
        at, known = self._known.get(community, (None, {}))
        if at is not None and now - at < REFRESH_EVERY:
            return known
        found = await self._source.contents(community)
        current = {}
        for name, contents in found.items():
            if len(contents.pem) > MAX_PEM_BYTES:
                log.error("bundle is too large to be sent", bundle=name, size=len(contents.pem))
                continue
            current[name] = await self._versioned(community, name, contents, now), contents
        self._known[community] = now, current
        return current

    async def _versioned(
        self, community: str, name: str, contents: BundleContents, now: datetime
    ) -> BundleRecord:
        digest = hashlib.sha256(contents.pem.encode("ascii")).hexdigest()
        kept = await self._store.find_bundle(community, name)
        if kept is not None and kept.sha256 == digest:
            return kept
        # By the clock, so that versions go on upwards where the store came out of a backup.
        version = max(0 if kept is None else kept.version + 1, int(now.timestamp()))
        record = BundleRecord(
            community=community, bundle=name, version=version, sha256=digest, changed_at=now
        )
        await self._store.keep_bundle(record)
        log.info("bundle changed", community=community, bundle=name, version=version)
        return record

    async def _send(
        self, record: BundleRecord, contents: BundleContents, node_ids: Sequence[str]
    ) -> None:
        body: dict[str, object] = {
            "bundle": record.bundle,
            "content": contents.content,
            "version": record.version,
            "pem": contents.pem,
        }
        messages = [
            NodeMessage(
                node_id=node_id, kind="bundle", subject=f"bundle/{record.bundle}", body=body
            )
            for node_id in node_ids
        ]
        await self._store.send_bundle(record.bundle, record.version, messages)
        for node_id in node_ids:
            self._connections.wake(node_id)
