"""What is read of a cluster, and kept of it, is bounded whatever its users write into it."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker.admission.cluster_api import MAX_OBJECT_BYTES, MAX_PAGE_BYTES, PAGE, ClusterApi
from broker.admission.mirrors import Mirror
from broker.admission.services import (
    MAX_LABELS,
    MAX_SELECTOR_CHARS,
    SERVICES,
    Selector,
    reduce_service,
)
from broker.issuance.errors import Unreachable
from tests.contract.admission.servers import standing

MIB = 1024 * 1024

LARGEST_ANNOTATIONS = 256 * 1024
"""What an API server takes of one object, in bytes (apimachinery, TotalAnnotationSizeLimitB)."""


class Hostile:
    """An API server whose Services are as large as their makers could have them."""

    def __init__(self, services: int, make: Callable[[int], Mapping[str, Any]]) -> None:
        self.services = services
        self.make = make
        self.asked: list[tuple[int, int]] = []
        """With which Service each page began, and how many were asked for."""
        self.bytes = 0
        """How much was answered with, in all."""
        self.app = web.Application()
        self.app.router.add_get("/api/v1/services", self._page)

    async def _page(self, request: web.Request) -> web.Response:
        begin, count = int(request.query.get("continue") or 0), int(request.query["limit"])
        self.asked.append((begin, count))
        end = min(begin + count, self.services)
        metadata = {"resourceVersion": "7", "continue": str(end) if end < self.services else ""}
        items = [self.make(number) for number in range(begin, end)]
        body = json.dumps({"items": items, "metadata": metadata}).encode()
        self.bytes += len(body)
        return web.Response(body=body)


def service(number: int, **metadata: Any) -> dict[str, Any]:
    """Return a Service that selects one kind of pod."""
    own = {"name": f"s{number}", "namespace": "shop", "resourceVersion": "7", **metadata}
    return {"metadata": own, "spec": {"selector": {"app": f"a{number}"}}}


def annotated(number: int) -> dict[str, Any]:
    """Return one with as many annotations as it may have."""
    return service(number, annotations={"note": "x" * LARGEST_ANNOTATIONS})


@asynccontextmanager
async def asking(server: Hostile, folder: Path) -> AsyncIterator[ClusterApi]:
    """Have somebody ask it while in here."""
    async with standing(server.app, folder) as stands:
        api = ClusterApi(
            stands.url, token=lambda: b"t", ca_bundle=stands.ca_bundle, user_agent="test"
        )
        try:
            yield api
        finally:
            await api.close()


def longest(number: int) -> dict[str, Any]:
    """Return one with the longest selector that is kept: as many labels as it may have."""
    room = MAX_SELECTOR_CHARS // MAX_LABELS
    name = f"{number}-x".ljust(room - 3, "x")
    return service(number) | {
        "spec": {"selector": {f"{name}{n:03}": "" for n in range(MAX_LABELS)}}
    }


TOO_LONG = {f"{n}.example/".rjust(254, "x") + "n" * 63: "v" * 63 for n in range(MAX_LABELS)}
"""The longest selector of so many labels, each as long as an API server takes it, 24 KiB in all."""


def too_long(number: int) -> dict[str, Any]:
    """Return one that would have it be kept."""
    return service(number) | {"spec": {"selector": TOO_LONG}}


async def test_memory_does_not_grow_with_what_others_write(tmp_path: Path) -> None:
    """Of a quarter of a GiB, in annotations and selectors, 48 MiB are held at most, 16 are kept."""
    kinds = (annotated, longest, too_long)
    server = Hostile(3_000, lambda number: kinds[number % 3](number))
    async with asking(server, tmp_path) as api:
        mirror: Mirror[Selector] = Mirror("services", api, SERVICES, reduce=reduce_service)
        tracemalloc.start()
        try:
            await mirror._list()
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert mirror.get(("shop", "s2997")) == Selector((("app", "a2997"),))
    found = mirror.get(("shop", "s2998"))
    assert found is not None
    assert len(found.labels) == MAX_LABELS
    assert mirror.get(("shop", "s2999")) is None
    assert len(list(mirror.items())) == 2_000
    assert server.bytes > 256 * MIB
    # The server's own pages are in it, being of the same process.
    assert peak < 48 * MIB
    assert kept < 16 * MIB


async def test_what_nobody_needs_is_dropped_while_it_is_read(tmp_path: Path) -> None:
    """Annotations and who manages which field; what only bears such a name is kept."""
    odd = {
        **service(
            0, annotations={"note": "x"}, managedFields=[{"manager": "x"}], labels={"a": "b"}
        ),
        "spec": {"selector": {"annotations": "yes", "managedFields": "too"}},
    }
    async with asking(Hostile(1, lambda _number: odd), tmp_path) as api:
        (found,) = (await api.list(SERVICES, dict)).items
    own = {"name": "s0", "namespace": "shop", "resourceVersion": "7", "labels": {"a": "b"}}
    assert found == {**odd, "metadata": own}


async def test_objects_of_the_usual_size_are_read_in_pages(tmp_path: Path) -> None:
    """Each of them once."""
    server = Hostile(100, service)
    async with asking(server, tmp_path) as api:
        listed = await api.list(SERVICES, lambda one: one["metadata"]["name"])
    assert listed.items == [f"s{number}" for number in range(100)]
    assert server.asked == [(0, PAGE), (40, PAGE), (80, PAGE)]


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(tmp_path: Path) -> None:
    """Down to one object, and up again behind those that were large; none is missed."""

    def make(number: int) -> dict[str, Any]:
        return service(number, x="x" * (MAX_PAGE_BYTES + 1)) if number == 41 else service(number)

    server = Hostile(200, make)
    async with asking(server, tmp_path) as api:
        listed = await api.list(SERVICES, lambda one: one["metadata"]["name"])
    assert listed.items == [f"s{number}" for number in range(200)]
    assert server.asked[:6] == [(0, 40), (40, 40), (40, 10), (40, 2), (40, 1), (41, 2)]
    assert server.asked[6:9] == [(41, 1), (42, 2), (44, 4)]
    assert server.asked[-1][1] == PAGE


@pytest.mark.parametrize(
    ("size", "is_read"), [(MAX_OBJECT_BYTES - 1_000, True), (MAX_OBJECT_BYTES, False)]
)
async def test_an_object_past_the_limit_is_not_read(
    tmp_path: Path, size: int, is_read: bool
) -> None:
    """No API server has one; what is in between does."""
    server = Hostile(1, lambda number: service(number, x="x" * size))
    async with asking(server, tmp_path) as api:
        if is_read:
            assert (await api.list(SERVICES, lambda _one: 1)).items == [1]
        else:
            with pytest.raises(Unreachable, match=f"larger than {MAX_OBJECT_BYTES} bytes"):
                await api.list(SERVICES, lambda _one: 1)
    assert server.asked[-1] == (0, 1)
