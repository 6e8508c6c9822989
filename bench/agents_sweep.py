"""What the sweep costs: few managed certificates and very many, of which the same number is due.

Rows are copies of one that a node really stated and got, put into the store past the broker, each
with its order, its certificate, what its CA said about it and a look of the watch over clients.  Of
all of these the same number is due: deliveries are begun as ever (a delivery, a job, an event and a
message each), the CA is asked, the watch looks.  A broker with few and one with very many stand
side by side and are counted in the same minutes, so whatever the machine does is done to both.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Mapping, Sequence
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

WINDOW_SECONDS: Final = 60.0
"""How long processor time is counted for: twelve sweeps over nodes' certificates, two over what CAs
are to be asked about, one over clients' certificates."""

LOOK_SECONDS: Final = 90.0
"""By when each of these has run after the window, on a machine that is busy with others."""

FAR_SECONDS: Final = 30 * 86_400
"""When those are due that are not."""

_HOUR: Final = 3_600_000_000
"""In microseconds."""

_COPIES: Final[Mapping[str, Mapping[str, str]]] = {
    "orders": {
        "order_id": "'order-' || n",
        "certificate_id": "'cert-' || n",
        "identifiers": f"replace(identifiers, '{NODE}', 'n' || n || '.example.test')",
    },
    "certificates": {
        "certificate_id": "'cert-' || n",
        "order_id": "'order-' || n",
        "identifiers": f"replace(identifiers, '{NODE}', 'n' || n || '.example.test')",
        "fingerprint": "lower(hex(randomblob(32)))",
        "serial": "lower(hex(randomblob(16)))",
        "spki_sha256": "lower(hex(randomblob(32)))",
        "cert_id": "cert_id || n",
    },
    "renewals": {
        "certificate_id": "'cert-' || n", "cert_id": "cert_id || n", "due_at": ":far",
    },
    "renewal_looks": {"certificate_id": "'cert-' || n", "look_at": ":far"},
    "managed": {
        "managed_id": "lower(hex(randomblob(16)))",
        "name": "'copy-' || n",
        "certificate_id": "'cert-' || n",
        "identifiers": f"replace(identifiers, '{NODE}', 'n' || n || '.example.test')",
        "next_at": ":far",
    },
}  # fmt: skip
"""What makes a copy of a row another one: each certificate has its order, what its CA said about
its renewal, and a look of the watch over clients."""

_ASKED_ABOUT: Final = (
    "INSERT INTO renewals (certificate_id, cert_id, upstream, community, not_after, due_at,"
    " failures) SELECT certificate_id, cert_id, upstream, community, not_after, ?, 0"
    " FROM certificates"
)
"""Nobody asks the built-in CA, which issued it, when to renew; here it is as if another had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A store with so many managed certificates."""

    managed: int
    due: int
    idle_cpu_ms: float
    """Processor time of the broker in a window in which nothing is due, in milliseconds."""
    cpu_ms: float
    """The same with *due* of them due: the mean of the rounds.  What a broker does once a minute or
    once in five falls into some windows and not into others, and into as many of each size."""
    rounds: Sequence[float]
    window_seconds: float


def measure_sweeps(
    home: Path, sizes: Sequence[int], due: int, rounds: int, tell: Tell
) -> list[Swept]:
    """Measure each size with the same number due, all in the same minutes."""
    with contextlib.ExitStack() as stack:
        brokers = [stack.enter_context(make_broker(home / f"{size}")) for size in sizes]
        for size, broker in zip(sizes, brokers, strict=True):
            _fill(home / f"fleet-{size}", broker, size)
        time.sleep(WINDOW_SECONDS)
        idle = _window(brokers)
        spent = [_round(brokers, due) for _ in range(rounds)]
    made = [
        Swept(
            managed=size,
            due=due,
            idle_cpu_ms=idle[place],
            cpu_ms=statistics.mean(one[place] for one in spent),
            rounds=[one[place] for one in spent],
            window_seconds=WINDOW_SECONDS,
        )
        for place, size in enumerate(sizes)
    ]
    for one in made:
        tell(str(one))
    return made


