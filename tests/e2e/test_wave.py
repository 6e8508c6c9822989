"""A wave over two hundred nodes whose reload fails, and the same wave once that is mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.node_agents import TrustingPenstock
from tests.simulator.behaviour import Behaviour
from tests.simulator.fleet import Fleet, certificate

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for two hundred orders and reloads; it takes a tenth of that on an idle machine."""

NODES: Final = [f"n{number:03}.wave.example.test" for number in range(200)]
CANARIES: Final = NODES[:2]
PAIR: Final = NODES[10:12]
GROUP: Final = {
    "wave": {
        "nodes": ["*.wave.example.test"],
        "canaries": CANARIES,
        "at_once": 40,
        "apart": [PAIR],
        "halt_after": 5,
    }
}


def wait_for(has_come: Callable[[], Any]) -> None:
    """Wait until another process has come that far."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not has_come():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.2)


def count(broker: TrustingPenstock, stage: str) -> int:
    """Return how many deliveries of the incident are in a stage."""
    rows = broker.rows(
        "SELECT count(*) FROM deliveries WHERE incident_id IS NOT NULL AND stage = ?", stage
    )
    return int(rows[0][0])


def touched(broker: TrustingPenstock) -> set[str]:
    """Return the nodes that were pushed to by the incident."""
    rows = broker.rows(
        "SELECT DISTINCT n.name FROM deliveries d JOIN nodes n USING (node_id)"
        " WHERE d.incident_id IS NOT NULL AND d.pushed_at IS NOT NULL"
    )
    return {name for (name,) in rows}


def most_at_once(broker: TrustingPenstock) -> int:
    """Return how many were under way at the same time, by what was written down."""
    rows = broker.rows(
        "SELECT max((SELECT count(*) FROM deliveries o WHERE o.pushed_at <= d.pushed_at"
        " AND o.ended_at > d.pushed_at)) FROM deliveries d WHERE d.pushed_at IS NOT NULL"
    )
    return int(rows[0][0])


def pair_at_work(broker: TrustingPenstock) -> list[list[tuple[int, int]]]:
    """Return, for each of the two that are never to be away together, when it was pushed to and
    until when it was waited for, as it was written down."""
    statement = (
        "SELECT pushed_at, ended_at FROM deliveries JOIN nodes n USING (node_id)"
        " WHERE n.name = ? AND stage = 'seen' ORDER BY pushed_at"
    )
    return [broker.rows(statement, node) for node in PAIR]


def overlaps(pair: list[list[tuple[int, int]]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the times at which both were at work."""
    ones, others = pair
    return [
        (one, other) for one in ones for other in others if one[0] < other[1] and other[0] < one[1]
    ]


def test_reload_that_fails_on_200_nodes_touches_no_more_than_the_canaries(tmp_path: Path) -> None:
    """Certificates are ordered for all of them; once mended and resumed, all are reloaded.

    Forty go at once, and never both of a pair, at the first wave and at the second.
    """
    (tmp_path / "broker").mkdir()
    with TrustingPenstock(tmp_path / "broker", agents={"groups": GROUP}) as broker:
        tokens = broker.mint(NODES)
        agents = [
            {"name": node, "token": tokens[node], "certificates": [certificate("www", node)]}
            for node in NODES
        ]
        with Fleet(
            tmp_path / "fleet",
            port=broker.agents_port,
            anchors=broker.ca_bundle,
            behaviour=Behaviour(reload_seconds=0.01),
        ) as fleet:
            fleet.add(agents)
            assert fleet.enrol() == len(NODES)
            fleet.connect()
            seen = "SELECT count(*) FROM deliveries WHERE stage = 'seen'"
            wait_for(lambda: broker.rows(seen) == [(len(NODES),)])
            assert most_at_once(broker) <= GROUP["wave"]["at_once"]  # type: ignore[operator]
            fleet.behave({"reload_fails": True})
            broker.json("incident", "start", "--community", "default", "--at-once", "200")
            wait_for(lambda: broker.events("rollout-halted"))
            wait_for(lambda: count(broker, "issued") >= len(NODES) - len(CANARIES))
            assert touched(broker)
            assert touched(broker) <= set(CANARIES)
            fleet.behave({"reload_fails": False})
            broker.run("rollout", "resume", "wave", "--reason", "mended")
            wait_for(lambda: count(broker, "seen") >= len(NODES) - len(CANARIES))
            wait_for(lambda: [len(times) for times in pair_at_work(broker)] == [2, 2])
            assert overlaps(pair_at_work(broker)) == []
            assert most_at_once(broker) <= GROUP["wave"]["at_once"]  # type: ignore[operator]
            assert len(broker.events("rollout-halted")) == 1
