"""A CA's challenges that nodes answer."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_challenges import NodeAnswer
from broker.issuance.node_ports import NodeRecord
from broker.policy.names import PatternSet
from broker.policy.node_names import node_patterns
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.node_solver import NodeSolver
from broker.upstreams.solvers import ChallengeAnswer
from tests.fakes.clock import START
from tests.fakes.fake_rollouts import delivery_view

NAME = Identifier(IdentifierType.DNS, "www.example.com")
ANSWER = ChallengeAnswer(NAME, "token", "token.thumb")


class FakePublisher:
    """Nodes behind a name, some of which fail."""

    def __init__(self, *names: str) -> None:
        node = delivery_view("x", START).node
        self.nodes = [replace(node, node_id=name, name=name) for name in names]
        self.faults: dict[str, Exception] = {}
        self.served: set[str] = set()
        self.asked: list[tuple[str, Sequence[str]]] = []

    async def nodes_for(
        self, name: str, *, patterns: PatternSet, communities: Sequence[str]
    ) -> Sequence[NodeRecord]:
        """Return those that the patterns cover."""
        self.asked.append((name, communities))
        return [one for one in self.nodes if patterns.covering(one.name) is not None]

    async def present(self, node: NodeRecord, answer: NodeAnswer) -> None:
        """Serve, or fail."""
        assert answer == NodeAnswer(ChallengeType.HTTP_01, NAME.value, "token", "token.thumb")
        if node.name in self.faults:
            raise self.faults[node.name]
        self.served.add(node.name)

    async def withdraw(self, node_id: str, challenge: str) -> None:
        """Serve no more."""
        assert challenge == "token"
        self.served.discard(node_id)


def solver(publisher: FakePublisher) -> NodeSolver:
    """Return a solver for all nodes that are called web-something."""
    return NodeSolver(
        publisher,
        ChallengeType.HTTP_01,
        nodes=node_patterns(["web-01", "web-02"]),
        names=PatternSet.parse(["**.example.com"]),
        communities=("default",),
    )


async def test_every_node_behind_the_name_serves_the_answer() -> None:
    """Until it is withdrawn."""
    publisher = FakePublisher("web-01", "web-02", "db-01")
    publication = await solver(publisher).present(ANSWER)
    assert publisher.served == {"web-01", "web-02"}
    assert publisher.asked == [("www.example.com", ("default",))]
    assert await publication.look() is None
    await publication.withdraw()
    assert not publisher.served


async def test_one_node_that_answers_is_enough() -> None:
    """A balancer may lead the CA to the others; it looks from several places."""
    publisher = FakePublisher("web-01", "web-02")
    publisher.faults["web-01"] = Unreachable("away")
    await solver(publisher).present(ANSWER)
    assert publisher.served == {"web-02"}


async def test_nodes_that_all_fail_are_told_and_nothing_stays() -> None:
    """The CA is not even asked."""
    publisher = FakePublisher("web-01")
    publisher.faults["web-01"] = Broken("port 80 is taken")
    with pytest.raises(Broken, match="port 80 is taken"):
        await solver(publisher).present(ANSWER)
    assert not publisher.served


async def test_name_without_a_node_waits() -> None:
    """One may connect later."""
    with pytest.raises(Unreachable, match="no node is connected that has"):
        await solver(FakePublisher("db-01")).present(ANSWER)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("www.example.com", True), ("www.example.org", False), ("*.example.com", False)],
)
def test_names_that_it_answers_for(name: str, expected: bool) -> None:
    """No wildcard: http-01 proves none."""
    made = solver(FakePublisher())
    assert made.type is ChallengeType.HTTP_01
    assert made.is_for(Identifier(IdentifierType.DNS, name)) is expected
