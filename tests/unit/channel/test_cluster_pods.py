"""Pods and Services as an API server tells of them: what is asked, and what is believed."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.admission import services as seen_by_admission
from broker.channel.cluster_pods import (
    KEPT_TIME,
    MAX_LABELS,
    MAX_PAGE_BYTES,
    MAX_PAGES,
    MAX_SELECTOR_CHARS,
    ApiServerPods,
)
from broker.channel.cluster_tokens import ClusterHttp, TooLarge
from broker.issuance.errors import Broken, Unreachable
from broker.protocol.service_account_token import TokenRejected
from tests.fakes.clock import FakeClock

SERVER = "https://10.96.0.1"
POD = "/api/v1/namespaces/shop/pods/web-0"
SERVICES = "/api/v1/namespaces/shop/services?limit=25"


class FakeServer(ClusterHttp):
    """Answers what a test has it answer, by path."""

    def __init__(self) -> None:
        super().__init__(None, "penstock/test")
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str]] = []

    async def send(
        self, method: str, url: str, *, limit: int, body: bytes = b"", bearer: str = ""
    ) -> tuple[int, bytes]:
        """See the class."""
        assert (method, body) == ("GET", b"")
        path = url.removeprefix(SERVER)
        self.asked.append((path, bearer))
        await asyncio.sleep(0)
        status, answer = self.answer(path)
        octets = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if len(octets) > limit:
            raise TooLarge(f"{url}: answer is larger than {limit} bytes")
        return status, octets

    def answer(self, path: str) -> tuple[int, Any]:
        """Return what a test has it answer."""
        return self.answers.get(path, (404, {}))


class FakeNamespace(FakeServer):
    """Has Services, and gives as many of them as it is asked for."""

    def __init__(self, *services: dict[str, Any]) -> None:
        super().__init__()
        self.services = services
        self.counts: list[int] = []

    def answer(self, path: str) -> tuple[int, Any]:
        """Return a page of Services."""
        query = parse_qs(urlsplit(path).query)
        begin, count = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        self.counts.append(count)
        end = begin + count
        onwards = {"continue": str(end)} if end < len(self.services) else {}
        return 200, {"metadata": onwards, "items": list(self.services[begin:end])}


class Scene:
    """One API server, by a clock that stands still."""

    def __init__(self) -> None:
        self.server, self.clock = FakeServer(), FakeClock()
        self.pods = ApiServerPods(self.server, SERVER + "/", lambda: b"tok\n", self.clock)
        self.server.answers[POD] = (200, {"metadata": {"uid": "u-1", "labels": {"app": "web"}}})
        self.have(service("web", {"app": "web"}), service("db", {"app": "db"}))

    def have(self, *services: dict[str, Any]) -> None:
        """Have the namespace have these Services."""
        self.server.answers[SERVICES] = (200, {"metadata": {}, "items": list(services)})


@pytest.fixture
def scene() -> Scene:
    """A pod and two Services."""
    return Scene()


def service(name: str, selector: Any, **spec: Any) -> dict[str, Any]:
    """Return a Service as the API has it."""
    return {"metadata": {"name": name}, "spec": {"selector": selector, **spec}}


async def test_pod_is_known_by_name_and_uid(scene: Scene) -> None:
    """One of its name that came after is another."""
    assert await scene.pods.labels_of("shop", "web-0", "u-1") == {"app": "web"}
    assert await scene.pods.labels_of("shop", "web-0", None) == {"app": "web"}
    with pytest.raises(TokenRejected, match="is another one by now"):
        await scene.pods.labels_of("shop", "web-0", "u-2")
    with pytest.raises(TokenRejected, match="is gone"):
        await scene.pods.labels_of("shop", "web-1", "u-1")
    assert scene.server.asked[0] == (POD, "tok")


async def test_names_are_written_into_paths_as_they_are(scene: Scene) -> None:
    """What is proven holds no slash; should it, nothing else is asked for."""
    with pytest.raises(TokenRejected):
        await scene.pods.labels_of("shop", "../../secrets", None)
    assert scene.server.asked == [("/api/v1/namespaces/shop/pods/..%2F..%2Fsecrets", "tok")]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"app": "web", "tier": "edge"}, ["web"]),
        ({"app": "web"}, ["web"]),
        ({"app": "Web"}, []),
        ({}, []),
    ],
)
async def test_services_whose_whole_selector_fits(
    scene: Scene, labels: dict[str, str], found: list[str]
) -> None:
    """Every label of a selector has to be the pod's."""
    assert await scene.pods.services_for("shop", labels) == found


