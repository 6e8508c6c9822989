"""Agents two minor versions before and after a broker, at whole brokers and over real sockets."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from agents import wire
from tests.deployments.minors import AgentOfMinor, BrokerOfMinor
from tests.deployments.node_agents import TrustingPenstock, Wanted
from tests.deployments.nodes import PlainAgent
from tests.peers import process

pytestmark = pytest.mark.e2e

SECONDS: Final = 60.0
"""Longest wait for a certificate, which takes two."""

PAIRS: Final = (("1.2", "1.0"), ("1.0", "1.2"))
"""Broker and agent: what one of them has more is made up, since nothing is later than 1.0 yet."""

LATER: Final = {"since_1_2": {"nested": [1, "two", None]}, "hint": "unheard of"}
"""Members that 1.0 does not know."""


@pytest.fixture(scope="module", params=PAIRS, ids=["older-agent", "newer-agent"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BrokerOfMinor, str]]:
    """A broker of one version, and the version of its agents."""
    said, heard = request.param
    made = BrokerOfMinor(tmp_path_factory.mktemp("broker"))
    made.version = said
    with made:
        yield made, heard


def told(broker: TrustingPenstock, node: str) -> str | None:
    """Return which version the broker has heard of a node."""
    said: str | None = broker.json("node", "show", node)["wire_version"]
    return said


def stages(broker: TrustingPenstock, node: str) -> list[str]:
    """Return how far each delivery to a node has come, as the broker knows, oldest first."""
    statement = (
        "SELECT d.stage FROM deliveries d JOIN nodes n USING (node_id) WHERE n.name = ?"
        " ORDER BY d.generation"
    )
    return [stage for (stage,) in broker.rows(statement, node)]


def test_real_agent_enrols_streams_and_is_renewed(
    pair: tuple[BrokerOfMinor, str], tmp_path: Path
) -> None:
    """It has its certificate pushed over its stream, and the next one when it is asked for."""
    broker, version = pair
    node = "real.example.test"
    agent = AgentOfMinor(
        tmp_path / "agent",
        node,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([node])[node],
        wanted=[
            Wanted(name="own", names=[node], directory=tmp_path / "tls", expects=broker.ca_bundle)
        ],
    )
    agent.version = version
    with agent:
        # Ready is told by the agent, before the broker has heard that its delivery has ended.
        process.wait_until(
            lambda: stages(broker, node) == ["seen"], SECONDS, "its certificate is seen"
        )
        assert "penstock_agent_ready 1" in agent.metrics()
        first = (tmp_path / "tls" / "fullchain.pem").read_bytes()
        (row,) = broker.json("renew", node)
        assert row["stage"] == "seen"
        assert (tmp_path / "tls" / "fullchain.pem").read_bytes() != first
        assert '"by": "stream"' in agent.log_text()
        assert told(broker, node) == version


def say(kind: str, body: Mapping[str, Any]) -> wire.Message:
    """Return a message with an id of its own."""
    return wire.Message(secrets.token_hex(8), kind, body)


def heard(stream: http.client.HTTPResponse) -> Mapping[str, Any]:
    """Return the next message of a stream, as it stands there."""
    while line := stream.readline():
        if line.startswith(b"data: "):
            found: dict[str, Any] = json.loads(line[6:])
            return found
    raise ConnectionResetError("the stream ended")


def test_each_path_is_served_in_the_lower_version(
    pair: tuple[BrokerOfMinor, str], tmp_path: Path
) -> None:
    """Enrolment, identity, messages, poll and stream; what only the newer one knows is passed
    over, and one of another major version is served by none."""
    broker, version = pair
    node = "plain.example.test"
    token = broker.mint([node])[node]
    agent = PlainAgent(broker.agents_url, broker.ca_bundle, tmp_path, node)
    agent.version = wire.Version(2, 0)
    assert agent.enrol(method="token", credential=token)[0] == 400
    agent.version = wire.Version.parse(version)
    agent.more = LATER if version == "1.2" else {}
    status, answer = agent.enrol(method="token", credential=token)
    assert (status, answer["version"]) == (200, "1.0")
    first = agent.chain_pem
    status, answer = agent.renew()
    assert (status, answer["version"]) == (200, "1.0")
    assert agent.chain_pem != first
    odd = {"name": "odd", "names": ["not a name"], "key_kind": "ec-p256", **agent.more}
    body = {"instance": "i", "agent": "9.9", "certificates": [odd], **agent.more}
    dance = [say("dance", {"tempo": 120})] if version == "1.2" else []
    with agent.streaming() as stream:
        status, reply = agent.post(*dance, say("stated", body))
        assert (status, reply["version"], reply["refused"]) == (200, "1.0", [])
        assert len(reply["accepted"]) == len(dance) + 1
        pushed = heard(stream)
    assert (pushed["kind"], pushed["body"]["certificate"]) == ("refused", "odd")
    status, waiting = agent.poll()
    assert (status, waiting["version"]) == (200, "1.0")
    assert [one["id"] for one in waiting["messages"]] == [pushed["id"]]
    assert told(broker, node) == version
    agent.version = wire.Version(2, 0)
    assert agent.post(ack=pushed["seq"])[0] == 400
    agent.version = wire.Version.parse(version)
    assert agent.post(ack=pushed["seq"])[0] == 200
    assert agent.poll()[1]["messages"] == []
