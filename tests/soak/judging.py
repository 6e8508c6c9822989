"""The end of a soak: nothing wrong was served, every reload and certificate is explained.

It reads the broker's store, the servers' own logs, what the prober wrote, and Pebble's log, and
runs ``penstock cert trace`` for each certificate; what cannot be squared is a violation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.deployments.command_player import CommandPlayer
from tests.peers import process
from tests.soak.deliveries import ENDS, Delivery, read_deliveries
from tests.soak.hosts import Host
from tests.soak.reloads import square
from tests.soak.scene import Scene
from tests.soak.trails import faults_of_trail, lost_receipts

__all__ = ["Judged", "judge"]

_CERTIFICATES: Final = """
SELECT c.certificate_id, c.fingerprint, d.delivery_id FROM certificates c
LEFT JOIN deliveries d ON d.certificate_id = c.certificate_id WHERE c.upstream = ?
"""


@dataclass(slots=True)
class Judged:
    """What came out."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)
    unseen: list[Delivery] = field(default_factory=list)
    """Deliveries that did not end with a certificate that was seen served."""
    reloads: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By kind of server: told by its log, told by receipts, done again after a kill or put back."""


def judge(scene: Scene, least_renewals: int, until: float) -> Judged:
    """Look at everything that was written down.

    Each host has been renewed so often at least, and all that was begun before *until*, in seconds
    since 1970, has ended.
    """
    judged = Judged()
    deliveries = read_deliveries(scene.broker)
    judged.stages = Counter(one.stage for one in deliveries)
    judged.unseen = [one for one in deliveries if one.stage != "seen"]
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
    squared = square(host.node, host.reloads, deliveries, host.kills)
    judged.violations += squared.faults
    before = judged.reloads.get(host.kind, (0, 0, 0))
    judged.reloads[host.kind] = (
        before[0] + len(host.reloads),
        before[1] + squared.told,
        before[2] + squared.again,
    )


# ---------------------------------------------------------------------------------- certificates


def _judge_certificates(scene: Scene, deliveries: Sequence[Delivery], judged: Judged) -> None:
    rows = scene.broker.rows(_CERTIFICATES, "pebble")
    by_id = {one.delivery_id: one for one in deliveries}
    kills = {host.node: [*host.kills, *scene.broker_kills] for host in scene.hosts}
    traced: Counter[str] = Counter()
    with CommandPlayer(scene.broker.environment()) as player:
        scene.broker.player = player
        for certificate_id, fingerprint, delivery_id in rows:
            delivery = by_id.get(delivery_id)
            if delivery is None:
                judged.violations.append(f"certificate {certificate_id} came from no delivery")
                continue
            try:
                trace = scene.broker.json("cert", "trace", certificate_id)
            except process.PeerFailed as error:
                judged.violations.append(f"certificate {certificate_id} has no trail: {error}")
                continue
            faults = faults_of_trail(trace, delivery, fingerprint, kills[delivery.node])
            judged.violations += [f"trail of {certificate_id} {fault}" for fault in faults]
            traced["whole"] += not faults
            traced["receipt lost"] += bool(lost_receipts(trace))
    scene.broker.player = None
    judged.figures["certificates"] = len(rows)
    judged.figures["of them followed by `penstock cert trace` from order to their end"] = traced[
        "whole"
    ]
    judged.figures["of these with a receipt between that was lost with a kill"] = traced[
        "receipt lost"
    ]
    judged.figures["of them seen served by their agent"] = sum(
        1 for row in rows if row[2] in by_id and by_id[row[2]].stage == "seen"
    )
    made = len(scene.pebble.issued())
    judged.figures["certificates that Pebble made"] = made
    judged.figures["of them lost with a Pebble that was killed"] = made - len(rows)
