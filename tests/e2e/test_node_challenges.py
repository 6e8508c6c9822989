"""Challenges answered on the node: the broker's own, and those of a CA behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import AcmeCa
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait: Pebble takes some seconds to look and to issue."""

NODE: Final = "web-01.nodes.example.test"
NAME: Final = "www.web.example.test"


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


class Scene:
    """A broker that grants no name, a Pebble, and a node at which both look."""

    def __init__(self, tmp: Path, stack: ExitStack, challenge: str) -> None:
        self.port = process.free_port()
        is_http = challenge == "http-01"
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        pebble = Pebble(
            tmp / "pebble",
            dns_server=dns.dns_address,
            validation_http_port=self.port if is_http else process.free_port(),
            validation_tls_port=process.free_port() if is_http else self.port,
        )
        self.pebble = stack.enter_context(pebble)
        root = tmp / "pebble-root.pem"
        root.write_bytes(self.pebble.root_pem())
        self.ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            options={"solvers": [{"challenge": challenge, "nodes": ["*.nodes.example.test"]}]},
        )
        (tmp / "broker").mkdir()
        looks = {"http_port": self.port} if is_http else {"tls_alpn_port": self.port}
        on_nodes = {"challenges": [challenge], "hold": ["names", "usages", "key"]}
        self.broker = stack.enter_context(
            TrustingPenstock(
                tmp / "broker",
                names=["**.granted.example.test"],
                hosts={NAME: ["127.0.0.1"]},
                upstreams=[self.ca],
                validation=looks,
                policy={"challenges": ["http-01", "tls-alpn-01"]},
                profiles={
                    "server": {
                        "description": "TLS servers of the tests",
                        "usages": ["server-auth"],
                        "cap": "47d",
                        "upstreams": [{"upstream": "pebble"}],
                        "on_nodes": on_nodes,
                    }
                },
            )
        )
        answers = "http" if is_http else "tls_alpn"
        home = tmp / "agent"
        home.mkdir()
        self.agent = NodeAgent(
            home,
            NODE,
            url=self.broker.agents_url,
            anchors=self.broker.ca_bundle,
            token=self.broker.mint([NODE])[NODE],
            wanted=[Wanted(name="www", names=[NAME], directory=home / "tls", expects=root)],
            more=f'[challenges]\n{answers} = "127.0.0.1:{self.port}"\n',
        )
        stack.enter_context(self.agent)


@pytest.fixture(params=["http-01", "tls-alpn-01"])
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Everything that takes part, by either type."""
    with ExitStack() as stack:
        yield Scene(tmp_path, stack, request.param)


def test_name_is_proved_on_the_node_to_the_broker_and_to_the_ca(scene: Scene) -> None:
    """No name is granted: the node answers two challenges for one certificate, and both go."""
    broker = scene.broker

    def stage() -> str:
        rows = broker.rows("SELECT stage FROM deliveries ORDER BY begun_at DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    wait_for(lambda: stage() in ("seen", "failed"))
    assert stage() == "seen", broker.rows("SELECT note FROM deliveries")
    proofs = {proof for (proof,) in broker.rows("SELECT proof FROM authorizations")}
    assert proofs == {"challenge"}
    (row,) = broker.rows("SELECT upstream, identifiers FROM certificates")
    assert row[0] == "pebble"
    assert json.loads(row[1]) == [["dns", NAME]]
    # Both answers are withdrawn, which may be after the certificate is seen: then nothing waits for
    # the node any more.
    wait_for(lambda: withdrawn(broker) >= 2)
    wait_for(lambda: not broker.rows("SELECT 1 FROM node_messages"))


def withdrawn(broker: TrustingPenstock) -> float:
    """Return how often the node was told to withdraw an answer."""
    series = 'penstock_node_messages_sent_total{kind="withdraw-challenge"} '
    lines = broker.metrics().splitlines()
    return sum(float(one.removeprefix(series)) for one in lines if one.startswith(series))
