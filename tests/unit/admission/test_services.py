"""Which Services select a pod."""

from typing import Any

import pytest

from broker.admission.mirrors import Mirror
from broker.admission.services import (
    MAX_LABELS,
    MAX_SELECTOR_CHARS,
    SERVICES,
    Selector,
    Services,
    reduce_service,
)
from tests.fakes.fake_cluster import FakeCluster


def service(**spec: Any) -> dict[str, Any]:
    """Return a Service."""
    return {"spec": spec}


async def services(cluster: FakeCluster) -> Services:
    """Return the Services of a cluster."""
    mirror: Mirror[Selector] = Mirror("services", cluster, SERVICES, reduce=reduce_service)
    made = Services(mirror)
    assert not made.is_known
    await mirror._list()
    return made


async def test_a_service_selects_by_all_of_its_labels_in_its_own_namespace() -> None:
    """And a pod may be selected by several."""
    cluster = FakeCluster()
    for namespace, name, selector in (
        ("shop", "web", {"app": "web"}),
        ("shop", "web-hl", {"app": "web", "tier": "front"}),
        ("shop", "other", {"app": "db"}),
        ("bank", "web", {"app": "web"}),
    ):
        path = f"/api/v1/namespaces/{namespace}/services/{name}"
        cluster.put(path, **service(selector=selector))
    found = await services(cluster)
    assert found.is_known
    assert found.selecting("shop", {"app": "web", "tier": "front", "x": "y"}) == ["web", "web-hl"]
    assert found.selecting("shop", {"app": "web"}) == ["web"]
    assert found.selecting("shop", {}) == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        service(),
        service(selector={}),
        service(selector=None),
        service(selector={"app": "web"}, type="ExternalName"),
        service(selector={f"l{n}": "" for n in range(MAX_LABELS + 1)}),
        service(selector={"app": "x" * (MAX_SELECTOR_CHARS - 2)}),
        {"spec": 5},
    ],
)
def test_a_service_that_selects_nothing_is_not_kept(document: dict[str, Any]) -> None:
    """An empty selector means endpoints that somebody writes by hand, and no pod at all."""
    assert reduce_service(document) is None


def test_a_selector_that_pods_can_have_is_kept() -> None:
    """The twins of the endless ones."""
    long = {"app": "x" * (MAX_SELECTOR_CHARS - 3)}
    for labels in ({f"l{n}": "" for n in range(MAX_LABELS)}, long):
        found = reduce_service(service(selector=labels))
        assert found is not None
        assert found.is_fit({"tier": "edge", **labels})
