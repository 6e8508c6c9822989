"""The store fails for a while: nothing that was acknowledged is lost, and all goes on by itself."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployments.ledger import change
from tests.e2e.scene import Scene, Strace
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import Fault, Resource, Script
from tests.peers import process

pytestmark = pytest.mark.e2e

LIMITS = {"finalize_wait": "300ms"}

REFUSED_INSERT = """
    CREATE TRIGGER storage_fails BEFORE INSERT ON certificates
    BEGIN SELECT RAISE(ABORT, 'told to fail'); END
"""

DISK_OPTIONS = "size=8m,mode=0700"
"""A new store takes about 1 MiB, and its log up to 4 MiB before it is folded in."""

READY_SECONDS = 60.0
"""By when a probe has noticed that the disk is full, or that it has room again."""

ATTEMPTS_SECONDS = 3.0
"""How long the store keeps failing: the job comes again after about 1 and 2 s meanwhile."""


@pytest.fixture(scope="module")
def acme_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of an ACME CA."""
    with Scene(tmp_path_factory.mktemp("acme"), Script(), limits=LIMITS) as scene:
        yield scene


@pytest.fixture(scope="module")
def local_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of the built-in CA."""
    with Scene(tmp_path_factory.mktemp("local"), limits=LIMITS) as scene:
        yield scene


@pytest.fixture(scope="module")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker whose state lies on a file system of its own, with room for a few hundred orders."""
    tmp = tmp_path_factory.mktemp("small")
    disk = tmp / "disk"
    disk.mkdir()
    as_root("mount", "-t", "tmpfs", "-o", DISK_OPTIONS, "penstock-test", str(disk))
    try:
        with Scene(tmp, Script(), limits=LIMITS, state=disk / "state") as scene:
            yield scene
    finally:
        as_root("umount", "--lazy", str(disk))


