"""How a node was let in decides what it may have: real agents before a real broker."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.deployments.node_agents import NodeAgent, Wanted
from tests.e2e.vouching import PodAgent, Scene, host_agent, of_service, outcomes, vouching
from tests.peers import process

pytestmark = pytest.mark.e2e

ATTESTED = {
    "pods": ["kubernetes"],
    "vouched": ["kubernetes", "certificate"],
    "seen": ["approval"],
    "joined": ["token"],
}
"""How a node has to have been let in that may have names of a zone."""

RULES: Final = [
    {
        "name": f"{zone}-attested",
        "names": [f"**.{zone}.example.test"],
        "attestation": ways,
        "because": "the zone is for machines that somebody vouched for",
    }
    for zone, ways in ATTESTED.items()
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run the broker once for all tests: each has nodes of its own."""
    with vouching(tmp_path_factory.mktemp("attestation"), RULES) as made:
        yield made


def wanted_of(scene: Scene, label: str) -> list[Wanted]:
    """Return a certificate for a name in each zone whose nodes have to be attested."""
    return [
        Wanted(
            name=zone,
            names=[f"{label}.{zone}.example.test"],
            directory=scene.folder / label / zone,
            expects=scene.broker.ca_bundle,
        )
        for zone in ATTESTED
    ]


class WaitingAgent(NodeAgent):
    """A real agent that a person has to let in."""

    def write(self) -> None:
        """Write agent.toml with the other method."""
        super().write()
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace('method = "token"', 'method = "approval"'), "utf-8")


def node_agent(scene: Scene, way: str) -> NodeAgent:
    """Return a real agent that comes by *way* and wants a name of each zone."""
    label = f"by-{way}"
    common: dict[str, Any] = {"wanted": wanted_of(scene, label)}
    name = f"{label}.racks.corp.example"
    if way == "certificate":
        return host_agent(scene, name, **common)
    common |= {"url": scene.broker.agents_url, "anchors": scene.broker.ca_bundle}
    folder = scene.folder / name
    folder.mkdir()
    if way == "kubernetes":
        token = of_service(scene, label, "web", "nginx")
        return PodAgent(folder, name, token=token, **common)
    if way == "approval":
        return WaitingAgent(folder, name, **common)
    return NodeAgent(folder, name, token=scene.broker.mint([name])[name], **common)


def let_in(scene: Scene, name: str) -> None:
    """Approve the request of a node, once it is there."""

    def asked() -> list[dict[str, Any]]:
        return [one for one in scene.broker.json("node", "requests") if one["node"] == name]

    process.wait_until(lambda: bool(asked()), 90, "it to ask")
    scene.broker.run("node", "approve", asked()[0]["request"])


def compared(scene: Scene, label: str, ways: list[str]) -> set[tuple[str, str]]:
    """Return what would become of a node's names, by zone, if each zone were for *ways*."""
    document = json.loads(scene.broker.policy_file.read_text("utf-8"))
    for one in document["rules"]:
        if "attestation" in one:
            one["attestation"] = ways
    folder = scene.folder / f"policies-{label}-{'-'.join(ways)}"
    folder.mkdir()
    (folder / "default.yaml").write_text(json.dumps(document, indent=1), "utf-8")
    groups = scene.broker.json("policy", "diff", str(folder))["groups"]
    told = [(one["effect"], name.split(".")) for one in groups for name in one["names"]]
    return {(effect, labels[1]) for effect, labels in told if labels[0] == label}


@pytest.mark.parametrize(
    ("way", "had"),
    [
        ("kubernetes", ["pods", "vouched"]),
        ("certificate", ["vouched"]),
        ("approval", ["seen"]),
        ("token", ["joined"]),
    ],
)
def test_rules_know_how_a_node_was_let_in(scene: Scene, way: str, had: list[str]) -> None:
    """Its agent gets what a rule wants attested that way, is told of the rest, and would lose it
    where a rule wants another way."""
    agent = node_agent(scene, way)
    node = "by-kubernetes.web.prod" if way == "kubernetes" else agent.node
    with agent:
        if way == "approval":
            let_in(scene, node)
        process.wait_until(
            lambda: len(outcomes(scene, node)) == len(ATTESTED), 90, "all are decided"
        )
    found = outcomes(scene, node)
    assert {name for name, why in found.items() if why is None} == set(had)
    for zone in found.keys() - set(had):
        ways = " or ".join(sorted(ATTESTED[zone]))
        assert f"wants a node attested by {ways}, and node '{node}' was let in by {way}" in str(
            found[zone]
        )
    assert scene.node(node)["method"] == way
    others = sorted({way for ways in ATTESTED.values() for way in ways} - {way})
    label = f"by-{way}"
    assert compared(scene, label, [way]) == set()
    assert compared(scene, label, others) == {("refused", zone) for zone in had}
