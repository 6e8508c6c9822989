"""Nodes at a running broker, in the states that its operators decide about.

Their agents are of few lines, and after they have told what they had to, nothing moves by itself:
what is seen to change afterwards was changed by a command.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agents import wire
from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.nodes import PlainAgent
from tests.peers import authority, process
from tests.simulator.identity import make_csr, make_key, spki_sha256

__all__ = ["GROUPS", "PROFILE", "bring_nodes", "trusted_nodes"]

HOST: Final = "mail-01.nodes.example.test"
"""In no rollout group: what is issued for it is pushed at once."""

MEMBER: Final = "web-01.web.example.test"
"""In the rollout group, and not connected: what is issued for it waits for its turn."""

GROUPS: Final = {"web": {"nodes": ["*.web.example.test"], "at_once": 1}}
"""The rollout groups that the broker has to have."""

PROFILE: Final = "inside"
"""The profile of all certificates here."""

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for a step of the broker; each takes under a tenth of it on a busy machine."""


def trusted_nodes() -> dict[str, Any]:
    """Return the rule of the policy by which these nodes have their names."""
    return {
        "nodes": [HOST, MEMBER],
        "names": ["**.example.test"],
        "profiles": [PROFILE],
        "because": "nodes of the tests",
    }


def bring_nodes(broker: TrustingPenstock, folder: Path) -> dict[str, str]:
    """Have two nodes come in and two ask to; return the ids of all that is there.

    HOST has a certificate that is seen served (SEEN), under an incident that waits for it
    (INCIDENT), and one that is held since it leads elsewhere than the one before it (HELD).
    MEMBER has one that waits for its rollout, and one that it was asked a CSR for (ASKED).
    """
    folder.mkdir()
    tokens = broker.mint([HOST, MEMBER])
    host, member = (_joined(broker, folder, node, tokens[node]) for node in (HOST, MEMBER))
    requests = [_ask_to_come(broker, folder, f"new-{number}.example.test") for number in (1, 2)]
    key = _serve_mail(host)
    _serve_web(member)
    _await_stages(broker, {"smtp": "seen", "imap": "held", "site": "issued", "shop": "asked"})
    incident = broker.json(
        "incident", "start", "--key", key, "--deadline", "5d", "--reason", "the key was copied"
    )["incident"]
    process.wait_until(
        lambda: bool(broker.rows("SELECT 1 FROM deliveries WHERE incident_id = ?", incident)),
        PATIENCE_SECONDS,
        "the incident has begun a delivery",
    )
    deliveries = dict(
        broker.rows(
            "SELECT m.name, d.delivery_id FROM deliveries d JOIN managed m USING (managed_id)"
            " WHERE d.incident_id IS NULL"
        )
    )
    return {
        "NODE": HOST,
        "MEMBER": MEMBER,
        "REQUEST": requests[0],
        "OTHER_REQUEST": requests[1],
        "SEEN": deliveries["smtp"],
        "HELD": deliveries["imap"],
        "ASKED": deliveries["shop"],
        "INCIDENT": incident,
        "SPKI": key,
    }


# ----------------------------------------------------------------------------------------- coming


def _agent(broker: TrustingPenstock, folder: Path, node: str) -> PlainAgent:
    return PlainAgent(broker.agents_url, broker.ca_bundle, folder, node)


def _joined(broker: TrustingPenstock, folder: Path, node: str, token: str) -> PlainAgent:
    agent = _agent(broker, folder, node)
    status, answer = agent.enrol(method="token", credential=token)
    assert status == 200, answer
    return agent


def _ask_to_come(broker: TrustingPenstock, folder: Path, node: str) -> str:
    status, answer = _agent(broker, folder, node).enrol(
        method="approval", facts={"hostname": node.partition(".")[0]}
    )
    assert status == 202, answer
    return str(answer["request"])


# ---------------------------------------------------------------------------------------- working


def _serve_mail(agent: PlainAgent) -> str:
    """Have one certificate seen and one held; return the hash of the first one's key."""
    names = {one: [f"{one}.example.test"] for one in ("smtp", "imap")}
    _state(agent, names)
    asked = _messages(agent, "want-csr", len(names))
    # What it serves now is another CA's, and that is more than the next one will be.
    root = authority.make_root("a CA that was before")
    before = authority.make_server(root, names["imap"])
    chain_pem = (before.certificate_pem + root.certificate_pem).decode("ascii")
    _post(agent, "adopted", {"certificate": "imap", "chain_pem": chain_pem})
    key = _answer(agent, asked["smtp"], names["smtp"])
    _answer(agent, asked["imap"], names["imap"])
    pushed = _messages(agent, "certificate", 1)["smtp"]
    leaf = x509.load_pem_x509_certificate(pushed["chain_pem"].encode("ascii"))
    seen = {
        **{name: pushed[name] for name in ("delivery", "certificate", "generation")},
        "stage": "seen",
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
        "at": round(authority.real_now().timestamp()),
    }
    _post(agent, "receipt", seen)
    return key


def _serve_web(agent: PlainAgent) -> None:
    """Have one certificate issued, and leave the question for the other without an answer."""
    names = {one: [f"{one}.example.test"] for one in ("site", "shop")}
    _state(agent, names)
    asked = _messages(agent, "want-csr", len(names))
    _answer(agent, asked["site"], names["site"])


def _state(agent: PlainAgent, names: Mapping[str, list[str]]) -> None:
    certificates = [
        {"name": name, "names": each, "key_kind": "ec-p256", "profile": PROFILE}
        for name, each in names.items()
    ]
    _post(agent, "stated", {"instance": "tests", "agent": "0.1", "certificates": certificates})


def _answer(agent: PlainAgent, asked: Mapping[str, Any], names: list[str]) -> str:
    """Send a CSR by a new key, and return the hash of that."""
    key = make_key()
    told = {name: asked[name] for name in ("delivery", "certificate")}
    _post(agent, "csr", {**told, "csr_der": wire.encode_bytes(make_csr(key, names))})
    return spki_sha256(key)


def _post(agent: PlainAgent, kind: str, body: Mapping[str, Any]) -> None:
    message = wire.Message(secrets.token_hex(8), kind, body)
    status, reply = agent.post(message)
    assert (status, reply["refused"]) == (200, []), reply


def _messages(agent: PlainAgent, kind: str, number: int) -> dict[str, Mapping[str, Any]]:
    """Wait for so many messages of a kind; return their bodies by certificate."""
    found: dict[str, Mapping[str, Any]] = {}

    def have_come() -> bool:
        for one in agent.poll()[1]["messages"]:
            if one["kind"] == kind:
                found[one["body"]["certificate"]] = one["body"]
        return len(found) >= number

    process.wait_until(have_come, PATIENCE_SECONDS, f"{number} messages '{kind}' have come")
    return found


def _await_stages(broker: TrustingPenstock, expected: Mapping[str, str]) -> None:
    """Wait until each certificate's only delivery is in this stage."""
    statement = "SELECT m.name, d.stage FROM deliveries d JOIN managed m USING (managed_id)"
    process.wait_until(
        lambda: dict(broker.rows(statement)) == expected,
        PATIENCE_SECONDS,
        f"the deliveries are {dict(expected)}",
    )
