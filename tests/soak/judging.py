"""The end of a soak: nothing wrong was served, every reload and certificate is explained.

It reads the broker's store and its command ``cert trace``, the servers' own logs, what the prober
wrote, and Pebble's log; what cannot be squared is a violation.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.deployments.operator import Operator
from tests.peers import process
from tests.soak.hosts import Host
from tests.soak.scene import Scene

__all__ = ["Delivery", "Judged", "judge", "read_deliveries"]

CLOCK_SECONDS: Final = 2.0
"""How far a line in a log and a receipt of the same reload may be told apart: receipts have whole
seconds."""

ENDS: Final = ("seen", "refused", "failed", "restored", "withdrawn", "superseded")

_MICRO: Final = 1_000_000

_DELIVERIES: Final = """
SELECT d.delivery_id, n.name, d.generation, d.stage, d.reason, d.note, d.certificate_id, d.order_id,
       d.begun_at, d.issued_at, d.pushed_at, d.checked_at, d.installed_at, d.reloaded_at, d.ended_at
FROM deliveries d JOIN nodes n ON n.node_id = d.node_id ORDER BY d.begun_at
"""

_CERTIFICATES: Final = """
SELECT c.certificate_id, c.fingerprint, d.delivery_id FROM certificates c
LEFT JOIN deliveries d ON d.certificate_id = c.certificate_id WHERE c.upstream = ?
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery; times in seconds since 1970."""

    delivery_id: str
    node: str
    generation: int
    stage: str
    reason: str
    note: str | None
    certificate_id: str | None
    order_id: str | None
    begun_at: float
    issued_at: float | None
    pushed_at: float | None
    checked_at: float | None
    installed_at: float | None
    reloaded_at: float | None
    ended_at: float | None

    @property
    def steps(self) -> dict[str, float]:
        """Return how long each step took that was taken, in seconds."""
        times = [
            ("issued", self.begun_at, self.issued_at),
            ("pushed", self.issued_at, self.pushed_at),
            ("installed", self.pushed_at, self.installed_at),
            ("served", self.pushed_at, self.ended_at if self.stage == "seen" else None),
        ]
        return {
            name: end - begin for name, begin, end in times if begin is not None and end is not None
        }


@dataclass(slots=True)
class Judged:
    """What came out."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)
    reloads: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By kind of server: told by its log, told by receipts, done again after a kill or put back."""


def read_deliveries(scene: Scene) -> list[Delivery]:
    """Return every delivery, oldest first."""
    found = []
    for row in scene.broker.rows(_DELIVERIES):
        times = [None if at is None else at / _MICRO for at in row[8:]]
        found.append(Delivery(*row[:8], *times))
    return found


def judge(scene: Scene, least_renewals: int, until: float) -> Judged:
    """Look at everything that was written down.

    Each host has been renewed so often at least, and all that was begun before *until*, in seconds
    since 1970, has ended.
    """
    judged = Judged()
    deliveries = read_deliveries(scene)
    judged.stages = Counter(one.stage for one in deliveries)
    _judge_probes(scene, judged)
    _judge_deliveries(deliveries, until, judged)
    for host in scene.hosts:
        mine = [one for one in deliveries if one.node == host.node]
        seen = sum(1 for one in mine if one.stage == "seen")
        if seen <= least_renewals:
            judged.violations.append(f"{host.node} was renewed {seen - 1} times")
        _judge_reloads(host, mine, judged)
    _judge_certificates(scene, deliveries, judged)
    return judged


# ------------------------------------------------------------------------------------ the prober


def _judge_probes(scene: Scene, judged: Judged) -> None:
    probes = scene.probes()
    for one in probes:
        if one["what"] in ("wrong", "silent"):
            judged.violations.append(f"{one['node']} {one['what']}: {one['fault']} at {one['at']}")
    summaries = [one for one in probes if one["what"] == "summary"]
    if len(summaries) != len(scene.hosts):
        judged.violations.append("the prober has not looked to the end")
    judged.figures["looks"] = sum(one["looks"] for one in summaries)
    judged.figures["looks that met nobody"] = sum(one["misses"] for one in summaries)
    for one in summaries:
        if not one["is_taken_over"]:
            judged.violations.append(f"{one['node']} never served a certificate of ours")
    known = {row[1]: row[0] for row in scene.broker.rows(_CERTIFICATES, "pebble")}
    served = [one for one in probes if one["what"] == "served"]
    judged.figures["certificates seen by the prober"] = len({one["fingerprint"] for one in served})
    for one in served:
        if one["fingerprint"] not in known:
            judged.violations.append(
                f"{one['node']} served {one['fingerprint']}, which the broker does not know"
            )


# ------------------------------------------------------------------------------------ deliveries


def _judge_deliveries(deliveries: Sequence[Delivery], until: float, judged: Judged) -> None:
    for one in deliveries:
        if one.stage not in ENDS and one.begun_at <= until:
            judged.violations.append(
                f"delivery {one.delivery_id} of {one.node} has not ended: {one.stage} ({one.note})"
            )
    judged.figures["deliveries"] = len(deliveries)
    for name in ("issued", "pushed", "installed", "served"):
        taken = sorted(one.steps[name] for one in deliveries if name in one.steps)
        if taken:
            judged.figures[f"seconds until {name}, median"] = round(taken[len(taken) // 2], 2)
            judged.figures[f"seconds until {name}, longest"] = round(taken[-1], 2)


# --------------------------------------------------------------------------------------- reloads


def _judge_reloads(host: Host, deliveries: Sequence[Delivery], judged: Judged) -> None:
    """Square the server's log with the receipts.

    A delivery that was reloaded has its line in the log.  Every line falls into the time of a
    delivery that had come that far; more than one only where the agent was killed meanwhile and
    did it again, or put the old certificate back.
    """
    left = sorted(host.reloads)
    told = again = 0
    for one in deliveries:
        if one.pushed_at is None:
            continue
        ended = one.ended_at or float("inf")
        lines = [at for at in left if one.pushed_at - CLOCK_SECONDS <= at <= ended + CLOCK_SECONDS]
        is_reloaded = one.reloaded_at is not None or one.stage == "seen"
        if is_reloaded and not lines:
            judged.violations.append(
                f"delivery {one.delivery_id} says that {host.node} was reloaded, its log does not"
            )
        is_excused = one.stage in ("restored", "failed") or any(
            one.pushed_at - CLOCK_SECONDS <= at <= ended for at in host.kills
        )
        most = len(lines) if is_excused else 1
        for at in lines[:most]:
            left.remove(at)
        told += bool(is_reloaded and lines)
        again += max(0, len(lines[:most]) - 1)
    for at in left:
        judged.violations.append(f"{host.node} was reloaded at {at:.1f} and nobody says why")
    before = judged.reloads.get(host.kind, (0, 0, 0))
    judged.reloads[host.kind] = (
        before[0] + len(host.reloads),
        before[1] + told,
        before[2] + again,
    )


# ---------------------------------------------------------------------------------- certificates


def _judge_certificates(scene: Scene, deliveries: Sequence[Delivery], judged: Judged) -> None:
    rows = scene.broker.rows(_CERTIFICATES, "pebble")
    by_id = {one.delivery_id: one for one in deliveries}
    traced = 0
    for certificate_id, fingerprint, delivery_id in rows:
        delivery = by_id.get(delivery_id)
        if delivery is None:
            judged.violations.append(f"certificate {certificate_id} came from no delivery")
            continue
        fault = _untraceable(scene, certificate_id, fingerprint, delivery)
        if fault is not None:
            judged.violations.append(fault)
        else:
            traced += 1
    judged.figures["certificates"] = len(rows)
    judged.figures["of them traced from order to their end"] = traced
    judged.figures["of them seen served by their agent"] = sum(
        1 for row in rows if row[2] in by_id and by_id[row[2]].stage == "seen"
    )
    made = len(scene.pebble.issued())
    judged.figures["certificates that Pebble made"] = made
    judged.figures["of them lost with a Pebble that was killed"] = made - len(rows)


def _untraceable(
    scene: Scene, certificate_id: str, fingerprint: str, delivery: Delivery
) -> str | None:
    """Return why a certificate cannot be followed by the operator's command, None if it can."""
    try:
        operator = Operator(scene.broker.state / "operator.sock")
        trace = asyncio.run(operator.ask("cert_trace", reference=certificate_id))
    except process.PeerFailed as error:
        return f"certificate {certificate_id} cannot be traced: {error}"
    text = str(trace)
    wanted = [delivery.delivery_id, delivery.stage]
    wanted += [delivery.order_id] if delivery.order_id else []
    missing = [one for one in wanted if one not in text]
    if missing:
        return f"trace of {certificate_id} ({fingerprint[:16]}) lacks {', '.join(missing)}"
    return None
