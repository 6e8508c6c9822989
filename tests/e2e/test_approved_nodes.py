"""A node whose names need a person: a broker, an agent, and somebody who approves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.e2e.test_rotation import crl_of

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a step; each takes about two seconds."""

NODE: Final = "web-01.nodes.example.test"
NAME: Final = "www.people.example.test"
ZONE: Final = "**.people.example.test"
RULES: Final[list[dict[str, Any]]] = [
    {
        "name": "people",
        "because": "these hosts speak for the company",
        "names": [ZONE],
        "approval": {"on_withdrawal": "revoke"},
    },
    {
        "name": "nodes-alone",
        "because": "nobody else has business there",
        "names": [ZONE],
        "only": {"nodes": ["*.nodes.example.test"]},
    },
    {
        "name": "no-databases",
        "because": "they serve nobody directly",
        "names": [ZONE],
        "who": {"nodes": ["*.databases.example.test"]},
        "refuse": "not for databases",
    },
]
"""The node has what the second wants, and is not whom the third is about."""


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


def waiting(broker: TrustingPenstock) -> str | None:
    """Return the request that waits."""
    rows = broker.rows("SELECT approval_id FROM approvals WHERE status = 'waiting'")
    return str(rows[0][0]) if rows else None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TrustingPenstock]:
    """A broker whose policy wants a person."""
    home = tmp_path / "broker"
    home.mkdir()
    with TrustingPenstock(home, policy={"rules": RULES}) as made:
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


def test_node_waits_for_a_person_and_is_served_at_once_afterwards(
    broker: TrustingPenstock, agent: NodeAgent
) -> None:
    """It makes no key before, and does not wait for its pause to end."""
    approval = wait_for(lambda: waiting(broker))
    shown = broker.json("approval", "show", approval)
    assert (shown["names"], shown["asked_by"]["node"]) == ([NAME], NODE)
    folder = agent.wanted[0].directory
    assert not (folder / "fullchain.pem").exists()
    assert broker.rows("SELECT count(*) FROM deliveries") == [(0,)]
    broker.json("approval", "approve", approval, "--reason", "known")
    wait_for(lambda: broker.rows("SELECT 1 FROM deliveries WHERE stage = 'seen'"))
    leaf = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]

    check_evidence(broker, leaf, approval)
    assert leaf.serial_number not in revoked_by(leaf)
    broker.json("approval", "withdraw", approval, "--reason", "no more")
    wait_for(lambda: leaf.serial_number in revoked_by(leaf))


def check_evidence(broker: TrustingPenstock, leaf: x509.Certificate, approval: str) -> None:
    """See that an auditor finds who said yes to a certificate, and where it went."""
    found = broker.json("cert", "evidence", f"{leaf.serial_number:x}")
    assert found["certificate"]["names"] == [NAME]
    assert found["decision"]["approvals"] == [approval]
    told = [one["kind"] for one in found["approvals"]]
    assert told == ["approval-requested", "approval-granted"]
    assert found["approvals"][1]["reason"] == "known"
    assert found["approvals"][1]["actor"].startswith("operator:")
    assert found["deliveries"]
    assert {one["data"]["node"] for one in found["deliveries"]} == {NODE}
    shown = broker.run("cert", "evidence", f"{leaf.serial_number:x}").stdout
    assert approval in shown
    assert NODE in shown


def revoked_by(leaf: x509.Certificate) -> set[int]:
    """Return the serials in the revocation list that the certificate points to."""
    crl = x509.load_der_x509_crl(crl_of(leaf))
    return {one.serial_number for one in crl}
