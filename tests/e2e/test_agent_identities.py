"""Real agents before a real broker: how they are known, and what happens when they are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.nodes import NODE_CA
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

    def identity(self) -> dict[str, Any]:
        """Return what it keeps of its identity."""
        found: dict[str, Any] = json.loads(
            (self.state / "identity" / "identity.json").read_text("utf-8")
        )
        return found

    def outlive(self, identity: dict[str, Any]) -> None:
        """Wait until an identity of it has ended."""
        ends = identity["not_after"] + 1
        process.wait_until(lambda: real_now().timestamp() > ends, SECONDS, "the identity to end")

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
        host.outlive(host.identity())
        with host:
            host.wait_for(CONNECTED)
            assert host.chain() == before
        assert ask(broker, "node_show", node=host.node)["node_id"] == node
        assert broker.events("node-returned")


def test_one_that_was_away_for_too_long_comes_back_by_another_token(tmp_path: Path) -> None:
    """As another node, in the place of the one that it was; what it served it serves on, until
    that is renewed."""
    home = tmp_path / "broker"
    home.mkdir()
    agents = {"identity": {"return_within": "1s"}}
    with TrustingPenstock(home, lifetime="20s", agents=agents) as broker:
        host = Host(tmp_path / "a", "late.example.test", broker)
        with host:
            host.wait_for(READY)
            before = host.chain()
        former = host.identity()
        host.token_file.write_text(broker.mint([host.node])[host.node], "ascii")
        # By the broker's record: the agent may have been stopped while it was given another.
        ((end,),) = broker.rows("SELECT identity_not_after FROM nodes WHERE name = ?", host.node)
        late = end / 1_000_000 + 1
        process.wait_until(lambda: real_now().timestamp() > late, SECONDS, "it to be too late")
        with host:
            host.wait_for(CONNECTED)
            assert host.chain() == before
            node = host.identity()["node_id"]
            assert node != former["node_id"]
            process.wait_until(
                lambda: any(one["node_id"] == node for one in broker.events("certificate-managed")),
                SECONDS,
                "its statement",
            )
            assert READY in host.metrics()
            broker.json("renew", host.node)
            assert host.chain() != before
        assert [one["node_id"] for one in broker.events("node-revoked")] == [former["node_id"]]
        assert broker.events("node-returned") == []


def wait_until_seen(broker: TrustingPenstock, host: Host) -> None:
    """Wait until the broker has heard that a host serves its one certificate: a delivery that is
    open still is gone on with, where another is asked for."""
    statement = "SELECT d.stage FROM deliveries d JOIN nodes n USING (node_id) WHERE n.name = ?"
    process.wait_until(
        lambda: broker.rows(statement, host.node) == [("seen",)], SECONDS, "its receipt"
    )


def issuer_of(identity: dict[str, Any]) -> bytes | None:
    """Return the identifier of the key that an identity was signed with."""
    leaf = x509.load_pem_x509_certificates(identity["chain_pem"].encode())[0]
    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return found.value.key_identifier


def ways_in(broker: TrustingPenstock) -> list[tuple[str, str]]:
    """Return how nodes were given another identity, and whose it was, oldest first."""
    found = broker.rows(
        "SELECT kind, data FROM events WHERE kind IN ('node-renewed', 'node-returned') ORDER BY seq"
    )
    return [(kind, json.loads(data)["node_id"]) for kind, data in found]


def outlive_issuer(broker: TrustingPenstock) -> None:
    """Wait until all has ended that the node CA's first issuer ever signed, by the CA's ledger: an
    agent renews whenever it likes, so no file of one tells the last end."""
    ((end,),) = broker.rows(
        "SELECT max(not_after) FROM ca_certificates WHERE ca = ? AND issuer_key_id ="
        " (SELECT issuer_key_id FROM ca_certificates WHERE ca = ? ORDER BY issued_at LIMIT 1)",
        NODE_CA,
        NODE_CA,
    )
    process.wait_until(
        lambda: real_now().timestamp() * 1_000_000 > end, SECONDS, "the last of it to end"
    )


def test_node_ca_rolls_over_with_one_agent_away_and_nobody_is_locked_out(tmp_path: Path) -> None:
    """The one that is there renews its identity by itself, from the new issuer, and is served on;
    the old issuer is retired; the one that was away all the time comes back by its key."""
    home = tmp_path / "broker"
    home.mkdir()
    agents = {"identity": {"return_within": "1h"}}
    with TrustingPenstock(home, lifetime="20s", agents=agents) as broker:
        away = Host(tmp_path / "away", "away.example.test", broker)
        present = Host(tmp_path / "present", "present.example.test", broker)
        with present:
            with away:
                away.wait_for(READY)
                wait_until_seen(broker, away)
            gone = len(ways_in(broker))
            present.wait_for(READY)
            wait_until_seen(broker, present)
            old, chain, first = away.identity(), away.chain(), present.identity()
            for step in ("prepare", "activate"):
                broker.run("ca", "rotate", step, NODE_CA)
            process.wait_until(
                lambda: bool(present.metrics()) and issuer_of(present.identity()) != issuer_of(old),
                SECONDS,
                "an identity of the new issuer",
            )
            present.wait_for(CONNECTED)
            broker.json("renew", present.node)
            outlive_issuer(broker)
            broker.run("ca", "rotate", "retire", NODE_CA)
            broker.stop()
            broker.start()
            with away:
                for host in (away, present):
                    host.wait_for(CONNECTED)
                broker.json("renew", away.node)
                broker.json("renew", present.node)
                assert away.chain() != chain
        since = ways_in(broker)[gone:]
        assert ("node-renewed", first["node_id"]) in since
        assert next(kind for kind, node in since if node == old["node_id"]) == "node-returned"
        assert away.identity()["node_id"] == old["node_id"]
        assert issuer_of(away.identity()) != issuer_of(old)