async def test_service_that_has_come_with_its_pod_is_seen(scene: Scene) -> None:
    """What was listed for another pod a moment ago does not know it; it is listed anew, once."""
    scene.have(service("web", {"app": "web"}))
    assert await scene.pods.services_for("shop", {"app": "web"}) == ["web"]
    scene.have(service("web", {"app": "web"}), service("new", {"app": "new"}))
    scene.clock.advance(KEPT_TIME / 5)
    asked = len(scene.server.asked)
    found = await asyncio.gather(
        *(scene.pods.services_for("shop", {"app": "new"}) for _ in range(100))
    )
    assert found == [["new"]] * 100
    assert len(scene.server.asked) == asked + 1
    assert await scene.pods.services_for("shop", {"app": "web"}) == ["web"]
    assert len(scene.server.asked) == asked + 1, "who is found costs no list"


@pytest.mark.parametrize(
    "odd",
    [
        service("odd", None),
        service("odd", {}),
        service("odd", {"app": 1}),
        service("odd", {"app": "web", "tier": None}),
        service("odd", {"app": "web"}, type="ExternalName"),
        service("odd", {"app": "web"} | {f"l{n}": "" for n in range(MAX_LABELS)}),
        service("odd", {"app": "web", "x": "x" * (MAX_SELECTOR_CHARS - 6)}),
        service("Odd.name", {"app": "web"}),
        service("a" * 64, {"app": "web"}),
        {"spec": {"selector": {"app": "web"}}},
        "odd",
    ],
    ids=[
        "none",
        "empty",
        "number",
        "null",
        "alias",
        "endless",
        "large",
        "no name",
        "long",
        "nameless",
        "text",
    ],
)
async def test_service_that_selects_nothing_that_is_known(scene: Scene, odd: Any) -> None:
    """Nothing follows from it, and the others are seen."""
    scene.have(odd, service("web", {"app": "web"}))
    assert await scene.pods.services_for("shop", {"app": "web"}) == ["web"]


@pytest.mark.parametrize("more", [{f"l{n}": "" for n in range(MAX_LABELS - 1)}, {"x": "x" * 1017}])
async def test_longest_selectors_are_seen(scene: Scene, more: dict[str, str]) -> None:
    """The twins of the endless and the large one; admission draws the line in the same places."""
    labels = {"app": "web"} | more
    scene.have(service("web", labels))
    assert await scene.pods.services_for("shop", labels) == ["web"]
    ours = MAX_LABELS, MAX_SELECTOR_CHARS
    assert ours == (seen_by_admission.MAX_LABELS, seen_by_admission.MAX_SELECTOR_CHARS)


async def test_services_that_are_not_used_any_more_are_let_go(scene: Scene) -> None:
    """Those of other namespaces as well: whoever made them decides how much memory they take."""
    path = "/api/v1/namespaces/bank/services?limit=25"
    scene.server.answers[path] = (200, {"metadata": {}, "items": [service("b", {"app": "b"})]})
    for namespace in ("shop", "bank"):
        await scene.pods.services_for(namespace, {})
    assert set(scene.pods._listed) == {"shop", "bank"}
    scene.clock.advance(KEPT_TIME)
    await scene.pods.services_for("bank", {})
    assert set(scene.pods._listed) == {"bank"}


