"""The pods and Services of one cluster, asked of its API server: a request or two for each pod.

Nothing is watched: a question is asked when a pod comes, and when its identity is renewed.  What is
no answer is no pod, and an answer that cannot be read is a server that is away.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from broker.channel.cluster_tokens import ClusterHttp, TooLarge
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.service_account_token import TokenRejected

__all__ = ["ApiServerPods"]

MAX_POD_BYTES: Final = 3 * 1024 * 1024
"""Largest pod that is read, in bytes: more than etcd keeps of one object."""

MAX_PAGE_BYTES: Final = 10 * 1024 * 1024
"""Largest page of Services that is read, in bytes: one as large as etcd keeps, 1.5 MiB, each byte
of which takes six in JSON at most.  A larger page is asked for again in smaller ones, down to one
Service, so that nobody keeps others of the namespace from their names by large ones."""

PAGE: Final = 25
"""Most Services in a page; one has about 2 KiB."""

MAX_PAGES: Final = 400
"""Most pages that are asked for: no namespace has ten thousand Services."""

MAX_LABELS: Final = 64
"""Most labels that a selector may have, as admission sees it: a longer one selects nobody."""

MAX_SELECTOR_CHARS: Final = 1024
"""Longest selector, in characters of its names and values, as admission sees it: a longer one
selects nobody."""

KEPT_TIME: Final = timedelta(seconds=5)
"""How long the Services of a namespace are used: a hundred pods that start at once cost the API
server one list.  Those of before are let go when the next question comes, and where none of them
selects the pod that is asked about: its Service may have come with it, a moment ago."""

MAX_NAMESPACES: Final = 1_000
"""Most namespaces whose Services are kept in memory."""

_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Listed:
    at: datetime
    selectors: Mapping[str, Mapping[str, str]]
    """Name of each Service that selects anything, and by which labels."""


class ApiServerPods:
    """Implements ``issuance.cluster_rules.ClusterPods``."""

    def __init__(
        self, http: ClusterHttp, server: str, read_token: Callable[[], bytes], clock: Clock
    ) -> None:
        """Ask *server*, showing what *read_token* returns: it may get pods and list Services."""
        self._http = http
        self._server = server.rstrip("/")
        self._read_token = read_token
        self._clock = clock
        self._listed: dict[str, _Listed] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def labels_of(self, namespace: str, pod: str, pod_uid: str | None) -> Mapping[str, str]:
        """Return the labels of the pod.

        Raises:
            TokenRejected: There is no such pod any more, or another has its name.
            Unreachable: The API server cannot be asked, or does not let us ask.
        """
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}"
        status, body = await self._get(path, MAX_POD_BYTES)
        if status == 404:
            raise TokenRejected(f"pod {namespace}/{pod} is gone")
        metadata = _mapping(self._object(path, status, body).get("metadata"))
        if pod_uid is not None and metadata.get("uid") != pod_uid:
            raise TokenRejected(f"pod {namespace}/{pod} is another one by now")
        return _texts(metadata.get("labels"))

    async def services_for(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the names of the Services there that select pods with *labels*, sorted.

        Raises:
            Unreachable: The API server cannot be asked, or does not let us ask.
        """
        asked_at = self._clock.now()
        found = _matching(await self._selectors(namespace, asked_at - KEPT_TIME), labels)
        return found or _matching(await self._selectors(namespace, asked_at), labels)

    async def _selectors(self, namespace: str, since: datetime) -> Mapping[str, Mapping[str, str]]:
        """Return what was listed at *since* or later, and list it now where nothing was."""
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            now = self._clock.now()
            self._let_go(now)
            kept = self._listed.get(namespace)
            if kept is None or kept.at < since:
                kept = _Listed(now, await self._list(namespace))
                if len(self._listed) >= MAX_NAMESPACES:
                    self._listed.clear()
                self._listed[namespace] = kept
        self._locks.pop(namespace, None)
        return kept.selectors

    def _let_go(self, now: datetime) -> None:
        """Forget what is not used any more: anybody may have made it large."""
        for namespace, kept in list(self._listed.items()):
            if not timedelta() <= now - kept.at < KEPT_TIME:
                del self._listed[namespace]

    async def _list(self, namespace: str) -> Mapping[str, Mapping[str, str]]:
        found: dict[str, Mapping[str, str]] = {}
        onwards, count = "", PAGE
        for _ in range(MAX_PAGES):
            query = urlencode({"limit": count} | ({"continue": onwards} if onwards else {}))
            path = f"/api/v1/namespaces/{quote(namespace, safe='')}/services?{query}"
            try:
                status, body = await self._get(path, MAX_PAGE_BYTES)
            except TooLarge:
                if count == 1:
                    raise
                count = max(1, count // 4)
                continue
            count = min(PAGE, count * 2)
            page = self._object(path, status, body)
            items = page.get("items")
            for item in items if isinstance(items, list) else ():
                found.update(_selecting(item))
            token = _mapping(page.get("metadata")).get("continue")
            if not isinstance(token, str) or not token:
                return found
            onwards = token
        raise Unreachable(f"{self._server}: namespace {namespace} has more Services than are read")

    async def _get(self, path: str, limit: int) -> tuple[int, bytes]:
        try:
            bearer = self._read_token().decode("ascii").strip()
        except (Broken, UnicodeDecodeError) as error:
            raise Unreachable(f"{self._server}: our own token cannot be read: {error}") from error
        return await self._http.send("GET", self._server + path, limit=limit, bearer=bearer)

    def _object(self, path: str, status: int, body: bytes) -> Mapping[str, Any]:
        where = self._server + path.partition("?")[0]
        if status != 200:
            raise Unreachable(f"{where}: answered {status}, expected 200")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{where}: answered with what is no object")
        return found


def _matching(
    selectors: Mapping[str, Mapping[str, str]], labels: Mapping[str, str]
) -> Sequence[str]:
    return sorted(
        name
        for name, wanted in selectors.items()
        if all(labels.get(label) == value for label, value in wanted.items())
    )


def _selecting(item: object) -> Mapping[str, Mapping[str, str]]:
    """Return name and selector of a Service, nothing for one that selects no pod."""
    service = _mapping(item)
    name = _mapping(service.get("metadata")).get("name")
    spec = _mapping(service.get("spec"))
    selector = _mapping(spec.get("selector"))
    # One that is not read whole would select more than it does.
    is_whole = _texts(selector) == selector and len(selector) <= MAX_LABELS
    is_short = is_whole and sum(map(len, [*selector, *selector.values()])) <= MAX_SELECTOR_CHARS
    wanted = selector if is_short else {}
    is_alias = spec.get("type") == "ExternalName"
    if not isinstance(name, str) or not _SERVICE.fullmatch(name) or not wanted or is_alias:
        return {}
    return {name: wanted}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> Mapping[str, str]:
    return {name: one for name, one in _mapping(value).items() if isinstance(one, str)}
