"""SIGKILL at each durable step of an order, again and again, until it goes through unharmed.

strace is put on the running broker and kills it as it enters its N-th fsync: what was to be made
durable stands in the log by then, and nobody was told.  Killed at a write of the log instead, it
leaves a transaction that never happened.  The CA's record says whether the promise was kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.scene import Scene, Strace, killing
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import Script

pytestmark = pytest.mark.e2e

MOST_SYNCS = 12
"""Bound of the loops: an order has at most five durable commits, and ends well before it."""

MOST_TRIES = 4
"""Orders that are tried for a kill at the same step: a busy machine lets steps share a commit."""

MOST_WRITES = 400
"""Bound of the loop over the log's writes, of which an order needs about 150."""

FEWEST_WRITE_KILLS = 6

WRITE_STEP = 16
"""Every so many writes of the log the broker is killed, unless all of them are asked for."""

MOST_SAMPLES = 8
ENOUGH_SAMPLES = 3

MOST_COMMITS = 5
"""Durable commits that an order may cost, for whatever number of names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of order: who asks whom, and for how many names."""

    is_trusted: bool
    is_acme: bool
    names: int = 1
    fewest_kills: int = 4


KINDS = {
    "trusted, ACME": Kind(is_trusted=True, is_acme=True),
    "trusted, ACME, 3 names": Kind(is_trusted=True, is_acme=True, names=3),
    "http-01, ACME": Kind(is_trusted=False, is_acme=True, fewest_kills=5),
    "http-01, ACME, 3 names": Kind(is_trusted=False, is_acme=True, names=3, fewest_kills=5),
    "trusted, built-in": Kind(is_trusted=True, is_acme=False),
    "trusted, built-in, 3 names": Kind(is_trusted=True, is_acme=False, names=3),
    "http-01, built-in": Kind(is_trusted=False, is_acme=False),
    "http-01, built-in, 3 names": Kind(is_trusted=False, is_acme=False, names=3),
}


KILLED = ("trusted, ACME", "http-01, ACME, 3 names", "trusted, built-in", "http-01, built-in")
"""The kinds that the broker is killed in; the others' steps are the same."""


@pytest.fixture(scope="module")
def acme_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of an honest ACME CA that counts."""
    with Scene(tmp_path_factory.mktemp("acme"), Script()) as scene:
        yield scene


@pytest.fixture(scope="module")
def local_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A broker in front of the built-in CA."""
    with Scene(tmp_path_factory.mktemp("local")) as scene:
        yield scene


@pytest.fixture
def scenes(acme_scene: Scene, local_scene: Scene) -> Callable[[Kind], Scene]:
    """Find a broker in front of the CA that a kind of order asks for."""
    return lambda kind: acme_scene if kind.is_acme else local_scene


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
async def test_order_has_at_most_five_durable_commits(
    kind: Kind,
    scenes: Callable[[Kind], Scene],
    tmp_path: Path,
    note: Callable[[str, object], None],
) -> None:
    """An order alone brings the log to the disk at most five times, and no other file."""
    scene = scenes(kind)
    counts: list[int] = []
    was_folded = True  # the first order fetches the CA's directory besides, and is not counted
    async with scene.client(is_trusted=kind.is_trusted) as client:
        for number in range(MOST_SAMPLES):
            names = scene.names(kind.names, is_trusted=kind.is_trusted)
            trace = Strace(scene.broker, tmp_path / f"{number}.trace", "-e", "fdatasync,fsync")
            async with trace:
                await scene.obtain(Survivor(client, *names))
            files = [Path(path).name for path in trace.syncs()]
            # Every 4 MiB SQLite folds the log into the database, and begins it anew after that.
            is_folded = "penstock.db" in files
            if not is_folded and not was_folded:
                assert set(files) == {"penstock.db-wal"}
                counts.append(len(files))
            was_folded = is_folded
            if len(counts) == ENOUGH_SAMPLES:
                break
    note("durable_commits", sorted(counts))
    assert len(counts) == ENOUGH_SAMPLES
    assert max(counts) <= MOST_COMMITS


@pytest.mark.parametrize("kind", [KINDS[name] for name in KILLED], ids=KILLED)
async def test_sigkill_at_each_fsync_loses_and_doubles_nothing(
    kind: Kind,
    scenes: Callable[[Kind], Scene],
    tmp_path: Path,
    note: Callable[[str, object], None],
) -> None:
    """Killed at its first fsync, its second, and so on: each order ends in one certificate."""
    scene = scenes(kind)
    kills = 0
    async with scene.client(is_trusted=kind.is_trusted) as client:
        for number in range(1, MOST_SYNCS):
            # Steps that come at once share a commit, so an order may have one fewer by chance.
            for again in range(MOST_TRIES):
                names = scene.names(kind.names, is_trusted=kind.is_trusted)
                trace = tmp_path / f"{number}-{again}.trace"
                strace = killing(scene.broker, trace, "fdatasync", number)
                is_killed = await scene.survive(Survivor(client, *names), strace)
                assert scene.faults() == [], f"after the kill at fsync {number}"
                if is_killed:
                    break
            if not is_killed:
                break
            kills += 1
        else:
            pytest.fail(f"killed at each of {MOST_SYNCS} fsyncs")
    note("kills", kills)
    assert kills >= kind.fewest_kills


@pytest.mark.timeout(1800)  # with --every-crash some 200 kills, each with a start of the broker
@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "http-01"])
async def test_sigkill_in_the_middle_of_a_commit_undoes_it_alone(
    is_trusted: bool,
    acme_scene: Scene,
    tmp_path: Path,
    every_crash: bool,
    note: Callable[[str, object], None],
) -> None:
    """Killed while a transaction is being written, relaxed ones included: it never happened,
    and the order ends in one certificate all the same."""
    scene = acme_scene
    log = ("-P", f"{scene.broker.database}-wal")
    kills = 0
    async with scene.client(is_trusted=is_trusted) as client:
        for number in range(1, MOST_WRITES, 1 if every_crash else WRITE_STEP):
            names = scene.names(is_trusted=is_trusted)
            strace = killing(scene.broker, tmp_path / "trace", "pwrite64", number, *log)
            is_killed = await scene.survive(Survivor(client, *names), strace)
            assert scene.faults() == [], f"after the kill at write {number}"
            if not is_killed:
                break
            kills += 1
        else:
            pytest.fail(f"killed at each of {MOST_WRITES} writes")
    note("kills", kills)
    assert kills >= FEWEST_WRITE_KILLS
