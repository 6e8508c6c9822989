"""What is told of the node: only what happened, and what did not come out is said."""

from dataclasses import replace

import pytest

from broker.demo.node import CERTIFICATE, NODE, NodeFacts
from broker.demo.node_story import NODE_STEPS, check_node_facts, tell_node
from broker.demo.serving import Seen

FIRST, SECOND = (Seen("TLSv1.3", letter * 64, "hello") for letter in "ab")

GOOD = NodeFacts(
    node={
        "node": NODE,
        "status": "active",
        "fingerprint": "c" * 64,
        "identity_ends": "2026-12-01T00:00:00Z",
    },
    status={"certificates": [{"name": CERTIFICATE, "fingerprint": "b" * 64}]},
    order={"order": "o-1", "upstream": "demo-ca", "status": "valid"},
    first=FIRST,
    second=SECOND,
    key_mode=0o600,
    seconds=1.25,
)


def test_each_step_has_its_sentence() -> None:
    """With what was seen, not with what should have been."""
    told = dict(tell_node(GOOD))
    assert list(told) == [title for title, _ in NODE_STEPS]
    assert "order o-1" in told["the broker orders what the node wants"]
    assert "bbbbbbbbbbbbbbbb…" in told["the broker renews it and pushes the new one"]


def test_nothing_is_wrong_with_what_went_well() -> None:
    """The twin of what follows."""
    assert check_node_facts(GOOD) == []


@pytest.mark.parametrize(
    ("amiss", "said"),
    [
        (replace(GOOD, node={**GOOD.node, "status": "revoked"}), "expected active"),
        (replace(GOOD, key_mode=0o644), "mode 644"),
        (replace(GOOD, second=FIRST), "there before"),
        (replace(GOOD, order={**GOOD.order, "status": "invalid"}), "expected valid"),
        (
            replace(GOOD, status={"certificates": [{"name": CERTIFICATE, "fingerprint": "x"}]}),
            "another certificate",
        ),
    ],
    ids=["revoked", "mode", "same certificate", "order", "another in place"],
)
def test_what_went_wrong_is_told(amiss: NodeFacts, said: str) -> None:
    """A demonstration that lies is worth nothing."""
    assert any(said in fault for fault in check_node_facts(amiss))
