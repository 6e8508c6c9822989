"""The roots are where pods and the API server need them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from broker.admission.cluster_api import Gone, Invalid, NotThere, Selection
from broker.admission.mirrors import Key, Mirror
from broker.admission.roots import (
    LABELS,
    RACES,
    REST_SECONDS,
    CaBundles,
    Copies,
    Copy,
    Webhooks,
    digest_of,
    reduce_copy,
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
        self.slept: list[float] = []
        self.awake = asyncio.Event()
        """Set: no pause after a failure lasts."""
        self.awake.set()
        self.rested = asyncio.Event()
        """Set: nor does one after a success."""
        self.rested.set()
        self.namespaces: Mirror[bool] = Mirror(
            "namespaces",
            self.cluster,
            Selection("/api/v1/namespaces", labels="penstock.dev/inject=enabled"),
            reduce=alive,
            on_change=self.hurry,
            sleep=lambda _seconds: asyncio.sleep(0),
        )
        self.copied: Mirror[Copy] = Mirror(
            "copies",
            self.cluster,
            Selection("/api/v1/configmaps", fields="metadata.name=penstock-trust"),
            reduce=reduce_copy,
            on_change=self.hurry,
            sleep=lambda _seconds: asyncio.sleep(0),
        )
        self.webhooks: Mirror[Webhooks] = Mirror(
            "webhooks",
            self.cluster,
            Selection(CONFIG, fields="metadata.name=penstock-admission"),
            reduce=reduce_webhooks("penstock"),
            on_change=self.hurry,
            sleep=lambda _seconds: asyncio.sleep(0),
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
            sleep=self.sleep,
        )

    def hurry(self, key: Key) -> None:
        """Have both look."""
        self.copies.hurry(key)
        self.bundles.hurry(key)

    def count(self, what: str, result: str) -> None:
        """Keep a count."""
        self.counts.append((what, result))

    async def sleep(self, seconds: float) -> None:
        """Pass the time; what was written is seen meanwhile."""
        if seconds == REST_SECONDS:
            for _ in range(10):
                await asyncio.sleep(0)
            await self.rested.wait()
        else:
            self.slept.append(seconds)
            await self.awake.wait()

    def open(self, name: str, **more: Any) -> None:
        """Have a namespace opt in."""
        metadata = {"labels": {"penstock.dev/inject": "enabled"}, **more}
        self.cluster.put(f"/api/v1/namespaces/{name}", metadata=metadata)

    async def read(self) -> None:
        """See what the cluster has now."""
        for one in (self.namespaces, self.copied, self.webhooks):
            await one._list()

    async def look(self) -> None:
        """Have everything written that is due now, once."""
        async with asyncio.TaskGroup() as group:
            self.copies.look(group)
            self.bundles.look(group)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have it be kept so, and everything followed, while in here."""
        loops = [self.namespaces, self.copied, self.webhooks, self.copies, self.bundles]
        tasks = [asyncio.create_task(one.run()) for one in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in ended} == {asyncio.CancelledError}

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
    assert world.copies.lacking() == ["bank", "shop"]
    await world.look()
    assert (world.copy("shop"), world.copy("bank")) == (ROOTS, ROOTS)
    assert (world.copy("penstock"), world.copy("quiet")) == (None, None)
    assert world.counts == [("copy", "written")] * 2
    labels = world.cluster.objects[COPY.format("shop")]["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "penstock"
    await world.read()
    assert world.copies.due() == world.copies.lacking() == []


async def test_a_copy_that_somebody_changed_is_put_right(world: World) -> None:
    """What else they wrote into it stays, and a copy that was taken away comes back."""
    await world.read()
    await world.look()
    changed = {"ca.crt": OTHERS, "note": "x"}
    world.cluster.put(COPY.format("shop"), metadata={"labels": LABELS}, data=changed)
    world.cluster.take(COPY.format("bank"))
    await world.read()
    assert world.copies.lacking() == ["bank", "shop"]
    await world.look()
    assert world.cluster.objects[COPY.format("shop")]["data"] == {"ca.crt": ROOTS, "note": "x"}
    assert world.copy("bank") == ROOTS


@pytest.mark.parametrize(
    "labels",
    [None, {}, {"app": "x"}, {**LABELS, "app.kubernetes.io/managed-by": "Helm"}],
    ids=["none", "no labels", "others", "half of ours"],
)
async def test_a_configmap_of_others_is_left_as_it_is(world: World, labels: Any) -> None:
    """Told once, with its namespace, and counted as missing; the others get theirs."""
    metadata = {} if labels is None else {"labels": labels}
    world.cluster.put(COPY.format("bank"), metadata=metadata, data={"ca.crt": OTHERS})
    await world.read()
    with structlog.testing.capture_logs() as lines:
        await world.look()
        world.open("late")
        await world.read()
        await world.look()
    assert (world.copy("bank"), world.copy("shop")) == (OTHERS, ROOTS)
    assert [path for _, path in world.cluster.did if "bank" in path] == []
    (told,) = [line for line in lines if line["log_level"] == "warning"]
    assert (told["namespace"], told["name"]) == ("bank", "penstock-trust")
    assert "remove it" in told["hint"]
    await world.read()
    assert (world.copies.lacking(), world.copies.due()) == (["bank"], [])


async def test_a_configmap_of_others_that_goes_makes_room(world: World) -> None:
    """And one that holds the very roots is nobody's business."""
    world.cluster.put(COPY.format("bank"), data={"ca.crt": ROOTS})
    await world.read()
    assert world.copies.lacking() == ["shop"]
    world.cluster.put(COPY.format("bank"), data={"ca.crt": OTHERS})
    await world.read()
    await world.look()
    world.cluster.take(COPY.format("bank"))
    await world.read()
    await world.look()
    assert world.copy("bank") == ROOTS


async def test_a_copy_that_became_another_meanwhile_is_not_written_over(world: World) -> None:
    """What was seen to be ours is, and what came in its place since is not."""
    await world.read()
    await world.look()
    await world.read()
    world.roots = ROOTS + OTHERS
    world.cluster.take(COPY.format("bank"))
    world.cluster.put(COPY.format("bank"), data={"ca.crt": "theirs"})
    await world.look()
    assert (world.copy("bank"), world.copy("shop")) == ("theirs", ROOTS + OTHERS)


async def test_new_roots_are_copied(world: World) -> None:
    """As after a rotation; without any nothing is written, let alone emptied."""
    await world.read()
    await world.look()
    await world.read()
    world.roots = ROOTS + OTHERS
    await world.look()
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
    assert world.copies.lacking() == ["bank", "shop"]


@pytest.mark.parametrize(
    ("fault", "is_race"),
    [
        (Unreachable("no route"), False),
        (Broken("403 exceeded quota"), False),
        (Gone("410"), False),
        (Conflict("somebody else was first"), True),
        (NotThere("the namespace is gone"), True),
    ],
    ids=["away", "quota", "gone", "conflict", "not there"],
)
async def test_one_copy_that_fails_does_not_hold_up_the_others(
    world: World, fault: Exception, is_race: bool
) -> None:
    """It is looked at again after a pause; that somebody else was first is no failure yet."""
    await world.read()
    world.cluster.failing["create"] = [fault]
    await world.look()
    assert (world.copy("bank"), world.copy("shop")) == (None, ROOTS)
    failed = [] if is_race else [("copy", "failed")]
    assert sorted(world.counts) == [*failed, ("copy", "written")]
    assert len(world.slept) == 1


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Conflict('409: Operation cannot be fulfilled on resourcequotas "q"'), RACES),
        (NotThere('404: namespaces "bank" not found'), RACES),
        (Invalid("422: ValidatingAdmissionPolicy 'p' with binding 'b' denied request"), 1),
    ],
    ids=["quota", "404", "policy"],
)
async def test_a_refusal_that_looks_like_a_race_is_tried_again_and_told(
    world: World, fault: Exception, tries: int
) -> None:
    """A quota's 409 brings no event that would have us look again, and may last for ever."""
    world.cluster.refusing["/api/v1/namespaces/bank/configmaps"] = fault
    with structlog.testing.capture_logs() as lines:
        async with world.running():
            await until(lambda: len(world.slept) == 2 * RACES)
            assert world.copies.lacking() == ["bank"]
            world.cluster.refusing.clear()
            await until(lambda: world.copy("bank"))
    told = [one for one in lines if one["event"] == "roots were not written"]
    assert [(one["where"], one["reason"]) for one in told] == [("bank/penstock-trust", str(fault))]
    passed = [one for one in lines if one["event"] == "roots were not written by us"]
    assert len(passed) == tries - 1
    assert world.counts.count(("copy", "failed")) == 2 * RACES - len(passed)


