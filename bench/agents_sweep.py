"""What the sweep costs: few managed certificates and very many, of which the same number is due.

Rows are copies of one that a node really stated, put into the store past the broker; what is due is
begun by the broker as ever: a delivery, a job, an event and a message each.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.agents_channel import make_broker
from bench.processes import usage_of
from bench.scenarios import Tell
from tests.deployments.node_agents import TrustingPenstock
from tests.peers import process
from tests.simulator.fleet import Fleet, certificate

__all__ = ["Swept", "measure_sweeps"]

NODE: Final = "web.example.test"

BEGIN_SECONDS: Final = 60.0

WINDOW_SECONDS: Final = 20.0
"""How long processor time is counted for: four sweeps."""

FAR_SECONDS: Final = 30 * 86_400
"""When those are due that are not."""

_COLUMNS: Final = (
    "node_id, community, identifiers, profile, key_kind, is_wanted, generation, certificate_id,"
    " not_after, csr_der, attempts, created_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A store with so many managed certificates."""

    managed: int
    due: int
    idle_cpu_ms: float
    """Processor time of the broker in a window in which nothing is due, in milliseconds."""
    cpu_ms: float
    """The same with *due* of them due: the median of the rounds."""
    rounds: Sequence[float]
    window_seconds: float


def measure_sweeps(
    home: Path, sizes: Sequence[int], due: int, rounds: int, tell: Tell
) -> list[Swept]:
    """Measure each size with the same number due."""
    made = []
    for size in sizes:
        with make_broker(home / f"{size}") as broker:
            _fill(home / f"fleet-{size}", broker, size)
            time.sleep(WINDOW_SECONDS)
            idle = _window(broker)
            spent = [_round(broker, due) for _ in range(rounds)]
        made.append(
            Swept(
                managed=size,
                due=due,
                idle_cpu_ms=idle,
                cpu_ms=statistics.median(spent),
                rounds=spent,
                window_seconds=WINDOW_SECONDS,
            )
        )
        tell(str(made[-1]))
    return made


def _fill(home: Path, broker: TrustingPenstock, size: int) -> None:
    """Have one node state one certificate, and copy that until there are so many."""
    token = broker.mint([NODE])[NODE]
    with Fleet(home, port=broker.agents_port, anchors=broker.ca_bundle) as fleet:
        agent = {"name": NODE, "token": token, "certificates": [certificate("c", NODE)]}
        fleet.add([agent])
        fleet.enrol()
        fleet.connect()
        fleet.wait_for("told seen", 1, BEGIN_SECONDS)
    broker.stop()
    with contextlib.closing(sqlite3.connect(broker.database)) as db, db:
        db.execute(
            f"INSERT INTO managed (managed_id, name, next_at, {_COLUMNS})"
            " WITH RECURSIVE numbers (n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
            " SELECT lower(hex(randomblob(16))), 'copy-' || n, ?, node_id, community, identifiers,"
            " profile, key_kind, 1, 0, NULL, NULL, NULL, 0, created_at FROM managed, numbers",
            (size, _micro(FAR_SECONDS)),
        )
    broker.start()


def _round(broker: TrustingPenstock, due: int) -> float:
    """Make so many due, and return the processor time until well after they were begun."""
    with contextlib.closing(sqlite3.connect(broker.database, timeout=30)) as db, db:
        for table in ("node_messages", "deliveries"):
            db.execute(f"DELETE FROM {table}")
        db.execute("DELETE FROM jobs WHERE kind = 'deliver'")
        db.execute("UPDATE managed SET next_at = ?", (_micro(FAR_SECONDS),))
        db.execute(
            "UPDATE managed SET next_at = ?, generation = 0 WHERE managed_id IN"
            " (SELECT managed_id FROM managed WHERE name LIKE 'copy-%' ORDER BY name LIMIT ?)",
            (_micro(0), due),
        )
    spent = _window(broker)
    process.wait_until(lambda: _begun(broker) >= due, BEGIN_SECONDS, f"{due} deliveries are begun")
    return spent


def _begun(broker: TrustingPenstock) -> int:
    ((found,),) = broker.rows("SELECT count(*) FROM deliveries")
    return int(found)


def _window(broker: TrustingPenstock) -> float:
    before = usage_of(broker.pid).cpu_seconds
    time.sleep(WINDOW_SECONDS)
    return 1000 * (usage_of(broker.pid).cpu_seconds - before)


def _micro(seconds: float) -> int:
    return round((time.time() + seconds) * 1e6)  # noqa: TID251  no broker runs here
