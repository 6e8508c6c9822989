"""A node that is drained: its agent stays connected and is left alone until the node is resumed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers import process
from tests.peers.authority import real_now

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for what takes a second or two, in seconds."""

PUT_OFF_SECONDS: Final = 300
"""What is looked at later than in so many seconds was put off: a node that is drained is looked at
again after ten minutes."""

NODE: Final = "web-01.nodes.example.test"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TrustingPenstock]:
    """A broker whose built-in CA certifies its nodes' names."""
    with TrustingPenstock(tmp_path / "broker") as made:
        yield made


def wanted(broker: TrustingPenstock, home: Path, name: str) -> Wanted:
    """Return a certificate that the node wants."""
    return Wanted(
        name=name,
        names=[f"{name}.example.test"],
        directory=home / "tls" / name,
        expects=broker.ca_bundle,
    )


@pytest.fixture
def agent(broker: TrustingPenstock, tmp_path: Path) -> Iterator[NodeAgent]:
    """An agent whose one certificate has been seen."""
    home = tmp_path / "agent"
    made = NodeAgent(
        home,
        NODE,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([NODE])[NODE],
        wanted=[wanted(broker, home, "www")],
        allowed=[home / "tls"],
    )
    with made:
        wait_for_stages(broker, ["seen"])
        yield made


def wait_for_stages(broker: TrustingPenstock, expected: list[str]) -> None:
    """Wait until all deliveries there are have come so far."""
    statement = "SELECT stage FROM deliveries ORDER BY begun_at"
    process.wait_until(
        lambda: [stage for (stage,) in broker.rows(statement)] == expected,
        PATIENCE_SECONDS,
        f"the deliveries are {expected}",
    )


def served(agent: NodeAgent) -> dict[str, x509.Certificate]:
    """Return the certificate in each place."""
    return {
        one.name: x509.load_pem_x509_certificates((one.directory / "fullchain.pem").read_bytes())[0]
        for one in agent.wanted
    }


def is_put_off(broker: TrustingPenstock, name: str) -> bool:
    """Say whether the broker has looked at a certificate and left it for later."""
    soon = (real_now().timestamp() + PUT_OFF_SECONDS) * 1_000_000
    rows = broker.rows("SELECT next_at FROM managed WHERE name = ?", name)
    return [at is not None and at > soon for (at,) in rows] == [True]


def test_a_drained_node_is_left_alone_until_it_is_resumed(
    broker: TrustingPenstock, agent: NodeAgent
) -> None:
    """A renewal by command is refused, what its agent begins to want waits; then both are done."""
    before = served(agent)
    assert broker.json("node", "drain", NODE, "--reason", "a test")["status"] == "drained"
    refused = broker.run("renew", NODE, "--json", status=1)
    (row,) = json.loads(refused.stdout)
    assert (row["stage"], row["delivery"]) == ("refused", None)
    assert row["note"] == f"node '{NODE}' is drained"
    assert "1 refused" in refused.stderr
    agent.wanted.append(wanted(broker, agent.directory, "shop"))
    agent.write()
    os.kill(agent.pid, signal.SIGHUP)
    process.wait_until(lambda: is_put_off(broker, "shop"), PATIENCE_SECONDS, "it is put off")
    shown = broker.json("node", "show", NODE)
    assert (shown["status"], shown["connected"]) == ("drained", True)
    assert [one["certificate"] for one in broker.events("delivery-begun")] == ["www"]
    assert broker.json("node", "resume", NODE, "--reason", "a test")["status"] == "active"
    rows = broker.json("renew", NODE)
    assert {row["certificate"]: row["stage"] for row in rows} == {"www": "seen", "shop": "seen"}
    after = served(agent)
    assert after["www"].serial_number != before["www"].serial_number
    assert len(broker.events("delivery-begun")) == 3
