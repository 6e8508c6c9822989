"""What no section about nodes can see alone."""

from typing import Any

import pytest

from tests.unit.config.conftest import FaultsOf, Parse

NODES: dict[str, Any] = {
    "kind": "built-in",
    "base_url": "http://pki.corp.example:8080",
    "profiles": {"node": {"usages": ["client-auth"], "lifetime": "7d", "max_lifetime": "30d"}},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return a configuration with nodes, changed so."""
    return {
        "upstreams.nodes": NODES,
        "agents.identity.upstream": "nodes",
        "listen.agents": {},
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


def test_nodes_with_a_ca_of_their_own_are_taken(parse: Parse) -> None:
    """With defaults for the rest."""
    agents = parse(changed()).agents
    assert agents is not None
    assert (agents.identity.profile, agents.identity.domain) == ("node", "node.penstock.internal")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agents__identity__upstream": "node"}, "no upstream is called 'node'"),
        ({"agents__identity__profile": "server"}, "has no profile 'server'"),
        ({"agents__identity__upstream": "local", "agents__identity__profile": "server"},
         "has not the usage client-auth"),
        ({"agents__identity__upstream": "pebble",
          "upstreams__pebble": {"kind": "acme", "directory": "https://ca.example/dir",
                                "description": "generic"}}, "is no built-in CA"),
    ],
    ids=["unknown", "profile", "usage", "ACME"],
)  # fmt: skip
def test_nodes_that_nobody_can_certify_are_a_fault(
    faults_of: FaultsOf, changes: dict[str, Any], words: str
) -> None:
    """Told at the start, not at the first enrolment."""
    assert any(words in fault for fault in faults_of(changed(**changes)))


def test_listener_for_nobody_is_a_fault(faults_of: FaultsOf) -> None:
    """It would refuse every node."""
    faults = faults_of({"listen.agents": {}})
    assert any("nothing says who certifies nodes" in fault for fault in faults)


def test_deliveries_are_kept_for_a_day_at_least(parse: Parse, faults_of: FaultsOf) -> None:
    """Waves and incidents look back that far."""
    agents = parse(changed(agents__keep_deliveries="1d")).agents
    assert agents is not None
    assert agents.keep_deliveries.days == 1
    faults = faults_of(changed(agents__keep_deliveries="23h"))
    assert any("at least 1d" in fault for fault in faults)
