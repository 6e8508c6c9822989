"""The roots are where pods and the API server need them."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import pytest

from broker.admission.cluster_api import Selection
from broker.admission.mirrors import Mirror
from broker.admission.roots import (
    CaBundles,
    Copies,
    Webhooks,
    reduce_roots,
    reduce_webhooks,
)
from broker.issuance.errors import Broken, Conflict, Unreachable
from tests.fakes.fake_cluster import FakeCluster, until

ROOTS = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
OTHERS = ROOTS.replace("AAAA", "BBBB")
COPY = "/api/v1/namespaces/{}/configmaps/penstock-trust"
CONFIG = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def alive(document: Mapping[str, Any]) -> bool:
    """Tell whether a namespace is not being taken away."""
    return "deletionTimestamp" not in document["metadata"]


class World:
    """A cluster with namespaces that opted in, and the two that keep roots."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.roots: str | None = ROOTS
        self.is_ours = True
        self.counts: list[tuple[str, str]] = []
        self.slept = asyncio.Event()
        self.namespaces: Mirror[bool] = Mirror(
            "namespaces",
            self.cluster,
            Selection("/api/v1/namespaces", labels="penstock.dev/inject=enabled"),
            reduce=alive,
        )
        self.copied: Mirror[str] = Mirror(
            "copies",
            self.cluster,
            Selection("/api/v1/configmaps", fields="metadata.name=penstock-trust"),
            reduce=lambda one: str(one.get("data", {}).get("ca.crt", "")),
        )
        self.webhooks: Mirror[Webhooks] = Mirror(
            "webhooks",
            self.cluster,
            Selection(CONFIG, fields="metadata.name=penstock-admission"),
            reduce=reduce_webhooks("penstock"),
        )
        self.copies = Copies(
            self.cluster,
            namespaces=self.namespaces,
            copies=self.copied,
            roots=lambda: self.roots,
            name="penstock-trust",
            home="penstock",
            count=self.count,
            sleep=self.sleep,
        )
        self.bundles = CaBundles(
            self.cluster,
            mirrors={CONFIG: self.webhooks},
            roots=lambda: self.roots,
            is_ours=lambda _roots: self.is_ours,
            count=self.count,
        )

    def count(self, what: str, result: str) -> None:
        """Keep a count."""
        self.counts.append((what, result))

    async def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.slept.set()
        await asyncio.sleep(0)

    def open(self, name: str, **more: Any) -> None:
        """Have a namespace opt in."""
        metadata = {"labels": {"penstock.dev/inject": "enabled"}, **more}
        self.cluster.put(f"/api/v1/namespaces/{name}", metadata=metadata)

    async def read(self) -> None:
        """See what the cluster has now."""
        for one in (self.namespaces, self.copied, self.webhooks):
            await one._list()

    def copy(self, namespace: str) -> str | None:
        """Return what a copy holds."""
        found = self.cluster.objects.get(COPY.format(namespace))
        return None if found is None else found["data"].get("ca.crt")


@pytest.fixture
def world() -> World:
    """Two namespaces that opted in, and our own."""
    made = World()
    for name in ("shop", "bank", "penstock"):
        made.open(name)
    made.cluster.put("/api/v1/namespaces/quiet")
    return made


async def test_roots_are_copied_to_who_opted_in(world: World) -> None:
    """Nowhere else, and not over their own source."""
    await world.read()
    assert world.copies.due() == ["bank", "shop"]
    assert await world.copies.look() == []
    assert (world.copy("shop"), world.copy("bank")) == (ROOTS, ROOTS)
    assert (world.copy("penstock"), world.copy("quiet")) == (None, None)
    assert world.counts == [("copy", "written")] * 2
    labels = world.cluster.objects[COPY.format("shop")]["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "penstock"
    await world.read()
    assert world.copies.due() == []


async def test_a_copy_that_somebody_changed_is_put_right(world: World) -> None:
    """What else they wrote into it stays, and a copy that was taken away comes back."""
    await world.read()
    await world.copies.look()
    world.cluster.put(COPY.format("shop"), data={"ca.crt": OTHERS, "note": "x"})
    world.cluster.take(COPY.format("bank"))
    await world.read()
    assert world.copies.due() == ["bank", "shop"]
    await world.copies.look()
    assert world.cluster.objects[COPY.format("shop")]["data"] == {"ca.crt": ROOTS, "note": "x"}
    assert world.copy("bank") == ROOTS


async def test_new_roots_are_copied(world: World) -> None:
    """As after a rotation; without any nothing is written, let alone emptied."""
    await world.read()
    await world.copies.look()
    await world.read()
    world.roots = ROOTS + OTHERS
    await world.copies.look()
    assert world.copy("shop") == ROOTS + OTHERS
    world.roots = None
    assert world.copies.due() == []


async def test_nothing_is_due_before_all_is_known(world: World) -> None:
    """Or every copy would be written at each start."""
    assert world.copies.due() == []
    await world.namespaces._list()
    assert world.copies.due() == []


async def test_a_namespace_that_is_taken_away_gets_nothing(world: World) -> None:
    """The API server would refuse it again and again."""
    world.open("old", deletionTimestamp="2026-11-23T00:00:00Z")
    await world.read()
    assert world.copies.due() == ["bank", "shop"]


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [
        (Unreachable("no route"), False),
        (Broken("422 is immutable"), False),
        (Conflict("somebody else was first"), True),
    ],
)
async def test_one_copy_that_fails_does_not_hold_up_the_others(
    world: World, fault: Exception, is_done: bool
) -> None:
    """It is tried again, unless what is seen next tells what is due."""
    await world.read()
    world.cluster.failing["create"] = [fault]
    assert await world.copies.look() == ([] if is_done else ["bank"])
    assert (world.copy("bank"), world.copy("shop")) == (None, ROOTS)
    failed = [] if is_done else [("copy", "failed")]
    assert world.counts == [*failed, ("copy", "written")]


