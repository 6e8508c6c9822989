"""What the cluster has of one kind, kept in memory by list and watch.

A mirror lists once and then follows each change.  When the server has forgotten where it was (410)
it lists anew; when the server is away it comes back, more slowly each time, and what is known stays
known meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import structlog

from broker.admission.cluster_api import Cluster, Gone, NotThere, Selection
from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = ["Key", "Mirror", "Pauses"]

SHORTEST: Final = timedelta(milliseconds=500)
"""Shortest pause before the next try: an API server that is started anew is away for seconds."""

LONGEST: Final = timedelta(seconds=30)
"""Longest pause before the next try."""

log = structlog.get_logger("penstock.admission")

Key = tuple[str, str]
"""Namespace and name of an object; one that is in no namespace has an empty one."""

Kept = TypeVar("Kept")

Sleep = Callable[[float], Awaitable[object]]


class Pauses:
    """How long to wait after failures in a row: longer each time, and never all at once."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0

    def next(self) -> float:
        """Return how many seconds to wait now."""
        self._failures = min(self._failures + 1, 16)
        most = min(LONGEST, SHORTEST * (1 << self._failures)).total_seconds()
        least = SHORTEST.total_seconds()
        return least + self._draw() * (most - least)


class Mirror(Generic[Kept]):
    """The objects of one selection, each reduced to what is needed of it."""

    def __init__(
        self,
        what: str,
        cluster: Cluster,
        selection: Selection,
        *,
        reduce: Callable[[Mapping[str, Any]], Kept | None],
        on_change: Callable[[Key], None] = lambda _key: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*reduce* returns None for an object that is of no interest; *on_change* is told the key
        of each that was made, changed or taken away, once ``get`` answers accordingly."""
        self.what = what
        self._cluster = cluster
        self._selection = selection
        self._reduce = reduce
        self._on_change = on_change
        self._sleep = sleep
        self._kept: dict[Key, Kept] = {}
        self._pauses = Pauses()
        self._known = asyncio.Event()
        self.fault: str | None = None
        """Why it is not up to date, for people; None: it is."""

    @property
    def is_known(self) -> bool:
        """Whether it has been read at all."""
        return self._known.is_set()

    async def known(self) -> None:
        """Wait until it has been read."""
        await self._known.wait()

    def get(self, key: Key) -> Kept | None:
        """Return what is kept of an object, None when there is none."""
        return self._kept.get(key)

    def items(self) -> Iterator[tuple[Key, Kept]]:
        """Go through all of it."""
        yield from list(self._kept.items())

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                version = await self._follow(version)
            except Gone:
                # A server that has always forgotten already is not asked without a pause.
                version = ""
                await self._sleep(self._pauses.next())
            except (Unreachable, Broken, Conflict, NotThere) as error:
                self.fault = str(error)
                pause = self._pauses.next()
                log.warning(
                    "the cluster cannot be followed",
                    what=self.what,
                    reason=self.fault,
                    retry_seconds=round(pause, 1),
                )
                # What was missed meanwhile may be forgotten by the server: read it whole.
                version = ""
                await self._sleep(pause)

    async def _list(self) -> str:
        listed = await self._cluster.list(
            self._selection, lambda one: (_key(one), self._reduce(one))
        )
        fresh = {key: kept for key, kept in listed.items if kept is not None}
        former, self._kept = self._kept, fresh
        self._known.set()
        self.fault = None
        self._pauses.reset()
        for key in former.keys() | fresh.keys():
            if former.get(key) != fresh.get(key):
                self._on_change(key)
        return listed.version

    async def _follow(self, version: str) -> str:
        count = 0
        async for kind, document in self._cluster.watch(self._selection, version):
            count += 1
            version = _version(document) or version
            if kind != "BOOKMARK":
                self._take(document, is_gone=kind == "DELETED")
        if count:
            self._pauses.reset()
        else:
            # Each lasts for minutes, and brings a bookmark at least, where all is well.
            await self._sleep(self._pauses.next())
        return version

    def _take(self, document: Mapping[str, Any], *, is_gone: bool) -> None:
        key = _key(document)
        kept = None if is_gone else self._reduce(document)
        if kept is None:
            changed = self._kept.pop(key, None) is not None
        else:
            changed = self._kept.get(key) != kept
            self._kept[key] = kept
        if changed:
            self._on_change(key)


def _key(document: Mapping[str, Any]) -> Key:
    metadata = _metadata(document)
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _version(document: Mapping[str, Any]) -> str:
    return str(_metadata(document).get("resourceVersion") or "")


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = document.get("metadata")
    return found if isinstance(found, dict) else {}