def _fill(home: Path, broker: TrustingPenstock, size: int) -> None:
    """Have one node state one certificate and get it, and copy that until there are so many."""
    token = broker.mint([NODE])[NODE]
    with Fleet(home, port=broker.agents_port, anchors=broker.ca_bundle) as fleet:
        agent = {"name": NODE, "token": token, "certificates": [certificate("c", NODE)]}
        fleet.add([agent])
        fleet.enrol()
        fleet.connect()
        fleet.wait_for("told seen", 1, BEGIN_SECONDS)
        process.wait_until(lambda: _ended(broker), BEGIN_SECONDS, "its receipt is kept")
    broker.stop()
    with contextlib.closing(sqlite3.connect(broker.database)) as db, db:
        db.execute(_ASKED_ABOUT, (_micro(FAR_SECONDS),))
        for table, changed in _COPIES.items():
            _copy(db, table, changed, size)
    with contextlib.closing(sqlite3.connect(broker.database)) as db:
        # What was copied is not to be read from a journal of hundreds of MiB.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    broker.start()


def _copy(db: sqlite3.Connection, table: str, changed: Mapping[str, str], size: int) -> None:
    """Copy the one row of *table* so often, with some columns of each copy *changed*."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    if (found := db.execute(f"SELECT count(*) FROM {table}").fetchone()) != (1,):
        raise process.PeerFailed(f"{table} has {found[0]} rows where one was to be copied")
    chosen = ", ".join(changed.get(name, name) for name in columns)
    db.execute(
        f"INSERT INTO {table} ({', '.join(columns)})"
        " WITH RECURSIVE numbers (n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :size)"
        f" SELECT {chosen} FROM {table}, numbers",
        {"size": size, "far": _micro(FAR_SECONDS)},
    )


def _round(brokers: Sequence[TrustingPenstock], due: int) -> list[float]:
    """Make so many due at each, and return the processor time until well after they were begun."""
    for broker in brokers:
        _make_due(broker, due)
    spent = _window(brokers)
    process.wait_until(
        lambda: all(_begun(broker) >= due for broker in brokers), BEGIN_SECONDS, f"{due} are begun"
    )
    process.wait_until(
        lambda: not any(_left(broker) for broker in brokers), LOOK_SECONDS, "all due were looked at"
    )
    return spent


def _make_due(broker: TrustingPenstock, due: int) -> None:
    """Make so many due, and nothing else."""
    chosen = f"IN (SELECT certificate_id FROM managed WHERE name LIKE 'copy-%' LIMIT {due:d})"
    now, far = _micro(0), _micro(FAR_SECONDS)
    with contextlib.closing(sqlite3.connect(broker.database, timeout=30)) as db:
        with db:
            for table in ("node_messages", "deliveries"):
                db.execute(f"DELETE FROM {table}")
            db.execute("DELETE FROM jobs WHERE kind = 'deliver'")
            # Only what the round before had due: the broker would have to read again, and to move
            # from the journal, all that is written here.
            db.execute("UPDATE managed SET next_at = ? WHERE next_at < ?", (far, (now + far) // 2))
            db.execute(
                f"UPDATE managed SET next_at = ?, generation = 1 WHERE certificate_id {chosen}",
                (now,),
            )
            # Their CA said that it is time, and is to be asked again.
            db.execute(
                "UPDATE renewals SET window_start = ?, window_end = ?, due_at = ?"
                f" WHERE certificate_id {chosen}",
                (now - _HOUR, now - _HOUR // 2, now),
            )
            # One that belongs to a node is looked at once by the watch over clients, and no more.
            db.execute(
                "INSERT OR REPLACE INTO renewal_looks (certificate_id, look_at)"
                f" SELECT certificate_id, ? FROM managed WHERE certificate_id {chosen}",
                (now,),
            )
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _left(broker: TrustingPenstock) -> int:
    """Return how many looks are due that nobody has taken."""
    ((asked, watched),) = broker.rows(
        "SELECT (SELECT count(*) FROM renewals WHERE due_at <= ?),"
        " (SELECT count(*) FROM renewal_looks WHERE look_at <= ?)",
        *[_micro(0)] * 2,
    )
    return int(asked) + int(watched)


def _ended(broker: TrustingPenstock) -> bool:
    return bool(broker.rows("SELECT 1 FROM deliveries WHERE stage = 'seen'"))


def _begun(broker: TrustingPenstock) -> int:
    ((found,),) = broker.rows("SELECT count(*) FROM deliveries")
    return int(found)


def _window(brokers: Sequence[TrustingPenstock]) -> list[float]:
    before = [usage_of(broker.pid).cpu_seconds for broker in brokers]
    time.sleep(WINDOW_SECONDS)
    after = [usage_of(broker.pid).cpu_seconds for broker in brokers]
    return [1000 * (late - early) for early, late in zip(before, after, strict=True)]


def _micro(seconds: float) -> int:
    return round((time.time() + seconds) * 1e6)  # noqa: TID251  no broker runs here