async def test_it_is_kept_so(world: World) -> None:
    """Until cancelled: whenever it is told to look, and again after a failure."""
    world.cluster.failing["create"] = [Unreachable("no route")]
    await world.read()
    task = asyncio.create_task(world.copies.run())
    await world.slept.wait()
    await until(lambda: world.copy("bank"))
    await world.read()
    world.open("late")
    await world.namespaces._list()
    world.copies.hurry(("", "late"))
    await until(lambda: world.copy("late"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def configured(*bundles: str | None, namespace: str = "penstock") -> dict[str, Any]:
    """Return a webhook configuration."""
    webhooks = []
    for bundle in bundles:
        config: dict[str, Any] = {"service": {"namespace": namespace, "name": "a"}}
        if bundle is not None:
            config["caBundle"] = base64.b64encode(bundle.encode()).decode()
        webhooks.append({"name": "x", "clientConfig": config})
    return {"webhooks": webhooks}


async def bundles(world: World) -> list[str]:
    """Return the bundles of the configuration, after one look."""
    await world.read()
    assert await world.bundles.look() == []
    found = world.cluster.objects[f"{CONFIG}/penstock-admission"]["webhooks"]
    return [base64.b64decode(one["clientConfig"].get("caBundle", "")).decode() for one in found]


async def test_our_webhooks_are_believed_by_the_roots(world: World) -> None:
    """Each of them, whatever stood there; once it is so nothing is written."""
    world.cluster.put(f"{CONFIG}/penstock-admission", **configured(None, OTHERS, ROOTS))
    world.cluster.put(f"{CONFIG}/other", **configured(None))
    assert await bundles(world) == [ROOTS] * 3
    await world.read()
    assert world.bundles.due() == []
    assert "caBundle" not in str(world.cluster.objects[f"{CONFIG}/other"])
    assert [what for what, _ in world.cluster.did if what == "change"] == ["change"]


async def test_roots_that_are_not_our_own_are_not_put_there(world: World) -> None:
    """The API server would believe us no more; those before stay."""
    world.cluster.put(f"{CONFIG}/penstock-admission", **configured(OTHERS))
    world.is_ours = False
    assert await bundles(world) == [OTHERS]


async def test_a_webhook_of_another_namespace_is_left_alone(world: World) -> None:
    """And one that is called by URL."""
    document = configured(OTHERS, namespace="elsewhere")
    document["webhooks"].append({"name": "y", "clientConfig": {"url": "https://x.test"}})
    world.cluster.put(f"{CONFIG}/penstock-admission", **document)
    assert (await bundles(world))[0] == OTHERS


async def test_a_configuration_that_changed_meanwhile_is_read_again(world: World) -> None:
    """The number of a webhook is that of one version."""
    world.cluster.put(f"{CONFIG}/penstock-admission", **configured(OTHERS))
    await world.read()
    world.cluster.put(f"{CONFIG}/penstock-admission", **configured(OTHERS, OTHERS))
    assert await world.bundles.look() == []
    assert world.counts == []
    assert await bundles(world) == [ROOTS, ROOTS]


@pytest.mark.parametrize(
    "data",
    [None, {}, {"ca.crt": ""}, {"ca.crt": "no PEM"}, {"ca.crt": ROOTS * 20_000}, {"x": ROOTS}, 5],
    ids=["none", "no-key", "empty", "no-pem", "huge", "other-key", "number"],
)
def test_what_are_no_roots_is_not_spread(data: Any) -> None:
    """An empty ConfigMap is what the chart begins with."""
    assert reduce_roots({"data": data}) is None
    assert reduce_roots({"data": {"ca.crt": ROOTS}}) == ROOTS


@pytest.mark.parametrize("webhooks", [None, 5, [5], [{}], [{"clientConfig": 5}]])
def test_a_configuration_of_another_shape_has_no_bundles(webhooks: Any) -> None:
    """It is left as it is; a bundle that is no base64 counts as none."""
    found = reduce_webhooks("penstock")({"webhooks": webhooks})
    assert found is not None
    assert found.bundles == ()
    odd = configured(None)
    odd["webhooks"][0]["clientConfig"]["caBundle"] = "%%"
    found = reduce_webhooks("penstock")(odd)
    assert found is not None
    assert found.bundles == ((0, ""),)
