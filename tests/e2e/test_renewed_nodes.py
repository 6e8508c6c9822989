"""Renewals that are pushed, over the real channel: a broker, an agent, and a CA."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import AcmeCa
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a certificate; it takes two seconds, and a renewal two thirds of its life."""

LIFE_SECONDS: Final = 24
"""How long a certificate of Pebble lives here, in seconds."""

NODE: Final = "web-01.nodes.example.test"
NAME: Final = "www.example.test"


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


def stages(broker: TrustingPenstock) -> list[str]:
    """Return the stage of each delivery, oldest first."""
    return [stage for (stage,) in broker.rows("SELECT stage FROM deliveries ORDER BY begun_at")]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TrustingPenstock]:
    """A broker whose built-in CA certifies its nodes' names."""
    home = tmp_path / "broker"
    home.mkdir()
    with TrustingPenstock(home) as made:
        yield made


@pytest.fixture
def agent(broker: TrustingPenstock, tmp_path: Path) -> Iterator[NodeAgent]:
    """An agent that wants one certificate."""
    home = tmp_path / "agent"
    home.mkdir()
    token = broker.mint([NODE])[NODE]
    wanted = Wanted(name="www", names=[NAME], directory=home / "tls", expects=broker.ca_bundle)
    made = NodeAgent(
        home, NODE, url=broker.agents_url, anchors=broker.ca_bundle, token=token, wanted=[wanted]
    )
    with made:
        yield made


def served(agent: NodeAgent) -> x509.Certificate:
    """Return the certificate in the agent's folder."""
    pem = (agent.wanted[0].directory / "fullchain.pem").read_bytes()
    return x509.load_pem_x509_certificates(pem)[0]


def test_certificate_is_pushed_renewed_and_traced(
    broker: TrustingPenstock, agent: NodeAgent
) -> None:
    """From the wish of a node to seen, once more by command, and each stage told afterwards."""
    wait_for(lambda: stages(broker) == ["seen"])
    first = served(agent)
    rows = broker.json("renew", NODE, "--reason", "a test")
    assert [row["stage"] for row in rows] == ["seen"]
    second = served(agent)
    assert second.serial_number != first.serial_number
    assert second.public_key() != first.public_key()
    traced = broker.json("cert", "trace", rows[0]["delivery"])
    assert traced["reason"] == "asked"
    reached = ("asked", "issued", "pushed", "checked", "installed", "seen")
    assert None not in [traced["stages"][one] for one in reached]
    assert traced["certificate_id"]
    known = broker.json("cert", "trace", traced["fingerprint"])
    assert known["delivery"] == rows[0]["delivery"]
    # It is counted just after it is in the store.
    wait_for(lambda: 'penstock_deliveries_ended_total{outcome="seen"} 2.0' in broker.metrics())


@pytest.fixture
def behind_pebble(tmp_path: Path) -> Iterator[tuple[TrustingPenstock, Pebble, Path]]:
    """A broker whose nodes' certificates come from Pebble and live for seconds."""
    plain = process.free_port()
    with ExitStack() as stack:
        names = stack.enter_context(ChallTestSrv(tmp_path / "dns"))
        pebble = stack.enter_context(
            Pebble(tmp_path / "ca", validation_http_port=plain, dns_server=names.dns_address)
        )
        anchors = tmp_path / "pebble-root.pem"
        anchors.write_bytes(pebble.root_pem())
        ca = AcmeCa(
            name="pebble",
            directory_url=pebble.directory_url,
            ca_bundle=pebble.ca_bundle,
            anchors=anchors,
            facts={"honours_not_after": True, "is_ct_logged": False, "min_lifetime": "1s"},
        )
        profile = {
            "description": "Certificates that live for seconds",
            "cap": f"{LIFE_SECONDS}s",
            "usages": ["server-auth"],
            "upstreams": [{"upstream": "pebble"}],
        }
        home = tmp_path / "broker"
        home.mkdir()
        broker = TrustingPenstock(
            home, upstreams=[ca], plain_port=plain, profiles={"server": profile}
        )
        yield stack.enter_context(broker), pebble, anchors


def test_certificates_of_an_acme_ca_are_renewed_by_themselves(
    behind_pebble: tuple[TrustingPenstock, Pebble, Path], tmp_path: Path
) -> None:
    """Nobody asks: the sweep finds what is due, over a kill of the broker, and none is held."""
    broker, pebble, anchors = behind_pebble
    home = tmp_path / "agent"
    home.mkdir()
    token = broker.mint([NODE])[NODE]
    wanted = Wanted(name="www", names=[NAME], directory=home / "tls", expects=anchors)
    agent = NodeAgent(
        home, NODE, url=broker.agents_url, anchors=broker.ca_bundle, token=token, wanted=[wanted]
    )
    with agent:
        wait_for(lambda: stages(broker)[:1] == ["seen"])
        first = served(agent)
        broker.kill()
        broker.start()
        wait_for(lambda: stages(broker)[:2] == ["seen", "seen"])
    assert served(agent).serial_number != first.serial_number
    assert len(pebble.issued()) >= 2
    replaced = broker.rows("SELECT replaces FROM orders WHERE replaces IS NOT NULL")
    assert replaced, "the CA is told what it replaces"
    assert "held" not in stages(broker)
