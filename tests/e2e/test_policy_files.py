"""Many policy files, files that come and go while they are read, and two directories compared."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.test_policy_reload import Scene, new_broker
from tests.peers import process

pytestmark = pytest.mark.e2e

ZONE: Final = "farm.example.test"
COUNT: Final = 1_000
LOOKS: Final = 5
"""How often the files are read while they come and go."""


def shared(name: str, **demands: Any) -> str:
    """Return a file with one rule about the names below its own."""
    rule = {"name": name, "because": "a test is about it", "names": [f"**.{name}.{ZONE}"]}
    document = {
        "apiVersion": "penstock.dev/v1",
        "kind": "SharedRules",
        "communities": "all",
        "rules": [{**rule, **demands}],
    }
    return json.dumps(document, indent=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker that looks at its policies often."""
    with new_broker(tmp_path_factory.mktemp("files") / "b") as made:
        yield Scene(made)


async def answers(scene: Scene, *names: str) -> list[int]:
    """Return the status that an order of each name comes to."""
    async with scene.requester() as client:
        return [(await client.order(name)).status for name in names]


@contextmanager
def coming_and_going(path: Path) -> Iterator[list[int]]:
    """Take a file away and put it back as it was, again and again; yields how often."""
    octets, has_to_end, turns = path.read_bytes(), threading.Event(), [0]

    def churn() -> None:
        while not has_to_end.is_set():
            path.unlink()
            path.write_bytes(octets)
            turns[0] += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield turns
    finally:
        has_to_end.set()
        thread.join()


async def asked(scene: Scene) -> None:
    """Have the files read while they change: they are refused, or whoever asks is told so."""
    try:
        await scene.reload()
    except process.PeerFailed as refused:
        if "policy files are being changed" not in str(refused):
            raise


async def test_a_thousand_files_are_one_set(scene: Scene) -> None:
    """Taken whole; a broken one among them is named, and one that comes and goes while all are
    read changes nothing."""
    folder = scene.folder / "shared"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"t{number}.yaml").write_text(shared(f"t{number}", refuse=f"no {number}"))
    told = await scene.reload()
    assert told["refused"] is None
    names = f"www.t0.{ZONE}", f"www.t777.{ZONE}", f"www.t{COUNT}.{ZONE}"
    assert await answers(scene, *names) == [400, 400, 201]
    digest = told["in_force"]["sha256"]

    (folder / "t500.yaml").write_text(shared("t500", refus="no 500"))
    told = await scene.reload()
    faults = told["refused"]["faults"]
    assert {fault.partition(":")[0] for fault in faults} == {str(folder / "t500.yaml")}
    assert any("unknown key 'refus'" in fault for fault in faults)
    assert told["in_force"]["sha256"] == digest
    (folder / "t500.yaml").write_text(shared("t500", refuse="no 500"))
    assert (await scene.reload())["refused"] is None

    with coming_and_going(scene.folder / "default.yaml") as turns:
        for _ in range(LOOKS):
            await asked(scene)
            assert (await scene.status())["in_force"]["sha256"] == digest
            assert await answers(scene, *names) == [400, 400, 201]
        assert turns[0] > LOOKS
    (folder / "one-more.yaml").write_text(shared(f"t{COUNT}", refuse="no more"))
    await scene.until(lambda told: told["in_force"]["sha256"] != digest)
    assert await answers(scene, *names) == [400, 400, 400]


async def test_two_directories_are_compared_beside_a_broker(scene: Scene, tmp_path: Path) -> None:
    """OLD is what is named, not what is in force: what both refuse is no difference."""
    scene.put_back()
    assert (await scene.reload())["refused"] is None
    async with scene.requester() as client:
        for name in ("one", "two"):
            placed = await client.request(f"www.{name}.{ZONE}")
            assert await placed.settled() == "valid"
    folders = {}
    for title, refused in (("strict", ["one"]), ("stricter", ["one", "two"])):
        folders[title] = tmp_path / title
        (folders[title] / "shared").mkdir(parents=True)
        (folders[title] / "default.yaml").write_bytes(scene.good)
        for name in refused:
            file = folders[title] / "shared" / f"{name}.yaml"
            file.write_text(shared(name, refuse="no longer"))

    async def compared(*directories: Path) -> set[tuple[str, str]]:
        words = [str(one) for one in directories]
        found = await asyncio.to_thread(scene.broker.json, "policy", "diff", *words)
        assert found["replayed"]["certificate"] == 2
        return {(one["effect"], name) for one in found["groups"] for name in one["names"]}

    one, two = (("refused", f"www.{name}.{ZONE}") for name in ("one", "two"))
    assert await compared(folders["stricter"]) == {one, two}
    assert await compared(folders["strict"], folders["stricter"]) == {two}
    assert await compared(folders["stricter"], folders["stricter"]) == set()
    widened = await compared(folders["stricter"], folders["strict"])
    assert widened == {("allowed", f"www.two.{ZONE}")}


async def test_last_good_set_outlives_the_broker(scene: Scene) -> None:
    """Nobody signed it: broken files and `kill -9` leave it in force; mended ones come alive."""
    scene.put_back()
    rule = scene.folder / "shared" / "kept.yaml"
    rule.parent.mkdir(exist_ok=True)
    rule.write_text(shared("kept", refuse="no longer"))
    before = (await scene.reload())["in_force"]
    names = f"www.kept.{ZONE}", f"www.other.{ZONE}"
    rule.write_text("")
    scene.policy_file.write_text("cap: [")
    assert (await scene.reload())["in_force"] == before
    scene.broker.kill()
    scene.broker.start()
    told = await scene.status()
    assert (told["in_force"]["sha256"], told["in_force"]["since"]) == (
        before["sha256"],
        before["since"],
    )
    assert any("default.yaml:" in fault for fault in told["refused"]["faults"])
    assert "[!] policies" in scene.readyz()
    assert "penstock_policy_last_good 1.0" in scene.broker.metrics()
    assert await answers(scene, *names) == [400, 201]
    rule.unlink()
    scene.put_back()
    mended = await scene.reload()
    assert (mended["refused"], mended["in_force"]["sha256"] != before["sha256"]) == (None, True)
    assert await answers(scene, *names) == [201, 201]
