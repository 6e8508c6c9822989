"""Many nodes at once, over the real channel: a wave that halts, an incident, bundles."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for anything; most of it takes two seconds.  An agent that has met a broker which is
away several times waits for half a minute, the canary's does, and then that of another; both on a
machine that is busy with other tests."""

NODES: Final = [f"web-0{number}.nodes.example.test" for number in range(1, 5)]
GROUP: Final = {"web": {"nodes": ["*.nodes.example.test"], "canaries": [NODES[0]], "at_once": 2}}
FAILING: Final = '[certificate.reload]\ncommand = ["/bin/false"]\n'


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def agents(
    broker: TrustingPenstock, tmp: Path, nodes: Sequence[str], *, reload: str = "", more: str = ""
) -> Iterator[list[NodeAgent]]:
    """Run an agent on each node, each with one certificate."""
    tokens = broker.mint(nodes)
    with contextlib.ExitStack() as stack:
        made = []
        for node in nodes:
            home = tmp / node
            home.mkdir()
            wanted = Wanted(
                name="www",
                names=[f"www.{node.partition('.')[0]}.example.test"],
                directory=home / "tls",
                expects=broker.ca_bundle,
                more=reload,
            )
            agent = NodeAgent(
                home,
                node,
                url=broker.agents_url,
                anchors=broker.ca_bundle,
                token=tokens[node],
                wanted=[wanted],
                more=more.replace("HOME", str(home)),
            )
            made.append(stack.enter_context(agent))
        yield made


@contextlib.contextmanager
def fleet_of(
    tmp: Path, nodes: Sequence[str], *, reload: str = "", more: str = ""
) -> Iterator[tuple[TrustingPenstock, list[NodeAgent]]]:
    """Run a broker with a rollout group, and agents beside it."""
    (tmp / "broker").mkdir()
    with (
        TrustingPenstock(tmp / "broker", agents={"groups": GROUP}) as broker,
        agents(broker, tmp, nodes, reload=reload, more=more) as made,
    ):
        yield broker, made


def stages(broker: TrustingPenstock) -> dict[str, str]:
    """Return the stage of each node's newest delivery."""
    return dict(
        broker.rows(
            "SELECT n.name, d.stage FROM deliveries d JOIN nodes n USING (node_id)"
            " ORDER BY d.begun_at"
        )
    )


def test_failing_reload_touches_the_canary_alone(tmp_path: Path) -> None:
    """The wave is halted and told; the others keep what they have.  How a person resumes it stands
    in test_wave."""
    with fleet_of(tmp_path, NODES, reload=FAILING) as (broker, _):
        wait_for(lambda: broker.events("rollout-halted"))
        wait_for(lambda: len(stages(broker)) == len(NODES))
        wait_for(lambda: list(stages(broker).values()).count("issued") >= len(NODES) - 1)
        pushed = broker.rows("SELECT DISTINCT node_id FROM deliveries WHERE pushed_at > 0")
        assert len(pushed) == 1
        (shown,) = broker.json("rollout", "list")
        assert shown["status"] == "halted"
        assert "canary 'web-01" in shown["why"]
        assert 'penstock_rollout_halted{group="web"} 1.0' in broker.metrics()


def test_incident_replaces_sees_and_revokes(tmp_path: Path) -> None:
    """From a dry run to the report, with a kill of the broker between."""
    with fleet_of(tmp_path, NODES[:3]) as (broker, fleet):
        wait_for(lambda: sorted(stages(broker).values()) == ["seen"] * 3)
        olds = {agent.node: served(agent) for agent in fleet}
        plan = broker.json("incident", "plan", "--community", "default", "--deadline", "24h")
        assert (plan["certificates"], plan["at_nodes"], plan["in_time"]) == (3, 3, True)
        begun = broker.json(
            "incident", "start", "--upstream", plan["orders"][0]["upstream"],
            "--deadline", "24h", "--code", "1", "--reason", "the CA was breached",
        )  # fmt: skip
        broker.kill()
        broker.start()

        # Looked at past the broker: a command for each look would keep a busy machine from the
        # very work that is waited for.
        statement = "SELECT 1 FROM incidents WHERE status = 'done' AND incident_id = ?"
        wait_for(lambda: broker.rows(statement, begun["incident"]))
        report = broker.json("incident", "show", begun["incident"])
        assert (report["status"], report["revoked"]) == ("done", 3)
        assert not report["what_is_left"]
        for agent in fleet:
            assert served(agent).serial_number != olds[agent.node].serial_number
        revoked = broker.rows("SELECT serial FROM certificates WHERE revoked_at IS NOT NULL")
        assert {int(serial, 16) for (serial,) in revoked} == {
            old.serial_number for old in olds.values()
        }


def test_bundles_come_to_nodes_that_want_them_and_change_with_a_revocation(tmp_path: Path) -> None:
    """Anchors and revocation lists, in files of their own; a list has the serial soon after."""
    more = (
        '[[bundle]]\nname = "anchors"\nfile = "HOME/tls/anchors.pem"\ncontent = "anchors"\n'
        '[[bundle]]\nname = "crls"\nfile = "HOME/tls/crls.pem"\ncontent = "crls"\n'
    )
    with fleet_of(tmp_path, NODES[:1], more=more) as (broker, (agent,)):
        folder = agent.wanted[0].directory
        wait_for((folder / "anchors.pem").exists)
        wait_for((folder / "crls.pem").exists)
        anchors = x509.load_pem_x509_certificates((folder / "anchors.pem").read_bytes())
        assert anchors
        wait_for(lambda: versions(broker, "anchors")[0] == versions(broker, "anchors")[1] > 0)
        row = versions(broker, "anchors")
        wait_for(lambda: stages(broker) == {NODES[0]: "seen"})
        wait_for(lambda: versions(broker, "crls")[0] == versions(broker, "crls")[1] > 0)
        before, leaf = versions(broker, "crls")[1], served(agent)
        assert leaf.serial_number not in revoked_in(folder / "crls.pem")
        broker.run("cert", "revoke", leaf.fingerprint(hashes.SHA256()).hex(), "--reason", "a test")
        wait_for(lambda: leaf.serial_number in revoked_in(folder / "crls.pem"))
        wait_for(lambda: versions(broker, "crls")[1] > before)
        assert versions(broker, "anchors") == row


def versions(broker: TrustingPenstock, bundle: str) -> tuple[int, int]:
    """Return which version of a bundle was sent, and which is in place."""
    (row,) = broker.rows(
        "SELECT sent_version, coalesce(installed_version, 0) FROM node_bundles WHERE bundle = ?",
        bundle,
    )
    return row[0], row[1]


def revoked_in(path: Path) -> set[int]:
    """Return the serials in all revocation lists of a file."""
    end = b"-----END X509 CRL-----\n"
    lists = [part + end for part in path.read_bytes().split(end)[:-1]]
    assert lists
    return {one.serial_number for part in lists for one in x509.load_pem_x509_crl(part)}


def served(agent: NodeAgent) -> x509.Certificate:
    """Return the certificate in the agent's folder."""
    pem = (agent.wanted[0].directory / "fullchain.pem").read_bytes()
    return x509.load_pem_x509_certificates(pem)[0]
