"""A cluster in memory: objects by path, and watches that bring each change."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from broker.admission.cluster_api import Gone, Keep, Kept, Listed, NotThere, Selection
from broker.issuance.errors import Conflict

__all__ = ["FakeCluster", "until"]

Object = dict[str, Any]


async def until(is_so: Callable[[], object]) -> None:
    """Let other tasks go on until it is so; they wait for nothing but one another."""
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to be so")


class FakeCluster:
    """``admission.cluster_api.Cluster``.  Selectors: ``metadata.name=X`` and ``key[=value]``."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        """By path, such as ``/api/v1/namespaces/shop/configmaps/a``."""
        self.version = 1
        self.failing: dict[str, Sequence[Exception | None]] = {}
        """What the next calls of a method raise; None: nothing."""
        self.refusing: dict[str, Exception] = {}
        """What all that is asked of a path, or below it, raises."""
        self.did: list[tuple[str, str]] = []
        self._watches: list[tuple[Selection, asyncio.Queue[tuple[str, Object] | Exception]]] = []

    # -------------------------------------------------------------------------- for tests

    def put(self, path: str, **members: Any) -> Object:
        """Have an object be there, or be another."""
        self.version += 1
        kind = "MODIFIED" if path in self.objects else "ADDED"
        made: Object = copy.deepcopy(members)
        metadata = made.setdefault("metadata", {})
        metadata["name"] = path.rpartition("/")[2]
        if "/namespaces/" in path and path.count("/") > 4:
            metadata["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        metadata["resourceVersion"] = str(self.version)
        self.objects[path] = made
        self._tell(kind, path, made)
        return made

    def take(self, path: str) -> None:
        """Have an object be gone."""
        self.version += 1
        self._tell("DELETED", path, self.objects.pop(path))

    def end_watches(self, error: Exception | None = None) -> None:
        """End every watch, by *error* where there is one."""
        watches, self._watches = self._watches, []
        for _, queue in watches:
            queue.put_nowait(error or StopAsyncIteration())

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return len(self._watches)

    # -------------------------------------------------------------------------- the port

    async def list(self, selection: Selection, keep: Keep[Kept]) -> Listed[Kept]:
        """Return what is kept of all objects of *selection*."""
        self._begin("list", selection.path)
        found = [one for path, one in self.objects.items() if _is_of(selection, path, one)]
        return Listed([keep(copy.deepcopy(one)) for one in found], str(self.version))

    async def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield each change."""
        self._begin("watch", selection.path)
        if int(version) < self.version:
            raise Gone("too old resource version")
        queue: asyncio.Queue[tuple[str, Object] | Exception] = asyncio.Queue()
        self._watches.append((selection, queue))
        while True:
            found = await queue.get()
            if isinstance(found, StopAsyncIteration):
                return
            if isinstance(found, Exception):
                raise found
            yield found

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        """Make an object."""
        whole = f"{path}/{document['metadata']['name']}"
        self._begin("create", whole)
        if whole in self.objects:
            raise Conflict(f"{whole} is there already")
        self.put(whole, **document)

    async def merge(self, path: str, document: Mapping[str, Any]) -> None:
        """Change members of an object."""
        self._begin("merge", path)
        if path not in self.objects:
            raise NotThere(path)
        expected = document.get("metadata", {}).get("resourceVersion")
        if expected not in {None, self.objects[path]["metadata"]["resourceVersion"]}:
            raise Conflict(f"{path} has been modified")
        self.put(path, **_merged(self.objects[path], document))

    async def change(self, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
        """Change an object step by step."""
        self._begin("change", path)
        if path not in self.objects:
            raise NotThere(path)
        from tests.fakes.pods import apply_patch

        try:
            changed = apply_patch(self.objects[path], steps)
        except AssertionError as error:
            raise Conflict(str(error)) from None
        self.put(path, **changed)

    def _begin(self, what: str, path: str) -> None:
        self.did.append((what, path))
        for place, error in self.refusing.items():
            if f"{path}/".startswith(f"{place}/"):
                raise error
        waiting = self.failing.get(what)
        if waiting:
            first, self.failing[what] = waiting[0], waiting[1:]
            if first is not None:
                raise first

    def _tell(self, kind: str, path: str, document: Object) -> None:
        for selection, queue in self._watches:
            if _is_of(selection, path, document):
                queue.put_nowait((kind, copy.deepcopy(document)))


def _is_of(selection: Selection, path: str, document: Object) -> bool:
    folder, _, name = path.rpartition("/")
    parts = folder.split("/")
    everywhere = "/".join([*parts[:3], parts[-1]]) if "namespaces" in parts[3:4] else folder
    if selection.path not in {folder, everywhere}:
        return False
    if selection.fields and selection.fields != f"metadata.name={name}":
        return False
    key, _, value = selection.labels.partition("=")
    labels = document["metadata"].get("labels") or {}
    return not key or (key in labels and value in {"", labels[key]})


def _merged(target: Any, patch: Any) -> Any:
    """As RFC 7386 §2 has it."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made
