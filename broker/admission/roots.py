"""The roots, where pods and the API server need them.

The broker keeps its roots in one ConfigMap of its own namespace.  From there they are copied into
each namespace that opted in, and into ``caBundle`` of our own webhook configurations; whatever
somebody changes there is put right.  A copy stays when its namespace opts out: pods still mount it.
A ConfigMap of that name without our labels is somebody else's, and is left as it is.

Each place is written by itself, with pauses of its own: a namespace whose quota is used up, or
whose own webhooks hang, holds up no other.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from broker.admission.cluster_api import Cluster, NotThere
from broker.admission.mirrors import Key, Mirror, Pauses, Sleep
from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = [
    "KEY",
    "CaBundles",
    "Copies",
    "Copy",
    "Webhooks",
    "digest_of",
    "reduce_copy",
    "reduce_roots",
    "reduce_webhooks",
]

KEY: Final = "ca.crt"
"""Under which key of a ConfigMap the roots lie."""

MAX_ROOTS_CHARS: Final = 512 * 1024
"""Longest roots that are copied, in characters: a hundred times those of a community."""

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"

LABELS: Final = {
    "app.kubernetes.io/managed-by": "penstock",
    "app.kubernetes.io/part-of": "penstock",
}
"""What tells people, and us, whose copies these are."""

REST_SECONDS: Final = 1.0
"""How long a place is left alone once it was written, in seconds: who writes something else there
again and again, in good faith or not, is answered once a second and not thousands of times."""

RACES: Final = 3
"""How often in a row a place may be taken or gone when it is written, before that is a fault:
another replica is first once or twice, while a quota or a webhook may say the same for ever."""

AT_ONCE: Final = 16
"""Most writes at once: API servers bear more, and one that hangs in a namespace leaves room."""

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
class Copy:
    """What is kept of a ConfigMap that is called as the copies are."""

    version: str
    is_ours: bool
    digest: bytes
    """SHA-256 of the roots in it; anybody may have put a MiB there."""


def digest_of(roots: str) -> bytes:
    """Return by what roots are compared."""
    return hashlib.sha256(roots.encode("utf-8", "surrogatepass")).digest()


def reduce_copy(document: Mapping[str, Any]) -> Copy:
    """Return what is kept of a ConfigMap that is called as the copies are."""
    metadata, data = document.get("metadata"), document.get("data")
    found = metadata if isinstance(metadata, dict) else {}
    labels = found.get("labels")
    is_ours = isinstance(labels, dict) and LABELS.items() <= labels.items()
    held = data.get(KEY) if isinstance(data, dict) else None
    roots = held if isinstance(held, str) else ""
    return Copy(str(found.get("resourceVersion") or ""), is_ours, digest_of(roots))


@dataclass(slots=True)
class _Fault:
    """What a place has been like since it was written last, or was as it should be."""

    pauses: Pauses
    races: int = 0
    """How often somebody was first, or it was not there."""
    told: str = ""
    """What people were told of it last."""


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
    """Writes what is due, whenever something has changed: each place by itself, until it is so."""

    def __init__(self, what: str, *, count: Count, sleep: Sleep = asyncio.sleep) -> None:
        """*what* is written, for people."""
        self._what = what
        self._changed = asyncio.Event()
        self._changed.set()
        self._count = count
        self._sleep = sleep
        self._room = asyncio.Semaphore(AT_ONCE)
        self._busy: set[Key] = set()
        """Places that are being written, or pause before the next try."""
        self._missed: set[Key] = set()
        """Those of them where something has changed since that began."""
        self._faults: dict[Key, _Fault] = {}
        """Places that were not written when they were tried last."""

    def hurry(self, key: Key | None = None) -> None:
        """Look now, for *key* has changed."""
        self._missed |= {one for one in self._busy if self.is_about(key, one)}
        self._changed.set()

    async def run(self) -> None:
        """Keep it so until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                self.look(group)

    def look(self, group: asyncio.TaskGroup) -> None:
        """Begin what is due, each place as a task of *group*."""
        due = set(self.due())
        for place in self._faults.keys() - due - self._busy:
            del self._faults[place]
        for place in sorted(due - self._busy):
            self._busy.add(place)
            group.create_task(self._tend(place))

    @abstractmethod
    def due(self) -> Sequence[Key]:
        """Return the places where something else stands than should."""

    @abstractmethod
    def is_about(self, key: Key | None, place: Key) -> bool:
        """Tell whether *key* is what the mirror of *place* calls it."""

    @abstractmethod
    async def put(self, place: Key) -> None:
        """Write what should stand there; raises what ``Cluster`` raises."""

    async def _tend(self, place: Key) -> None:
        """Write one place, and wait before it may be tried again."""
        self._missed.discard(place)
        async with self._room:
            pause = await self._write(place)
        await self._sleep(REST_SECONDS if pause is None else pause)
        self._busy.discard(place)
        if pause is not None or place in self._missed:
            self.hurry()

    async def _write(self, place: Key) -> float | None:
        """Return after how many seconds to try again; None: not before something is seen."""
        where = "/".join(filter(None, place))
        try:
            await self.put(place)
        except (Conflict, NotThere) as error:
            return self._late(place, where, str(error))
        except (Unreachable, Broken) as error:
            return self._failed(place, where, error.reason)
        self._faults.pop(place, None)
        self._count(self._what, "written")
        log.info("roots were written", what=self._what, where=where)
        return None

    def _late(self, place: Key, where: str, reason: str) -> float:
        """Look again soon, for another replica was first, or it is gone.  Then nothing is due any
        more; where something still is, somebody only says so."""
        fault = self._faults.setdefault(place, _Fault(Pauses()))
        fault.races += 1
        if fault.races >= RACES:
            return self._failed(place, where, reason)
        log.info("roots were not written by us", what=self._what, where=where, reason=reason)
        return fault.pauses.next()

    def _failed(self, place: Key, where: str, reason: str) -> float:
        fault = self._faults.setdefault(place, _Fault(Pauses()))
        self._count(self._what, "failed")
        if reason != fault.told:
            log.warning("roots were not written", what=self._what, where=where, reason=reason)
        fault.told = reason
        return fault.pauses.next()


