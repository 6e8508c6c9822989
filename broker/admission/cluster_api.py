"""The API server, as far as admission needs it: get, list, watch, create, patch.

Answers are plain objects of JSON.  A list is read page by page, and of each page is kept what the
caller makes of its objects; a watch is one request that brings a line for each change, and ends by
itself after some minutes.  docs: Kubernetes API Concepts, "Efficient detection of changes".

Whoever may make a Service or a ConfigMap anywhere decides how large it is.  So neither the size of
what is read at once nor of what is kept depends on that: a page that is too large is asked for in
smaller ones, and what others may write at will is dropped while it is parsed.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlencode

import aiohttp

from broker.admission.https import Https, TooLarge, read_token
from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = [
    "Cluster",
    "ClusterApi",
    "Gone",
    "Keep",
    "Kept",
    "Listed",
    "NotThere",
    "Selection",
]

PAGE: Final = 40
"""Most objects in one page of a list: 10,000 Services are 250 requests, some milliseconds each."""

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Largest page that is read, in bytes: 40 objects of 100 KiB, where Services have 2 KiB.  A larger
page is asked for again in smaller ones, down to one object."""

MAX_OBJECT_BYTES: Final = 10 * 1024 * 1024
"""Largest object that is read, in bytes, and with it the longest line of a watch: etcd's 1.5 MiB,
each byte of which takes six in JSON at most."""

WATCH_SECONDS: Final = 290
"""How long one watch lasts, in seconds: below the five minutes after which many load balancers end
what they think is idle."""

SILENT_SECONDS: Final = 120.0
"""After how many seconds without a line a watch is begun anew, in seconds: bookmarks come about
once a minute, and a connection that died in silence brings none."""

_JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
"""A patch as in RFC 7386."""
STEPS: Final = "application/json-patch+json"
"""A patch as in RFC 6902."""


_REFUSED_STEP: Final = "the server rejected our request due to an error in our request"
"""All that an API server says of a step that cannot be done.  Refusals of its own checks and of
policies name the object or themselves instead."""


class Gone(Unreachable):
    """The version, or the page of a list, that was asked for is too old: list anew (410)."""


class Invalid(Broken):
    """The object cannot be as we want it (422)."""


class NotThere(Exception):
    """There is no such object (404)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects that are listed or watched."""

    path: str
    """Such as ``/api/v1/services``."""
    labels: str = ""
    """A label selector."""
    fields: str = ""
    """A field selector; ``metadata.name=…`` is what a role that names objects lets through."""

    def query(self, **more: str) -> str:
        """Return the query that asks for it."""
        asked = {"labelSelector": self.labels, "fieldSelector": self.fields, **more}
        return urlencode({name: value for name, value in asked.items() if value})


Kept = TypeVar("Kept")
"""What is kept of an object."""

