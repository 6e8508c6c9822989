"""From "renewed" to "served": one real node, and two thousand simulated ones at once.

Times of the broker are those that it wrote down itself (`pushed_at` and the like); those of the
simulated agents are taken when a message arrives.  All processes share one machine, so its clocks
agree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.agents_channel import SIMULATORS, make_broker
from bench.figures import percentile
from bench.processes import usage_of
from bench.scenarios import Tell
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.operator import Operator
from tests.peers import authority, process
from tests.peers.nginx import Nginx
from tests.simulator.behaviour import Behaviour
from tests.simulator.fleet import Fleet, certificate

__all__ = ["Served", "Wave", "measure_one", "measure_wave"]

GROUP: Final = "all"

NODE: Final = "web.example.test"

RENEWALS: Final = 10
"""Renewals of one node that the median is taken from."""

ISSUE_SECONDS: Final = 900.0
"""By when all certificates are issued: an order takes about 30 ms of CPU."""

SERVE_SECONDS: Final = 300.0

_ENDED: Final = (
    "SELECT issued_at, pushed_at, ended_at FROM deliveries"
    " WHERE stage = 'seen' AND generation > ? ORDER BY pushed_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How long it took from one moment to another, over all nodes."""

    what: str
    nodes: int
    median_seconds: float
    p99_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """All nodes of a group pushed to at once, after their canary."""

    nodes: int
    """Without the canary."""
    seen_seconds: float
    """From the first push of the wave until the last agent had its certificate."""
    served_seconds: float
    """The same until the last agent saw it served."""
    kept_seconds: float
    """The same until the broker had kept the last receipt that says so."""
    broker_cpu_seconds: float
    simulator_cpu_seconds: float
    times: Sequence[Served]


def measure_one(home: Path, tell: Tell) -> list[Served]:
    """Renew the certificate of one nginx with a real agent again and again."""
    home.mkdir(parents=True, exist_ok=True)
    with TrustingPenstock(home / "broker") as broker:
        token = broker.mint([NODE])[NODE]
        pair = home / "pair"
        pair.mkdir()
        made = authority.make_server(authority.make_root("before"), [NODE])
        (pair / "fullchain.pem").write_bytes(made.certificate_pem)
        (pair / "privkey.pem").write_bytes(made.key_pem())
        with Nginx(home / "nginx", pair) as nginx:
            more = nginx.toml(NODE)
            wanted = Wanted(
                name="site", names=[NODE], directory=pair, expects=broker.ca_bundle, more=more
            )
            agent = NodeAgent(
                home / "agent",
                NODE,
                url=broker.agents_url,
                anchors=broker.ca_bundle,
                token=token,
                wanted=[wanted],
            )
            with agent:
                for number in range(1, RENEWALS + 2):
                    _wait_for(broker, 0, number)
                    if number <= RENEWALS:
                        _ask(broker, "renew", target=NODE)
        rows = broker.rows(_ENDED, 1)
    found = [
        _served("one node: issued until served by nginx", [(row[0], row[2]) for row in rows]),
        _served("one node: pushed until served by nginx", [(row[1], row[2]) for row in rows]),
    ]
    for one in found:
        tell(str(one))
    return found


