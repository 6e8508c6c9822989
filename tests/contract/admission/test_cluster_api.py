"""The API server over real HTTPS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.admission.cluster_api import (
    MAX_OBJECT_BYTES,
    PAGE,
    ClusterApi,
    Gone,
    Invalid,
    NotThere,
    Selection,
)
from broker.issuance.errors import Broken, Conflict, Unreachable
from tests.contract.admission.servers import ApiServer, Standing, standing
from tests.fakes.fake_cluster import FakeCluster

SERVICES = Selection("/api/v1/services")
PATH = "/api/v1/namespaces/shop/services"


@pytest.fixture
def server() -> ApiServer:
    """A cluster with five Services."""
    made = ApiServer(FakeCluster())
    for name in "abcde":
        made.cluster.put(f"{PATH}/{name}", metadata={"labels": {"name": name}})
    return made


@pytest.fixture
async def stands(server: ApiServer, tmp_path: Path) -> AsyncIterator[Standing]:
    """It stands."""
    async with standing(server.app, tmp_path) as made:
        yield made


@pytest.fixture
def token() -> list[bytes]:
    """What is shown, which a test may change."""
    return [b"api-token\n"]


@pytest.fixture
async def api(stands: Standing, token: list[bytes]) -> AsyncIterator[ClusterApi]:
    """What asks it."""
    made = ClusterApi(
        stands.url, token=lambda: token[0], ca_bundle=stands.ca_bundle, user_agent="test"
    )
    yield made
    await made.close()


async def watched(cluster: FakeCluster) -> None:
    """Wait until there is a watch."""
    async with asyncio.timeout(30):
        while not cluster.watches:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def changes(api: ClusterApi, version: str, count: int) -> list[tuple[str, str]]:
    """Return the next changes: kind and name."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(30):
        async for kind, document in api.watch(SERVICES, version):
            found.append((kind, str(document["metadata"].get("name"))))
            if len(found) == count:
                break
    return found


async def test_a_list_is_read_page_by_page(api: ClusterApi, server: ApiServer) -> None:
    """All of it, as of one version."""
    listed = await api.list(SERVICES, dict)
    assert [one["metadata"]["name"] for one in listed.items] == list("abcde")
    assert listed.version == str(server.cluster.version)
    assert [one.get("continue") for one in server.queries] == [None, "2", "4"]
    assert server.queries[0]["limit"] == str(PAGE)


async def test_a_selection_is_asked_for(api: ClusterApi) -> None:
    """By labels and by fields."""
    found = await api.list(Selection(SERVICES.path, labels="name=b"), dict)
    assert [one["metadata"]["name"] for one in found.items] == ["b"]
    found = await api.list(Selection(SERVICES.path, fields="metadata.name=c"), dict)
    assert [one["metadata"]["name"] for one in found.items] == ["c"]


async def test_a_watch_brings_each_change(api: ClusterApi, server: ApiServer) -> None:
    """As it happens."""
    version = (await api.list(SERVICES, dict)).version

    async def change() -> None:
        await watched(server.cluster)
        server.cluster.put(f"{PATH}/f", large="x" * 300_000)
        server.cluster.put(f"{PATH}/a", more=1)
        server.cluster.take(f"{PATH}/b")

    task = asyncio.create_task(change())
    assert await changes(api, version, 4) == [
        ("BOOKMARK", "None"), ("ADDED", "f"), ("MODIFIED", "a"), ("DELETED", "b"),
    ]  # fmt: skip
    await task


async def test_a_version_that_is_too_old_is_told(api: ClusterApi, server: ApiServer) -> None:
    """At the beginning of a watch or in the midst of it."""
    with pytest.raises(Gone):
        await changes(api, "1", 9)
    server.said = [(410, "too old resource version")]
    with pytest.raises(Gone):
        await changes(api, "1", 9)


async def test_a_watch_that_ends_ends(api: ClusterApi, server: ApiServer) -> None:
    """The server ends each after some minutes; that is no fault."""
    version = (await api.list(SERVICES, dict)).version
    task = asyncio.create_task(changes(api, version, 9))
    await watched(server.cluster)
    server.cluster.end_watches()
    assert await task == [("BOOKMARK", "None")]