def as_root(*command: str) -> None:
    """Run a command that only root may run."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, *command], check=True, timeout=10)


class FullDisk:
    """Takes the space away that the broker's state directory has, and gives it back."""

    def __init__(self, scene: Scene) -> None:
        self._ballast = scene.broker.state / "ballast"

    def fill(self) -> None:
        """Write until there is no room for another byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (65_536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(b"\0" * size)

    def empty(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


def issued_by_the_ca(scene: Scene) -> int:
    """Return how many certificates the CA has issued, by its own record."""
    return len(scene.kept().issued_here if scene.ca is None else scene.ca.ledger().certificates)


@pytest.mark.parametrize("is_acme", [True, False], ids=["ACME", "built-in"])
async def test_certificate_that_cannot_be_stored_is_delivered_later(
    is_acme: bool, acme_scene: Scene, local_scene: Scene
) -> None:
    """The store refuses the certificate that the CA has issued: the client sees processing, and
    gets that very certificate once the store takes it; the CA issued one."""
    scene = acme_scene if is_acme else local_scene
    before = issued_by_the_ca(scene)
    change(scene.broker.database, REFUSED_INSERT)
    async with scene.client() as client:
        survivor = Survivor(client, *scene.names())
        work = asyncio.create_task(scene.obtain(survivor))
        await until_processing(survivor, lambda: issued_by_the_ca(scene) > before)
        done, _ = await asyncio.wait({work}, timeout=ATTEMPTS_SECONDS)
        change(scene.broker.database, "DROP TRIGGER storage_fails")
        assert not done
        assert survivor.statuses[-1] == "processing"
        assert issued_by_the_ca(scene) == before + 1
        await work
    assert survivor.statuses[-2:] == ["processing", "valid"]
    assert issued_by_the_ca(scene) == before + 1
    assert scene.faults() == []


async def until_processing(survivor: Survivor, has_come: Callable[[], bool] = lambda: True) -> None:
    """Wait until *survivor* has seen its order processing, and *has_come* is true besides."""
    await asyncio.to_thread(
        process.wait_until,
        lambda: survivor.statuses[-1:] == ["processing"] and has_come(),
        READY_SECONDS,
        "the order is processing",
    )


async def until_ready(scene: Scene, *, wanted: bool) -> None:
    """Wait until the health port says what is wanted."""
    what = f"readiness is {wanted}"
    await asyncio.to_thread(
        process.wait_until, lambda: scene.broker.is_ready() is wanted, READY_SECONDS, what
    )


async def test_full_disk_acknowledges_nothing_and_recovers_alone(small_scene: Scene) -> None:
    """No room left: 503 with Retry-After, not ready, nothing half-made; room again: all goes on."""
    scene = small_scene
    assert scene.ca is not None
    disk = FullDisk(scene)
    async with scene.client() as client:
        await scene.obtain(Survivor(client, *scene.names()))
        waiting = Survivor(client, *scene.names())
        ready = await waiting.carry_to("ready")
        disk.fill()
        refused = await client.order(*scene.names())
        assert (refused.status, refused.problem) == (503, "serverInternal")
        assert int(refused.headers["Retry-After"]) >= 1
        finalized = await client.finalize(ready, waiting.csr)
        assert finalized.status == 503
        assert int(finalized.headers["Retry-After"]) >= 1
        assert (await waiting.look())["status"] == "ready"
        await until_ready(scene, wanted=False)
        disk.empty()
        await until_ready(scene, wanted=True)
        await scene.obtain(waiting)
        await scene.obtain(Survivor(client, *scene.names()))
    assert scene.faults() == []


async def test_certificate_that_arrives_at_a_full_disk_is_kept_later(small_scene: Scene) -> None:
    """The CA issues while there is no room: the order waits, and ends valid by itself."""
    scene = small_scene
    assert scene.ca is not None
    disk = FullDisk(scene)
    async with scene.client() as client:
        finalizes = scene.ca.ledger().count(Resource.FINALIZE)
        hold = Fault.hanging(Resource.FINALIZE, processed=True)
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[hold]))
        survivor = Survivor(client, *scene.names())
        work = asyncio.create_task(scene.obtain(survivor))
        await asyncio.to_thread(scene.ca.wait_seen, Resource.FINALIZE, finalizes + 1)
        disk.fill()
        await asyncio.to_thread(scene.ca.release)
        await until_processing(survivor)
        done, _ = await asyncio.wait({work}, timeout=ATTEMPTS_SECONDS)
        assert not done
        assert survivor.statuses[-1] == "processing"
        disk.empty()
        await work
    assert scene.ca.ledger().count(Resource.FINALIZE) == finalizes + 1
    assert scene.faults() == []


async def until_refused(survivor: Survivor) -> None:
    """Wait until an attempt of *survivor* has met the failing disk."""
    has_met = "an attempt has met the failing disk"
    await asyncio.to_thread(
        process.wait_until, lambda: bool(survivor.failures), READY_SECONDS, has_met
    )


@pytest.mark.parametrize("error", ["pwrite64:error=ENOSPC", "fdatasync:error=EIO"])
async def test_failing_disk_loses_nothing_that_was_acknowledged(
    error: str, acme_scene: Scene, tmp_path: Path
) -> None:
    """Every write, or every fsync, fails for a while: 503 meanwhile, and nothing is lost."""
    scene = acme_scene
    log = str(scene.broker.database) + "-wal"
    call = error.partition(":")[0]
    async with scene.client() as client:
        await scene.obtain(Survivor(client, *scene.names()))
        survivor = Survivor(client, *scene.names())
        failing = Strace(
            scene.broker,
            tmp_path / "trace",
            "-P",
            log,
            "-e",
            f"trace={call}",
            "-e",
            f"inject={error}",
        )
        async with failing:
            refused = await client.order(*scene.names())
            assert refused.status == 503
            work = asyncio.create_task(scene.obtain(survivor))
            await until_ready(scene, wanted=False)
            await until_refused(survivor)
            assert not work.done()
        await work
        await until_ready(scene, wanted=True)
        assert any(each.startswith("503") for each in survivor.failures), survivor.failures
    assert scene.faults() == []
