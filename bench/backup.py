"""Backup and restore measured: time, size, what writers notice, what is lost.

``python -m bench.backup 10000 100000`` fills a store of a broker that is its own CA, backs it up
while one client orders without pause, kills the broker, deletes its state, restores and counts.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.filling import fill
from tests.deployments.requester import Requester
from tests.deployments.restoring import ZONE, Restoring

__all__ = ["main", "measure"]

UNLIMITED = dict.fromkeys(("address", "account", "new_orders", "new_accounts"), "off")
"""The writer is no client that has to be held back."""

QUIET_SECONDS = 10.0
"""How long orders are timed without a backup, to compare with."""


class Writer:
    """One client that orders without pause, and what each newOrder took."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self.taken: list[tuple[float, float, str]] = []
        """When it was acknowledged, how long it took in seconds, and the order's URL."""

    async def run(self) -> None:
        """Order until cancelled."""
        number = 0
        while True:
            number += 1
            started = time.monotonic()
            answer = await self._requester.order(f"w{number}.{ZONE}")
            assert answer.status == 201, answer.body
            ended = time.monotonic()
            self.taken.append((ended, ended - started, answer.headers["Location"]))

    def between(self, start: float, end: float) -> list[float]:
        """Return the times of orders acknowledged then, in milliseconds."""
        return [taken * 1000 for at, taken, _ in self.taken if start <= at < end]


async def measure(tmp: Path, orders: int) -> dict[str, Any]:
    """Return the figures of one size of store."""
    with ExitStack() as stack:
        place = Restoring(tmp, stack, is_built_in=True, limits={"rates": UNLIMITED})
        async with place.requester() as requester:
            assert await (await requester.request(f"first.{ZONE}")).settled() == "valid"
            await asyncio.to_thread(place.penstock.stop)
            await asyncio.to_thread(fill, place.penstock.database, orders)
            await asyncio.to_thread(place.penstock.start)
            requester.nonce = None
            writer = Writer(requester)
            work = asyncio.create_task(writer.run())
            quiet_since = time.monotonic()
            await asyncio.sleep(QUIET_SECONDS)
            begun = time.monotonic()
            backup = await place.back_up()
            ended = time.monotonic()
            await asyncio.sleep(1)
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await place.lose_machine()
            restoring = time.monotonic()
            await asyncio.to_thread(place.penstock.run, "restore", str(backup))
            restored = time.monotonic()
            await asyncio.to_thread(place.penstock.start)
            ready = time.monotonic()
            requester.nonce = None
            lost = [at for at, _, url in writer.taken if (await requester.post(url)).status == 404]
    quiet, busy = writer.between(quiet_since, begun), writer.between(begun, ended)
    return {
        "orders": orders,
        "backup_mib": round(backup.stat().st_size / 2**20, 1),
        "backup_s": round(ended - begun, 2),
        "restore_s": round(restored - restoring, 2),
        "start_to_ready_s": round(ready - restored, 2),
        "new_order_ms_before": [round(statistics.median(quiet), 1), round(max(quiet), 1)],
        "new_order_ms_during": [round(statistics.median(busy), 1), round(max(busy), 1)],
        "acknowledged_during": len(busy),
        "lost": len(lost),
        "lost_acknowledged_from_s": round(min(lost) - begun, 2) if lost else None,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure each size that is asked for, and print a line of JSON for it."""
    for size in arguments or ("10000", "100000"):
        with tempfile.TemporaryDirectory(prefix="penstock-backup-") as folder:
            print(json.dumps(asyncio.run(measure(Path(folder), int(size)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