Keep = Callable[[Mapping[str, Any]], Kept]
"""Returns what is kept of an object; the object itself is let go."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[Kept]):
    """What is kept of all objects of a selection, as of one version."""

    items: Sequence[Kept]
    version: str


class Cluster(Protocol):
    """What admission asks of a cluster.  Each raises Unreachable, and Broken when it may not."""

    async def list(self, selection: Selection, keep: Keep[Kept]) -> Listed[Kept]:
        """Return what *keep* makes of each object of *selection*; raises Gone."""
        ...

    def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield each change behind *version*, its kind and the object; raises Gone."""
        ...

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        """Make an object; raises Conflict when there is one, NotThere when its namespace is not."""
        ...

    async def merge(self, path: str, document: Mapping[str, Any]) -> None:
        """Change members of an object; raises NotThere, Conflict."""
        ...

    async def change(self, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
        """Change an object step by step; raises NotThere, Conflict when a test among them fails."""
        ...


class ClusterApi:
    """Implements ``Cluster`` over HTTPS."""

    def __init__(
        self, server: str, *, token: Callable[[], bytes], ca_bundle: Path, user_agent: str
    ) -> None:
        self._server = server.rstrip("/")
        self._token = token
        self._https = Https(ca_bundle, user_agent)

    async def close(self) -> None:
        """Close all connections."""
        await self._https.close()

    async def list(self, selection: Selection, keep: Keep[Kept]) -> Listed[Kept]:
        """Return what is kept of each object of *selection*; see ``Cluster``."""
        items: list[Kept] = []
        following, count = "", PAGE
        while True:
            query = selection.query(limit=str(count), **{"continue": following})
            most = MAX_OBJECT_BYTES if count == 1 else MAX_PAGE_BYTES
            try:
                page = await self._call("GET", f"{selection.path}?{query}", most=most)
            except TooLarge:
                if count == 1:
                    raise
                count = max(1, count // 4)
                continue
            items += [keep(one) for one in _objects(page.get("items"))]
            metadata = page.get("metadata")
            found = metadata if isinstance(metadata, dict) else {}
            following, count = str(found.get("continue") or ""), min(PAGE, count * 2)
            if not following:
                return Listed(items, str(found.get("resourceVersion") or ""))

    async def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield each change; see ``Cluster``."""
        query = selection.query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            timeoutSeconds=str(WATCH_SECONDS),
        )
        url = f"{self._server}{selection.path}?{query}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENT_SECONDS)
        try:
            async with self._https.session().get(
                url, headers=self._headers(), timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    _judge(answer.status, await self._https.read(answer, MAX_OBJECT_BYTES), url)
                async for line in _lines(answer.content):
                    yield _change(line)
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"watch of {selection.path} broke off: {reason}") from error

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        """Make an object; see ``Cluster``."""
        await self._call("POST", path, document)

    async def merge(self, path: str, document: Mapping[str, Any]) -> None:
        """Change members of an object; see ``Cluster``."""
        await self._call("PATCH", path, document, kind=MERGE)

    async def change(self, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
        """Change an object step by step; see ``Cluster``."""
        try:
            await self._call("PATCH", path, list(steps), kind=STEPS)
        except Invalid as error:
            if error.reason.endswith(f": {_REFUSED_STEP}"):
                # The steps are such as can be done, but for the test of the version among them.
                raise Conflict(error.reason) from None
            raise

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {read_token(self._token)}"}

    async def _call(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        kind: str = _JSON,
        most: int = MAX_OBJECT_BYTES,
    ) -> dict[str, Any]:
        url = self._server + target
        headers = self._headers()
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode("ascii")
            headers["Content-Type"] = kind
        try:
            async with self._https.session().request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as answer:
                read = await self._https.read(answer, most)
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{method} {target.partition('?')[0]}: {reason}") from error
        return _judge(answer.status, read, f"{method} {target.partition('?')[0]}")


def _judge(status: int, body: bytes, what: str) -> dict[str, Any]:
    """Return the object of an answer, or raise what its status says."""
    try:
        found = json.loads(body, object_hook=_needed)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}
    if status in (200, 201, 202) and isinstance(found, dict):
        return said
    detail = f"{what}: answered {status}: {str(said.get('message') or '')[:300]}"
    if status == 404:
        raise NotThere(detail)
    if status == 410:
        raise Gone(detail)
    if status == 409:
        raise Conflict(detail)
    if status == 422:
        raise Invalid(detail)
    if status in (401, 403):
        raise Broken(detail)
    raise Unreachable(detail)


def _change(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        found = json.loads(line, object_hook=_needed)
    except (ValueError, RecursionError):
        raise Unreachable("a watch brought a line that is no JSON") from None
    kind = found.get("type") if isinstance(found, dict) else None
    changed = found.get("object") if isinstance(found, dict) else None
    if not isinstance(kind, str) or not isinstance(changed, dict):
        raise Unreachable("a watch brought a line that is no change")
    if kind == "ERROR":
        if changed.get("code") == 410:
            raise Gone(str(changed.get("message")))
        raise Unreachable(f"a watch ended: {str(changed.get('message'))[:300]}")
    return kind, changed


def _needed(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what nobody here reads and anybody may fill, while it is parsed."""
    if isinstance(found.get("annotations"), dict):
        del found["annotations"]
    if isinstance(found.get("managedFields"), list):
        del found["managedFields"]
    return found


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    waiting = bytearray()
    async for part in content.iter_any():
        waiting += part
        while (end := waiting.find(b"\n")) >= 0:
            line = bytes(waiting[:end])
            del waiting[: end + 1]
            if line.strip():
                yield line
        if len(waiting) > MAX_OBJECT_BYTES:
            raise Unreachable(f"a watch brought a line past the limit of {MAX_OBJECT_BYTES} bytes")


def _objects(found: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Unreachable("a list has something else than objects in it")
    return found