def measure_wave(home: Path, number: int, tell: Tell) -> Wave:
    """Have certificates for so many nodes wait for their wave, and let all of it go at once.

    One more is the canary, which nobody waits for.
    """
    nodes = [f"n{index:05d}.example.test" for index in range(number + 1)]
    group = {"nodes": ["**"], "canaries": nodes[:1], "at_once": 100_000, "halt_after": 1000}
    broker = make_broker(home / "broker", agents={"groups": {GROUP: group}})
    with broker:
        fleet = Fleet(
            home / "fleet",
            port=broker.agents_port,
            anchors=broker.ca_bundle,
            processes=SIMULATORS,
            behaviour=Behaviour(reload_seconds=0.2),
        )
        tokens = broker.mint(nodes)
        with fleet:
            _ask(broker, "rollout_halt", group=GROUP)
            fleet.add(
                [
                    {"name": node, "token": tokens[node], "certificates": [certificate("s", node)]}
                    for node in nodes
                ]
            )
            fleet.enrol(at_once=4)
            fleet.connect(spread=number / 100)
            _wait_issued(broker, len(nodes))
            tell(f"{len(nodes)} certificates wait for their wave")
            fleet.times()
            before = (usage_of(broker.pid).cpu_seconds, fleet.cpu_seconds())
            _ask(broker, "rollout_resume", group=GROUP)
            _wait_for(broker, 0, len(nodes))
            after = (usage_of(broker.pid).cpu_seconds, fleet.cpu_seconds())
            wave = _wave(broker, fleet, (after[0] - before[0], after[1] - before[1]))
    tell(str(wave))
    return wave


def _wave(broker: TrustingPenstock, fleet: Fleet, spent: tuple[float, float]) -> Wave:
    rows = broker.rows(
        "SELECT d.delivery_id, d.issued_at, d.pushed_at, d.ended_at FROM deliveries d"
        " WHERE d.stage = 'seen' ORDER BY d.pushed_at"
    )
    (canary, *others) = rows
    if others[0][2] < canary[3]:
        raise process.PeerFailed("the wave began before its canary was seen")
    # The clock that deliveries are dated by, less the one that agents note by.
    apart = time.time() - time.monotonic()  # noqa: TID251  no broker runs here
    noted: dict[tuple[str, str], float] = {
        (subject, what): at + apart for _, subject, what, at in fleet.times() if subject
    }
    first = others[0][2] / 1e6
    arrived = [noted[row[0], "got certificate"] for row in others]
    served = [noted[row[0], "served"] for row in others]
    pushed = [row[2] / 1e6 for row in others]
    pairs = list(zip(pushed, arrived, served, others, strict=True))
    return Wave(
        nodes=len(others),
        seen_seconds=max(arrived) - first,
        served_seconds=max(served) - first,
        kept_seconds=max(row[3] for row in others) / 1e6 - first,
        broker_cpu_seconds=spent[0],
        simulator_cpu_seconds=spent[1],
        times=[
            _spread("pushed until the agent has it", [b - a for a, b, _, _ in pairs]),
            _spread("pushed until it is served", [c - a for a, _, c, _ in pairs]),
            _spread("pushed until the receipt is kept", [r[3] / 1e6 - a for a, _, _, r in pairs]),
            _spread("after the wave's first push, until it is served", [c - first for c in served]),
        ],
    )


def _served(what: str, pairs: Sequence[tuple[int, int]]) -> Served:
    return _spread(what, [(end - begin) / 1e6 for begin, end in pairs])


def _spread(what: str, seconds: Sequence[float]) -> Served:
    return Served(
        what=what,
        nodes=len(seconds),
        median_seconds=percentile(seconds, 0.5),
        p99_seconds=percentile(seconds, 0.99),
        longest_seconds=max(seconds),
    )


def _ask(broker: TrustingPenstock, command: str, **arguments: Any) -> Any:
    operator = Operator(broker.state / "operator.sock")
    return asyncio.run(operator.ask(command, reason="bench", **arguments))


def _wait_for(broker: TrustingPenstock, generation: int, number: int) -> None:
    def is_so() -> bool:
        time.sleep(0.2)
        return len(broker.rows(_ENDED, generation)) >= number

    process.wait_until(is_so, SERVE_SECONDS, f"{number} certificates are seen")


def _wait_issued(broker: TrustingPenstock, number: int) -> None:
    def is_so() -> bool:
        time.sleep(1)
        (found,) = broker.rows("SELECT count(*) FROM deliveries WHERE stage = 'issued'")[0]
        return bool(found >= number)

    process.wait_until(is_so, ISSUE_SECONDS, f"{number} certificates are issued")