async def test_who_was_first_is_no_failure(world: World) -> None:
    """The twin: another replica wrote the very roots, and nothing is due any more."""
    write = world.cluster.create

    async def lose(path: str, document: Mapping[str, Any]) -> None:
        if "bank" in path and world.copy("bank") is None:
            metadata = {"labels": LABELS}
            world.cluster.put(COPY.format("bank"), metadata=metadata, data={"ca.crt": ROOTS})
        await write(path, document)

    world.cluster.create = lose  # type: ignore[method-assign]
    async with world.running():
        await until(lambda: world.slept and world.copy("shop") and not world.copies._busy)
        assert world.copies.due() == []
        await until(lambda: not world.copies._faults)
    assert ("copy", "failed") not in world.counts
    assert len(world.slept) == 1


async def test_another_writer_of_our_labels_is_answered_after_a_rest(world: World) -> None:
    """Else the two of them would write as fast as the API server can; others wait for nothing."""

    def ours() -> int:
        return len([path for _, path in world.cluster.did if "bank" in path])

    def differ(number: int) -> None:
        data = {"ca.crt": OTHERS * number}
        world.cluster.put(COPY.format("bank"), metadata={"labels": LABELS}, data=data)

    world.rested.clear()
    async with world.running():
        await until(lambda: world.copy("bank") and world.copy("shop"))
        for number in range(1, 4):
            differ(number)
            world.open(f"late-{number}")
            await until(lambda number=number: world.copy(f"late-{number}"))
        assert ours() == 1
        world.rested.set()
        await until(lambda: world.copy("bank") == ROOTS)
        assert ours() == 2