class Copies(_Upkeep):
    """A copy of the roots in each namespace that opted in."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespaces: Mirror[bool],
        copies: Mirror[Copy],
        roots: Callable[[], str | None],
        name: str,
        home: str,
        count: Count,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*home* is our own namespace, where the roots themselves lie and no copy is made."""
        super().__init__("copy", count=count, sleep=sleep)
        self._cluster = cluster
        self._namespaces = namespaces
        self._copies = copies
        self._roots = roots
        self._name = name
        self._home = home
        self._foreign: set[Key] = set()
        """Places that hold what others made, and of which that was told."""

    def lacking(self) -> list[str]:
        """Return the namespaces whose copy is missing or another, whoever made it."""
        return [namespace for namespace, _ in self._wrong()]

    def due(self) -> Sequence[Key]:
        """Return the places of copies that are missing or another, but for those of others."""
        return [one for one in self._wrong() if not self._is_foreign(one)]

    def look(self, group: asyncio.TaskGroup) -> None:
        """Begin what is due, and tell of what others made; see ``_Upkeep``."""
        foreign = {one for one in self._wrong() if self._is_foreign(one)}
        for namespace, name in sorted(foreign - self._foreign):
            log.warning(
                "a ConfigMap of others stands where the roots belong",
                namespace=namespace,
                name=name,
                hint="pods there verify the broker by it: remove it, or have trust.copy differ",
            )
        self._foreign = foreign
        super().look(group)

    def is_about(self, key: Key | None, place: Key) -> bool:
        """Tell whether *key* is the copy at *place*."""
        return key == place

    def _is_foreign(self, place: Key) -> bool:
        found = self._copies.get(place)
        return found is not None and not found.is_ours

    def _wrong(self) -> list[Key]:
        roots = self._roots()
        if roots is None or not (self._namespaces.is_known and self._copies.is_known):
            return []
        digest = digest_of(roots)
        wanted = (
            (name, self._name)
            for (_, name), is_alive in self._namespaces.items()
            if is_alive and name != self._home
        )
        return [
            one
            for one in sorted(wanted)
            if (found := self._copies.get(one)) is None or found.digest != digest
        ]

    async def put(self, place: Key) -> None:
        """Write a copy: anew, or into the one that was seen to be ours and in no later one."""
        namespace, name = place
        roots, found = self._roots(), self._copies.get(place)
        if roots is None or self._is_foreign(place):
            raise NotThere(f"nothing is to be written to {namespace}/{name} any more")
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        data = {KEY: roots}
        if found is None:
            metadata = {"name": name, "labels": LABELS}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await self._cluster.create(path, document)
        else:
            version = {"resourceVersion": found.version}
            await self._cluster.merge(f"{path}/{name}", {"metadata": version, "data": data})


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
        super().__init__("ca-bundle", count=count, sleep=sleep)
        self._cluster = cluster
        self._mirrors = mirrors
        self._roots = roots
        self._is_ours = is_ours

    def due(self) -> Sequence[Key]:
        """Return the configurations in which other roots stand: path of their kind, and name."""
        roots = self._roots()
        if roots is None or not self._is_ours(roots):
            return []
        return [
            (path, name)
            for path, mirror in self._mirrors.items()
            for (_, name), found in mirror.items()
            if any(bundle != roots for _, bundle in found.bundles)
        ]

    def is_about(self, key: Key | None, place: Key) -> bool:
        """Tell whether *key* is the configuration at *place*: it is in no namespace."""
        return key is not None and key == ("", place[1])

    async def put(self, place: Key) -> None:
        """Write the roots into the webhooks of a configuration, of the version that was seen."""
        path, name = place
        roots, found = self._roots(), self._mirrors[path].get(("", name))
        if roots is None or found is None:
            raise NotThere(f"nothing is to be written to {path}/{name} any more")
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
        await self._cluster.change(f"{path}/{name}", steps)
