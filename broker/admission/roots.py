"""The roots, where pods and the API server need them.

The broker keeps its roots in one ConfigMap of its own namespace.  From there they are copied into
each namespace that opted in, and into ``caBundle`` of our own webhook configurations; whatever
somebody changes there is put right.  A copy stays when its namespace opts out: pods still mount it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from broker.admission.cluster_api import Cluster, NotThere
from broker.admission.mirrors import Key, Mirror, Pauses, Sleep
from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = ["KEY", "CaBundles", "Copies", "Webhooks", "reduce_roots", "reduce_webhooks"]

KEY: Final = "ca.crt"
"""Under which key of a ConfigMap the roots lie."""

MAX_ROOTS_CHARS: Final = 512 * 1024
"""Longest roots that are copied, in characters: a hundred times those of a community."""

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"

LABELS: Final = {
    "app.kubernetes.io/managed-by": "penstock",
    "app.kubernetes.io/part-of": "penstock",
}
"""What tells people whose copies these are."""

log = structlog.get_logger("penstock.admission")

Count = Callable[[str, str], None]
"""Told what was written, and how that went."""


def reduce_roots(document: Mapping[str, Any]) -> str | None:
    """Return the roots of a ConfigMap, None when it has none that could be."""
    data = document.get("data")
    found = data.get(KEY) if isinstance(data, dict) else None
    is_fit = isinstance(found, str) and _BEGIN in found and len(found) <= MAX_ROOTS_CHARS
    return found if is_fit else None


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What is kept of a webhook configuration."""

    version: str
    bundles: tuple[tuple[int, str], ...]
    """Number of each webhook that calls a Service of our namespace, and its ``caBundle``."""


def reduce_webhooks(namespace: str) -> Callable[[Mapping[str, Any]], Webhooks | None]:
    """Return what reduces a webhook configuration, for those that call Services of *namespace*."""

    def reduce(document: Mapping[str, Any]) -> Webhooks | None:
        metadata = document.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        return Webhooks(str(version or ""), tuple(_bundles(document, namespace)))

    return reduce


def _bundles(document: Mapping[str, Any], namespace: str) -> Iterator[tuple[int, str]]:
    webhooks = document.get("webhooks")
    for number, one in enumerate(webhooks if isinstance(webhooks, list) else ()):
        config = one.get("clientConfig") if isinstance(one, dict) else None
        service = config.get("service") if isinstance(config, dict) else None
        if isinstance(service, dict) and service.get("namespace") == namespace:
            yield number, _decoded((config or {}).get("caBundle"))


def _decoded(value: object) -> str:
    try:
        return base64.b64decode(str(value or ""), validate=True).decode("ascii", "replace")
    except binascii.Error:
        return ""


class _Upkeep(ABC):
    """Writes what is due, whenever something has changed, until nothing is."""

    def __init__(self, *, count: Count, sleep: Sleep = asyncio.sleep) -> None:
        self._changed = asyncio.Event()
        self._changed.set()
        self._count = count
        self._sleep = sleep
        self._pauses = Pauses()

    def hurry(self, _key: object = None) -> None:
        """Look now."""
        self._changed.set()

    async def run(self) -> None:
        """Keep it so until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if await self.look():
                await self._sleep(self._pauses.next())
                self._changed.set()
            else:
                self._pauses.reset()

    @abstractmethod
    async def look(self) -> Sequence[str]:
        """Write what is due; return what has to be tried again."""

    async def _write(self, what: str, where: str, doing: Callable[[], Awaitable[None]]) -> bool:
        """Return whether nothing of it is left to be tried again."""
        try:
            await doing()
        except (Conflict, NotThere) as error:
            # Another replica was first, or it is gone: what is seen next tells what is due.
            log.info("roots were not written by us", what=what, where=where, reason=str(error))
            return True
        except (Unreachable, Broken) as error:
            self._count(what, "failed")
            log.warning("roots were not written", what=what, where=where, reason=str(error))
            return False
        self._count(what, "written")
        log.info("roots were written", what=what, where=where)
        return True


class Copies(_Upkeep):
    """A copy of the roots in each namespace that opted in."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespaces: Mirror[bool],
        copies: Mirror[str],
        roots: Callable[[], str | None],
        name: str,
        home: str,
        count: Count,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*home* is our own namespace, where the roots themselves lie and no copy is made."""
        super().__init__(count=count, sleep=sleep)
        self._cluster = cluster
        self._namespaces = namespaces
        self._copies = copies
        self._roots = roots
        self._name = name
        self._home = home

    def due(self) -> list[str]:
        """Return the namespaces whose copy is missing or another."""
        roots = self._roots()
        if roots is None or not (self._namespaces.is_known and self._copies.is_known):
            return []
        wanted = (name for (_, name), is_alive in self._namespaces.items() if is_alive)
        return [
            one
            for one in sorted(wanted)
            if one != self._home and self._copies.get((one, self._name)) != roots
        ]

    async def look(self) -> Sequence[str]:
        """Write the copies that are due; return the namespaces that have to be tried again."""
        return [one for one in self.due() if not await self._put(one)]

    async def _put(self, namespace: str) -> bool:
        roots = self._roots()
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        metadata = {"name": self._name, "labels": LABELS}
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {KEY: roots},
        }

        async def write() -> None:
            try:
                await self._cluster.merge(
                    f"{path}/{self._name}", {"metadata": {"labels": LABELS}, "data": {KEY: roots}}
                )
            except NotThere:
                await self._cluster.create(path, document)

        return await self._write("copy", namespace, write)


class CaBundles(_Upkeep):
    """``caBundle`` of our own webhook configurations."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        mirrors: Mapping[str, Mirror[Webhooks]],
        roots: Callable[[], str | None],
        is_ours: Callable[[str], bool],
        count: Count,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*mirrors* are by the path of their kind.  *is_ours* tells whether our own certificate
        leads to some roots: others would cut the API server off from us."""
        super().__init__(count=count, sleep=sleep)
        self._cluster = cluster
        self._mirrors = mirrors
        self._roots = roots
        self._is_ours = is_ours

    def due(self) -> list[tuple[str, Key, Webhooks]]:
        """Return the configurations in which other roots stand: path, key, and what is there."""
        roots = self._roots()
        if roots is None or not self._is_ours(roots):
            return []
        return [
            (path, key, found)
            for path, mirror in self._mirrors.items()
            for key, found in mirror.items()
            if any(bundle != roots for _, bundle in found.bundles)
        ]

    async def look(self) -> Sequence[str]:
        """Write what is due; return the configurations that have to be tried again."""
        return [one[1][1] for one in self.due() if not await self._put(*one)]

    async def _put(self, path: str, key: Key, found: Webhooks) -> bool:
        roots = self._roots() or ""
        encoded = base64.b64encode(roots.encode("ascii", "replace")).decode("ascii")
        steps: list[dict[str, Any]] = [
            # Numbers of webhooks are those of this version alone.
            {"op": "test", "path": "/metadata/resourceVersion", "value": found.version}
        ]
        steps += [
            {"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": encoded}
            for number, bundle in found.bundles
            if bundle != roots
        ]
        target = f"{path}/{key[1]}"
        return await self._write("ca-bundle", target, lambda: self._cluster.change(target, steps))