async def test_a_namespace_that_refuses_waits_alone(world: World) -> None:
    """While it pauses, what opts in or changes elsewhere is written at once; it is told once."""
    world.cluster.refusing["/api/v1/namespaces/bank/configmaps"] = Broken("403 exceeded quota")
    world.awake.clear()
    with structlog.testing.capture_logs() as lines:
        async with world.running():
            await until(lambda: world.slept)
            await until(lambda: world.copy("shop"))
            world.open("late")
            await until(lambda: world.copy("late"))
            world.cluster.take(COPY.format("shop"))
            await until(lambda: world.copy("shop"))
            assert len(world.slept) == 1
            world.awake.set()
            await until(lambda: len(world.slept) > 5)
            world.cluster.refusing.clear()
            await until(lambda: world.copy("bank"))
    told = [one for one in lines if one["log_level"] == "warning" and one.get("what") == "copy"]
    assert [(one["where"], one["reason"]) for one in told] == [
        ("bank/penstock-trust", "403 exceeded quota")
    ]
    assert world.slept[0] < 30


async def test_a_namespace_that_hangs_waits_alone(world: World) -> None:
    """A webhook of its own that never answers keeps nobody else from the roots."""
    hangs = asyncio.Event()
    create = world.cluster.create

    async def slow(path: str, document: Mapping[str, Any]) -> None:
        if "bank" in path:
            await hangs.wait()
        await create(path, document)

    world.cluster.create = slow  # type: ignore[method-assign]
    async with world.running():
        await until(lambda: world.copy("shop"))
        world.open("late")
        await until(lambda: world.copy("late"))
        assert world.copy("bank") is None
        world.roots = ROOTS + OTHERS
        world.copies.hurry(("penstock", "penstock-trust"))
        await until(lambda: world.copy("shop") == ROOTS + OTHERS)
        hangs.set()
        await until(lambda: world.copy("bank") == ROOTS + OTHERS)


