"""What happened at the node, told from what broker, agent and server say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from broker.demo.node import CERTIFICATE, NODE, NodeFacts

__all__ = ["NODE_STEPS", "check_node_facts", "tell_node"]


def tell_node(facts: NodeFacts) -> Sequence[tuple[str, str]]:
    """Return titles, each with what happened."""
    return [(title, happened(facts)) for title, happened in NODE_STEPS]


def check_node_facts(facts: NodeFacts) -> Sequence[str]:
    """Return what of it was no success."""
    faults = []
    if facts.node["node"] != NODE or facts.node["status"] != "active":
        faults.append(f"the node is {facts.node['status']}, expected active")
    if facts.key_mode != 0o600:
        faults.append(f"the node's key has the mode {facts.key_mode:o}, expected 600")
    if facts.first.fingerprint == facts.second.fingerprint:
        faults.append("the renewed certificate is the one that was there before")
    if facts.order["status"] != "valid":
        faults.append(f"the node's order is {facts.order['status']}, expected valid")
    (held,) = [one for one in facts.status["certificates"] if one["name"] == CERTIFICATE]
    if held["fingerprint"] != facts.second.fingerprint:
        faults.append("the agent says that another certificate is in place than is served")
    return faults


def _enrolled(facts: NodeFacts) -> str:
    return (
        f"by a join token that is spent; its identity {facts.node['fingerprint'][:16]}… ends "
        f"{facts.node['identity_ends']}"
    )


def _ordered(facts: NodeFacts) -> str:
    order = facts.order
    return (
        f"order {order['order']}, under the node's own account, upstream {order['upstream']}; "
        "the key was made on the node and stays there"
    )


def _served(facts: NodeFacts) -> str:
    return (
        f"the server got SIGHUP, and the agent saw {facts.first.fingerprint[:16]}… served "
        f"({facts.first.protocol}): {facts.first.answer!r}"
    )


def _renewed(facts: NodeFacts) -> str:
    return (
        f"a new key, a new order; {facts.second.fingerprint[:16]}… was served "
        f"{facts.seconds:.1f} s after the command"
    )


NODE_STEPS: Final[tuple[tuple[str, Callable[[NodeFacts], str]], ...]] = (
    ("a node enrols", _enrolled),
    ("the broker orders what the node wants", _ordered),
    ("the node checks, installs, reloads and looks", _served),
    ("the broker renews it and pushes the new one", _renewed),
)
"""What a node does, each with what tells of it."""