async def test_large_services_keep_no_other_from_its_name() -> None:
    """Each as large as an API server takes one, in characters that JSON writes by six."""
    note = {"annotations": {"note": "\x01" * (256 * 1024)}}
    large = [service(f"l{n}", {"app": "l"}) for n in range(20)]
    for one in large:
        one["metadata"] |= note
    few = [service(f"w{n}", {"app": "web"}) for n in range(40)]
    server = FakeNamespace(*few[:30], *large, *few[30:])
    pods = ApiServerPods(server, SERVER, lambda: b"tok", FakeClock())
    assert await pods.services_for("shop", {"app": "web"}) == sorted(f"w{n}" for n in range(40))
    assert server.counts[:4] == [25, 25, 6, 12]
    assert server.counts[-1] > 1


async def test_a_service_that_no_cluster_has_is_not_read() -> None:
    """The twin: there is an end to what is read of one."""
    huge = service("huge", {"app": "web"}) | {"x": "x" * MAX_PAGE_BYTES}
    server = FakeNamespace(huge)
    pods = ApiServerPods(server, SERVER, lambda: b"tok", FakeClock())
    with pytest.raises(Unreachable, match="larger than"):
        await pods.services_for("shop", {"app": "web"})
    assert server.counts == [25, 6, 1]


async def test_hundred_pods_at_once_cost_one_list(scene: Scene) -> None:
    """And it is asked again after a while."""
    ask = [scene.pods.services_for("shop", {"app": "web"}) for _ in range(100)]
    assert await asyncio.gather(*ask) == [["web"]] * 100
    assert len(scene.server.asked) == 1
    scene.have()
    scene.clock.advance(KEPT_TIME - timedelta(seconds=1))
    assert await scene.pods.services_for("shop", {"app": "web"}) == ["web"]
    scene.clock.advance(timedelta(seconds=1))
    assert await scene.pods.services_for("shop", {"app": "web"}) == []


async def test_list_is_read_to_its_end(scene: Scene) -> None:
    """Page by page, and not for ever."""
    onwards = f"{SERVICES}&continue=next"
    first = {"metadata": {"continue": "next"}, "items": [service("a", {"app": "web"})]}
    scene.server.answers[SERVICES] = (200, first)
    scene.server.answers[onwards] = (200, {"metadata": {}, "items": [service("b", {"app": "web"})]})
    assert await scene.pods.services_for("shop", {"app": "web"}) == ["a", "b"]
    scene.clock.advance(KEPT_TIME)
    scene.server.answers[onwards] = (200, first)
    with pytest.raises(Unreachable, match="more Services than are read"):
        await scene.pods.services_for("shop", {"app": "web"})
    assert len(scene.server.asked) == 2 + MAX_PAGES


@pytest.mark.parametrize(
    "answer",
    [(403, {}), (500, b"x"), (200, b"no json"), (200, [])],
    ids=["forbidden", "failed", "no JSON", "no object"],
)
async def test_what_is_no_answer_is_a_server_that_is_away(
    scene: Scene, answer: tuple[int, Any]
) -> None:
    """No pod is refused for it, and none let in."""
    scene.server.answers = {POD: answer, SERVICES: answer}
    with pytest.raises(Unreachable):
        await scene.pods.labels_of("shop", "web-0", "u-1")
    with pytest.raises(Unreachable):
        await scene.pods.services_for("shop", {})


async def test_token_that_cannot_be_read_is_told(scene: Scene) -> None:
    """It is ours, and nothing was asked."""

    def missing() -> bytes:
        raise Broken("secret env:X is not set in the environment")

    pods = ApiServerPods(scene.server, SERVER, missing, scene.clock)
    with pytest.raises(Unreachable, match="our own token"):
        await pods.labels_of("shop", "web-0", None)
    assert scene.server.asked == []