async def test_what_changes_while_it_is_written_is_written_again(world: World) -> None:
    """Its own event came when nobody listened."""
    create = world.cluster.create

    async def race(path: str, document: Mapping[str, Any]) -> None:
        await create(path, document)
        if "bank" in path:
            world.cluster.create = create  # type: ignore[method-assign]
            world.cluster.take(COPY.format("bank"))
            await until(lambda: world.copied.get(("shop", "penstock-trust")))
            for _ in range(10):
                await asyncio.sleep(0)

    world.cluster.create = race  # type: ignore[method-assign]
    async with world.running():
        await until(lambda: world.copy("bank"))


async def test_roots_that_change_while_another_replica_is_first_are_written(world: World) -> None:
    """What it wrote are those of before, and was seen before ours were refused."""
    world.roots = None
    write = world.cluster.create

    async def lose(path: str, document: Mapping[str, Any]) -> None:
        if "bank" in path:
            world.cluster.create = write  # type: ignore[method-assign]
            metadata = {"labels": LABELS}
            world.cluster.put(COPY.format("bank"), metadata=metadata, data={"ca.crt": ROOTS})
            await until(lambda: world.copied.get(("bank", "penstock-trust")))
            world.roots = ROOTS + OTHERS
            world.copies.hurry(("penstock", "penstock-trust"))
            for _ in range(10):
                await asyncio.sleep(0)
        await write(path, document)

    world.cluster.create = lose  # type: ignore[method-assign]
    async with world.running():
        await until(lambda: world.copied.is_known and world.namespaces.is_known)
        world.roots = ROOTS
        world.copies.hurry(("penstock", "penstock-trust"))
        await until(lambda: world.copy("bank") == ROOTS + OTHERS)


async def test_a_place_that_became_somebody_elses_while_it_waited_is_let_alone(
    world: World,
) -> None:
    """Its turn comes after others', and by then it is none of ours."""
    await world.read()
    (place, _) = world.copies.due()
    world.cluster.put(COPY.format("bank"), data={"ca.crt": OTHERS})
    await world.read()
    with pytest.raises(NotThere):
        await world.copies.put(place)
    assert world.copy("bank") == OTHERS


async def test_it_is_kept_so(world: World) -> None:
    """Until cancelled: whenever something is seen, and again after a failure."""
    world.cluster.failing["create"] = [Unreachable("no route")] * 2
    async with world.running():
        await until(lambda: world.copy("bank") and world.copy("shop"))
        assert len(world.slept) == 2
        world.open("late")
        await until(lambda: world.copy("late"))


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
    await world.look()
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
    world.counts.clear()
    await world.look()
    assert ("ca-bundle", "written") not in world.counts
    assert await bundles(world) == [ROOTS, ROOTS]


async def test_a_configuration_that_cannot_be_written_waits_alone(world: World) -> None:
    """The copies are made meanwhile."""
    world.cluster.put(f"{CONFIG}/penstock-admission", **configured(OTHERS))
    world.cluster.failing["change"] = [Broken("403 may not"), Gone("410")]
    async with world.running():
        await until(lambda: ("ca-bundle", "written") in world.counts)
        assert world.copy("shop") == ROOTS
    assert world.counts.count(("ca-bundle", "failed")) == 2


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"metadata": 5, "data": 5},
        {"metadata": {"labels": 5}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "penstock"}}},
    ],
)
def test_a_configmap_of_another_shape_is_none_of_ours(document: dict[str, Any]) -> None:
    """And holds no roots."""
    assert reduce_copy(document) == Copy("", is_ours=False, digest=digest_of(""))


def test_of_a_copy_no_more_is_kept_than_by_what_it_is_known() -> None:
    """Whoever may write there may write a MiB in each of a thousand namespaces."""
    metadata = {"resourceVersion": "7", "labels": {**LABELS, "team": "x"}}
    kept = reduce_copy({"metadata": metadata, "data": {"ca.crt": "x" * 2**20, "y": "y" * 2**20}})
    assert kept == Copy("7", is_ours=True, digest=digest_of("x" * 2**20))
    assert len(kept.digest) == 32


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