@pytest.mark.parametrize(
    "body",
    [
        b"{\n",
        b"5\n",
        b'{"type": 5, "object": {}}\n',
        b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n',
        b"x" * (MAX_OBJECT_BYTES + 1),
    ],
    ids=["half", "number", "no-kind", "error", "endless"],
)
async def test_a_watch_that_brings_something_else_is_given_up(
    api: ClusterApi, server: ApiServer, body: bytes
) -> None:
    """And begun anew by who follows it."""
    server.said = [body]
    with pytest.raises(Unreachable):
        await changes(api, "1", 9)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Broken), (403, Broken), (404, NotThere), (409, Conflict), (410, Gone),
        (422, Broken), (429, Unreachable), (500, Unreachable), (503, Unreachable),
        (302, Unreachable),
    ],
)  # fmt: skip
async def test_what_is_refused_is_told_by_what_to_do_next(
    api: ClusterApi, server: ApiServer, status: int, error: type[Exception]
) -> None:
    """With what the server said."""
    server.said = [(status, "because")]
    with pytest.raises(error, match=f"answered {status}: because"):
        await api.list(SERVICES, dict)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"items": 5}', b'{"items": [5]}'])
async def test_an_answer_of_another_shape_is_none(
    api: ClusterApi, server: ApiServer, body: bytes
) -> None:
    """Something in between has answered."""
    server.said = [body]
    with pytest.raises(Unreachable):
        await api.list(SERVICES, dict)


async def test_objects_are_made_and_changed(api: ClusterApi, server: ApiServer) -> None:
    """By the kind of patch that each is."""
    document: dict[str, Any] = {"metadata": {"name": "g"}, "data": {"a": "1"}}
    await api.create(PATH, document)
    with pytest.raises(Conflict):
        await api.create(PATH, document)
    await api.merge(f"{PATH}/g", {"data": {"b": "2", "a": None}})
    assert server.cluster.objects[f"{PATH}/g"]["data"] == {"b": "2"}
    await api.change(f"{PATH}/g", [{"op": "add", "path": "/data/c", "value": "é"}])
    assert server.cluster.objects[f"{PATH}/g"]["data"] == {"b": "2", "c": "é"}
    with pytest.raises(NotThere):
        await api.merge(f"{PATH}/nobody", {})
    with pytest.raises(Conflict):
        await api.change(f"{PATH}/g", [{"op": "test", "path": "/data/c", "value": "x"}])


async def test_a_test_that_fails_is_told_from_what_a_policy_refuses(
    api: ClusterApi, server: ApiServer
) -> None:
    """Both are answered with 422: the one says that somebody was first, the other for ever no."""
    server.said = [(422, "the server rejected our request due to an error in our request")]
    with pytest.raises(Conflict):
        await api.change(f"{PATH}/a", [])
    for reason in (
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no roots of others",
        'Service "a" is invalid: spec.ports: Required value',
    ):
        server.said = [(422, reason)]
        with pytest.raises(Invalid, match="answered 422"):
            await api.change(f"{PATH}/a", [])


async def test_the_token_is_read_for_each_request(
    api: ClusterApi, server: ApiServer, token: list[bytes]
) -> None:
    """The kubelet replaces it."""
    await api.list(SERVICES, dict)
    server.token = "another"
    with pytest.raises(Broken):
        await api.list(SERVICES, dict)
    token[0] = b"another"
    await api.list(SERVICES, dict)


@pytest.mark.parametrize("shown", [b"\xff", b"a\r\nX-Other: b", b"a b"])
async def test_what_is_no_token_is_not_shown(
    api: ClusterApi, token: list[bytes], shown: bytes
) -> None:
    """Nor what would add a header."""
    token[0] = shown
    with pytest.raises(Unreachable, match="our own token cannot be read"):
        await api.list(SERVICES, dict)


async def test_a_server_that_is_not_there_is_unreachable(
    api: ClusterApi, stands: Standing, tmp_path: Path
) -> None:
    """Or one that another CA certifies; new roots are taken up."""
    assert (await api.list(SERVICES, dict)).items
    good = stands.ca_bundle.read_bytes()
    async with standing(ApiServer(FakeCluster()).app, tmp_path / "other") as other:
        stands.ca_bundle.write_bytes(other.ca_bundle.read_bytes())
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await api.list(SERVICES, dict)
    stands.ca_bundle.write_bytes(b"no roots")
    with pytest.raises(Unreachable, match="cannot be used"):
        await api.list(SERVICES, dict)
    stands.ca_bundle.unlink()
    with pytest.raises(Unreachable, match="cannot be read"):
        await api.list(SERVICES, dict)
    stands.ca_bundle.write_bytes(good)
    assert (await api.list(SERVICES, dict)).items
    gone = ClusterApi(
        "https://127.0.0.1:1",
        token=lambda: b"x",
        ca_bundle=stands.ca_bundle,
        user_agent="test",
    )
    with pytest.raises(Unreachable):
        await gone.list(SERVICES, dict)
    with pytest.raises(Unreachable):
        await anext(gone.watch(SERVICES, "1"))
    await gone.close()
