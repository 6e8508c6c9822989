"""Real agents before a real broker: how they are known, and what happens when they are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.operator import Operator
from tests.peers import process
from tests.peers.authority import real_now

pytestmark = pytest.mark.e2e

SECONDS = 120.0
"""Longest wait for what comes in a few, in seconds."""


class Host(NodeAgent):
    """An agent with one certificate for the name of its node."""

    def __init__(
        self, tmp: Path, node: str, broker: TrustingPenstock, *, method: str = "token", **more: Any
    ) -> None:
        tmp.mkdir()
        wanted = Wanted(name="own", names=[node], directory=tmp / "tls", expects=broker.ca_bundle)
        token = broker.mint([node])[node] if method == "token" else None
        super().__init__(
            tmp, node, url=broker.agents_url, anchors=broker.ca_bundle, token=token,
            wanted=[wanted], **more,
        )  # fmt: skip
        self._method = method

    def write(self) -> None:
        """Write agent.toml, with its way to enrol."""
        super().write()
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace('"token"', f'"{self._method}"'), "utf-8")

    def wait_for(self, metric: str) -> None:
        """Wait until its metrics tell so."""
        process.wait_until(lambda: metric in self.metrics(), SECONDS, metric)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the events of that name that it logged."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [one for one in map(json.loads, lines) if one["event"] == event]

    def chain(self) -> bytes:
        """Return what is in its place."""
        return (self.wanted[0].directory / "fullchain.pem").read_bytes()


def ask(broker: TrustingPenstock, command: str, **arguments: Any) -> Any:
    """Have an operator's command done."""
    return asyncio.run(Operator(broker.state / "operator.sock").ask(command, **arguments))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustingPenstock]:
    """A broker for all tests here that leave it as it is."""
    with TrustingPenstock(tmp_path_factory.mktemp("broker")) as made:
        yield made


READY = "penstock_agent_ready 1"
CONNECTED = "penstock_agent_connected 1"


def test_where_a_load_balancer_ends_tls_requests_are_signed(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """It enrols, listens and delivers without a client certificate."""
    with Host(tmp_path / "a", "signed.example.test", broker, authentication="signed") as host:
        host.wait_for(READY)
        process.wait_until(
            lambda: "outbox_messages 0" in host.metrics(), SECONDS, "all to be taken"
        )
        assert host.logged("messages could not be sent") == []


def test_a_person_lets_it_in(broker: TrustingPenstock, tmp_path: Path) -> None:
    """It waits and asks again by itself; who approves sees the fingerprint that it shows."""
    with Host(tmp_path / "a", "waiting.example.test", broker, method="approval") as host:
        process.wait_until(
            lambda: bool(host.logged("enrolment waits for approval")), SECONDS, "it to wait"
        )
        shown = host.logged("enrolment waits for approval")[0]["fingerprint"]
        (asked,) = [one for one in ask(broker, "node_requests") if one["node"] == host.node]
        assert asked["key"] == shown
        ask(broker, "node_approve", request_id=asked["request"])
        host.wait_for(READY)


def test_a_revoked_node_is_cut_off_and_serves_on(broker: TrustingPenstock, tmp_path: Path) -> None:
    """Its token is spent and its key is known: it does not come back, and breaks nothing."""
    with Host(tmp_path / "a", "revoked.example.test", broker) as host:
        host.wait_for(READY)
        before = host.chain()
        ask(broker, "node_revoke", node=host.node, reason="a test")
        host.wait_for("penstock_agent_connected 0")
        process.wait_until(
            lambda: bool(host.logged("the broker does not know this node")), SECONDS, "its refusal"
        )
        assert host.chain() == before
        assert READY in host.metrics()


def test_it_comes_back_after_its_identity_has_ended(tmp_path: Path) -> None:
    """By the key that it had, as the same node; what it served it serves."""
    agents = {"identity": {"return_within": "1h"}}
    home = tmp_path / "broker"
    home.mkdir()
    with TrustingPenstock(home, lifetime="4s", agents=agents) as broker:
        host = Host(tmp_path / "a", "away.example.test", broker)
        with host:
            host.wait_for(READY)
            before = host.chain()
        node = ask(broker, "node_show", node=host.node)["node_id"]
        identity = json.loads((host.state / "identity" / "identity.json").read_text())
        process.wait_until(
            lambda: real_now().timestamp() > identity["not_after"] + 1,
            SECONDS,
            "the identity to end",
        )
        with host:
            host.wait_for(CONNECTED)
            assert host.chain() == before
        assert ask(broker, "node_show", node=host.node)["node_id"] == node
        assert broker.events("node-returned")
