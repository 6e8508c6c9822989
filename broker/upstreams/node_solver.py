"""Answers to a CA's challenges that nodes serve themselves: for names that lead there, not here.

So a host in a closed network can be validated from inside it, by a CA that looks from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_challenges import NodeAnswer
from broker.issuance.node_ports import NodeRecord
from broker.policy.names import PatternSet
from broker.protocol.challenges import ChallengeType, is_challenge_for
from broker.protocol.identifiers import Identifier
from broker.upstreams.solvers import ChallengeAnswer, Publication

__all__ = ["NodePublisher", "NodeSolver"]

log = structlog.get_logger(__name__)


class NodePublisher(Protocol):
    """Has nodes serve answers; ``issuance.node_challenges`` does."""

    async def nodes_for(
        self, name: str, *, patterns: PatternSet, communities: Sequence[str]
    ) -> Sequence[NodeRecord]: ...
    async def present(self, node: NodeRecord, answer: NodeAnswer) -> None: ...
    async def withdraw(self, node_id: str, challenge: str) -> None: ...


class NodeSolver:
    """Publishes on the nodes that want a certificate for the name."""

    def __init__(
        self,
        publisher: NodePublisher,
        challenge: ChallengeType,
        *,
        nodes: PatternSet,
        names: PatternSet,
        communities: Sequence[str],
    ) -> None:
        self._publisher = publisher
        self._type = challenge
        self._nodes = nodes
        self._names = names
        self._communities = tuple(communities)

    @property
    def type(self) -> ChallengeType:
        """Return the challenge type that is served."""
        return self._type

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether answers for *identifier* are published here."""
        is_fitting = is_challenge_for(self._type, identifier)
        return is_fitting and self._names.covering(identifier.value) is not None

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Have every node behind the name serve the answer; one of them is enough to go on.

        Raises:
            Unreachable: No node behind the name is connected, or none answers.
            Broken: None of them can.
        """
        name = answer.identifier.value
        nodes = await self._publisher.nodes_for(
            name, patterns=self._nodes, communities=self._communities
        )
        if not nodes:
            raise Unreachable(f"no node is connected that has '{name}'", left_nothing=True)
        wish = NodeAnswer(self._type, name, answer.token, answer.key_authorization)
        done = await asyncio.gather(
            *(self._publisher.present(node, wish) for node in nodes), return_exceptions=True
        )
        publication = _NodesAnswer(
            self._publisher, [node.node_id for node in nodes], wish.challenge
        )
        faults = [one for one in done if one is not None]
        for fault in faults:
            if not isinstance(fault, Unreachable | Broken):
                raise fault
            log.warning("node does not answer a challenge", name=name, reason=fault.reason)
        if len(faults) == len(nodes):
            await publication.withdraw()
            raise faults[0]
        return publication


class _NodesAnswer:
    def __init__(self, publisher: NodePublisher, node_ids: Sequence[str], challenge: str) -> None:
        self._publisher = publisher
        self._left = list(node_ids)
        self._challenge = challenge

    async def look(self) -> str | None:
        """Return None: the nodes have said that they serve it."""
        return None

    async def withdraw(self) -> None:
        """Have the nodes serve it no more."""
        while self._left:
            await self._publisher.withdraw(self._left[0], self._challenge)
            del self._left[0]
