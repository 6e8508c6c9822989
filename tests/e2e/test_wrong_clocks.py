"""A real node whose clock is wrong by days: what it serves goes on, everybody is told, it mends.

A real broker, a real agent and nginx; only the agent, with the children that judge certificates for
it, goes by the clock that is moved.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from agents.look import NotSeen, look
from tests.contract.agents.pairs import make_pair, put
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers.nginx import Nginx
from tests.peers.wall_clock import WallClock

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

NODE: Final = "web-01.nodes.example.test"
NAME: Final = "www.example.test"

OFF: Final = datetime.timedelta(days=12)
"""How wrong the clock is: past the end of what is issued, and within that of the broker's own
certificate."""

LIFE: Final = "2d"
"""How long a certificate of the node lives; its identity lives for seven days."""

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for anything; the broker tries a renewal again that was refused after a minute and a
quarter, and an agent that has met refusals several times waits for half a minute."""

HINT: Final = "the clock of this node says"


def wait_for(has_come: Callable[[], Any], what: str) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, f"it has not come: {what}"
        time.sleep(0.1)
    return found


@dataclass
class Scene:
    """A broker, a node with nginx, and the node's clock."""

    broker: TrustingPenstock
    agent: NodeAgent
    nginx: Nginx
    clock: WallClock

    def deliveries(self) -> list[tuple[str, str]]:
        """Return stage and certificate of each delivery, oldest first."""
        rows = self.broker.rows(
            "SELECT d.stage, coalesce(c.fingerprint, '') FROM deliveries d"
            " LEFT JOIN certificates c USING (certificate_id) ORDER BY d.generation"
        )
        return [(stage, fingerprint) for stage, fingerprint in rows]

    def serves(self, fingerprint: str) -> bool:
        """Return whether nginx is seen to serve that certificate.

        For a moment after a reload its former workers may still answer.
        """
        patience = datetime.timedelta(seconds=20)
        try:
            look(self.nginx.look_section(NAME, attempts=1, timeout=patience), fingerprint)
        except NotSeen:
            return False
        return True

    def begin_renewal(self) -> None:
        """Have a renewal begun, whether the node can answer or not."""
        self.broker.run("renew", NODE, "--wait", "0", "--reason", "a test")

    def status(self) -> str:
        """Return what the agent's own status says."""
        done = subprocess.run(
            [*self.agent.program(), "status", "--json", "--config", str(self.agent.config)],
            capture_output=True,
            text=True,
            env=self.agent.environment(),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return done.stdout

    def said(self, words: str) -> list[dict[str, Any]]:
        """Return the lines of the agent's log that have *words*."""
        lines = self.agent.log_text().splitlines()
        return [json.loads(line) for line in lines if words in line]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Have nginx serve a certificate of two days, with every clock right."""
    profile = {
        "description": "TLS servers of the tests",
        "cap": LIFE,
        "usages": ["server-auth"],
        "upstreams": [{"upstream": "local"}],
    }
    with ExitStack() as stack:
        broker = stack.enter_context(
            TrustingPenstock(tmp_path / "broker", profiles={"server": profile})
        )
        tls = tmp_path / "tls"
        put(make_pair(NAME), tls)
        nginx = stack.enter_context(Nginx(tmp_path / "nginx", tls))
        clock = WallClock(tmp_path)
        agent = NodeAgent(
            tmp_path / "agent",
            NODE,
            url=broker.agents_url,
            anchors=broker.ca_bundle,
            token=broker.mint([NODE])[NODE],
            wanted=[
                Wanted(
                    name="www",
                    names=[NAME],
                    directory=tls,
                    expects=broker.ca_bundle,
                    more=nginx.toml(NAME),
                )
            ],
            environment=clock.environment(),
        )
        stack.enter_context(agent)
        made = Scene(broker, agent, nginx, clock)
        wait_for(lambda: [stage for stage, _ in made.deliveries()] == ["seen"], "the first")
        wait_for(lambda: made.serves(made.deliveries()[0][1]), "the first to be served")
        yield made


def test_clock_that_is_days_ahead(scene: Scene) -> None:
    """What is issued now is over to the node: refused, told with the hint, and kept on record; the
    identity seems to have ended, and nobody enrols anew for that; the next renewal passes, as the
    node knows itself again as soon as the clock is right."""
    first = scene.deliveries()[0][1]
    scene.clock.move(OFF)
    scene.begin_renewal()
    wait_for(lambda: scene.deliveries()[1:] and scene.deliveries()[1][0] == "refused", "a refusal")
    assert scene.serves(first)
    (event,) = [one for one in scene.broker.events("delivery-failed") if one["stage"] == "refused"]
    assert "this host's clock is wrong by about 10 d" in json.dumps(event)
    assert scene.said("this host's clock is wrong by about 10 d")
    assert "this host's clock is wrong by about 10 d" in scene.status()
    # The broker comes back, and the agent has to show who it is with that clock.
    scene.broker.kill()
    scene.broker.start()
    (tried, *_) = wait_for(lambda: scene.said("still tried"), "the fault of the clock")
    assert HINT in tried["reason"]
    assert scene.serves(first)
    enrolled = scene.broker.rows("SELECT count(*) FROM nodes")
    assert enrolled == [(1,)]
    assert scene.broker.events("enrolment-refused") == []
    scene.clock.move(datetime.timedelta())
    # What is served is good for two days, so the broker would not come again by itself today.
    scene.begin_renewal()
    mended = wait_for(
        lambda: [one for stage, one in scene.deliveries()[2:] if stage == "seen"], "the next one"
    )
    wait_for(lambda: scene.serves(mended[-1]), "the next one to be served")
    assert scene.broker.rows("SELECT count(*) FROM nodes") == [(1,)]


def test_clock_that_is_days_behind(scene: Scene) -> None:
    """The broker's own certificate is not good yet to the node, so nothing is told to who answers
    there; both logs say why, and what waited goes on when the clock is right."""
    first = scene.deliveries()[0][1]
    scene.clock.move(-OFF)
    # Every connection is a new one from here on: the one that is kept would still be good.
    scene.broker.kill()
    scene.broker.start()
    (complaint, *_) = wait_for(lambda: scene.said("not the broker"), "the node's complaint")
    assert HINT in complaint["reason"]
    wait_for(lambda: "own certificate not believed" in scene.broker.log_text(), "the broker's line")
    scene.begin_renewal()
    assert [stage for stage, _ in scene.deliveries()] == ["seen", "asked"]
    assert scene.serves(first)
    scene.clock.move(datetime.timedelta())
    wait_for(lambda: scene.deliveries()[-1][0] == "seen", "the renewal")
    second = scene.deliveries()[-1][1]
    assert second != first
    wait_for(lambda: scene.serves(second), "the renewed one to be served")
    assert scene.broker.rows("SELECT count(*) FROM nodes") == [(1,)]
