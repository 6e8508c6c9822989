"""One bucket, two processes over one database: no token is taken twice, and none is lost.

A broker works on a store alone today.  What it keeps about limits has to be right all the same
where two do, which is what stands between this store and one that several replicas share.
"""

import subprocess
import sys
from pathlib import Path

from broker.storage.sqlite import SqliteStore
from tests.fakes.fresh_store import open_fresh

REPOSITORY = Path(__file__).resolve().parents[3]
COUNT = 60
EACH = 50

TAKER = """
import asyncio, os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from broker.issuance.errors import OverLimit
from broker.issuance.quota_ports import BucketKind, Take, Taking
from broker.policy.units import Rate
from broker.storage.buckets import take
from broker.storage.database import Database
from broker.storage.lock import StoreLock

async def main(path: Path, name: str) -> None:
    lock = os.open(path.with_name(f"{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    database = Database(path, StoreLock(path, lock))
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rate = Rate(COUNT, timedelta(days=3650))
    one = Take(bucket="ca|x", kind=BucketKind.CA, rate=rate)
    done = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(EACH):
        taking = Taking(order_id=f"{name}{number}", at=at, takes=(one,))
        try:
            await database.write(lambda made, taking=taking: take(made, taking), durable=False)
            done += 1
        except OverLimit:
            pass
    print(done, flush=True)
    await database.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def begin(program: str, path: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that takes tokens once it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


async def test_two_processes_take_each_token_once(tmp_path: Path) -> None:
    """They begin together; together they get what there is."""
    path = tmp_path / "store.db"
    await (await open_fresh(path)).close()
    program = TAKER.replace("COUNT", str(COUNT)).replace("EACH", str(EACH))
    takers = [begin(program, path, name) for name in ("a", "b")]
    try:
        for taker in takers:
            assert taker.stdout is not None
            assert taker.stdout.readline() == "ready\n"
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        told = [taker.communicate(timeout=60)[0] for taker in takers]
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()
    assert [taker.returncode for taker in takers] == [0, 0]
    assert sum(int(text) for text in told) == COUNT
    store = await SqliteStore.open(path, exclusive=False)
    kept = await store.read_bucket("ca|x")
    await store.close()
    assert kept is not None
    assert round(kept.level, 6) == 0
