"""Answers to challenges that are given on nodes: for a CA that looks there, and for our own look.

A node is sent the answer over its channel and says when it serves it; only then is anybody told to
look.  Which names a node answers for is decided three times: by the configuration here, by what the
node may have, and by the node's own file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.node_ports import Connections, NodeMessage, NodeRecord, Outbox
from broker.issuance.records import AccountRecord, AuthorizationRecord, ChallengeRecord, OrderRecord
from broker.policy.names import PatternSet
from broker.protocol.challenges import ChallengeType, key_authorization
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus

__all__ = ["NodeAnswer", "NodeAnswers", "NodeFinder", "NodeValidations"]

ANSWER_TIME: Final = timedelta(seconds=30)
"""How long a node may take to serve an answer; it takes one that is connected a second."""

SERVED_FOR: Final = timedelta(minutes=30)
"""How long a node serves an answer that nobody withdraws: CAs look within minutes."""

LOOK_TIME: Final = timedelta(minutes=1)
"""How long our own look at an answer is waited for before the delivery is put off."""

LOOK_PAUSE_SECONDS: Final = 0.25
"""Pause between two questions for an authorization, in seconds."""

MOST_NODES: Final = 16
"""Most nodes that serve one answer: all behind a name, as far as a balancer goes over them."""

NODE_TYPES: Final = (ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01)
"""What a node can answer."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node is to serve."""

    type: ChallengeType
    identifier: str
    token: str
    key_authorization: str = field(repr=False)

    @property
    def challenge(self) -> str:
        """Return what the channel calls it: tokens are unique."""
        return self.token


class NodeFinder(Protocol):
    """Finds the nodes behind a name."""

    async def nodes_named_in(
        self, name: str, communities: Sequence[str], limit: int
    ) -> Sequence[NodeRecord]:
        """Return active nodes that want a certificate for the name or address."""
        ...


class NodeAnswers:
    """Has nodes serve answers; implements ``node_ports.ChallengeReports``."""

    def __init__(
        self, outbox: Outbox, finder: NodeFinder, *, patience: timedelta = ANSWER_TIME
    ) -> None:
        self._outbox = outbox
        self._finder = finder
        self._patience = patience
        self._waiting: dict[tuple[str, str], asyncio.Future[str | None]] = {}
        self.connections: Connections | None = None
        """Who is connected; None where the configuration has no nodes."""

    # ---------------------------------------------------------------------- what nodes report

    def answered(self, node_id: str, challenge: str) -> None:
        """See the port."""
        self._tell(node_id, challenge, None)

    def failed(self, node_id: str, challenge: str, reason: str) -> None:
        """See the port."""
        self._tell(node_id, challenge, reason or "it gave no reason")

    def _tell(self, node_id: str, challenge: str, reason: str | None) -> None:
        waiting = self._waiting.get((node_id, challenge))
        if waiting is not None and not waiting.done():
            waiting.set_result(reason)

    # ------------------------------------------------------------------------------- serving

    async def present(self, node: NodeRecord, answer: NodeAnswer) -> None:
        """Return when the node serves the answer.

        Raises:
            Unreachable: It is not connected, or does not say so in time.
            Broken: It cannot.
        """
        connections = self.connections
        if connections is None or not connections.is_connected(node.node_id):
            raise Unreachable(f"node '{node.name}' is not connected, so it answers no challenge")
        key = node.node_id, answer.challenge
        waiting = self._waiting.get(key) or asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        try:
            await self._send(node.node_id, "answer-challenge", answer.challenge, _body(answer))
            async with asyncio.timeout(self._patience.total_seconds()):
                reason = await asyncio.shield(waiting)
        except TimeoutError:
            seconds = self._patience.total_seconds()
            raise Unreachable(
                f"node '{node.name}' did not answer a challenge within {seconds:g} s"
            ) from None
        finally:
            self._waiting.pop(key, None)
        if reason is not None:
            raise Broken(f"node '{node.name}' cannot answer a challenge: {reason}")

    async def withdraw(self, node_id: str, challenge: str) -> None:
        """Have the node serve it no more; one that is away learns it when it is back."""
        body = {"challenge": challenge}
        await self._send(node_id, "withdraw-challenge", challenge, body)

    async def nodes_for(
        self, name: str, *, patterns: PatternSet, communities: Sequence[str]
    ) -> Sequence[NodeRecord]:
        """Return the connected nodes that may answer for a name or address."""
        found = await self._finder.nodes_named_in(name, communities, MOST_NODES * 4)
        connections = self.connections
        return [
            node
            for node in found
            if patterns.covering(node.name) is not None
            and (not node.names or PatternSet.parse(node.names).covering(name) is not None)
            and connections is not None
            and connections.is_connected(node.node_id)
        ][:MOST_NODES]

    async def _send(
        self, node_id: str, kind: str, challenge: str, body: Mapping[str, object]
    ) -> None:
        message = NodeMessage(
            node_id=node_id, kind=kind, subject=f"challenge/{challenge}", body=body
        )
        await self._outbox.queue_messages([message])
        if self.connections is not None:
            self.connections.wake(node_id)


def _body(answer: NodeAnswer) -> dict[str, object]:
    return {
        "challenge": answer.challenge,
        "type": answer.type.value,
        "identifier": answer.identifier,
        "token": answer.token,
        "key_authorization": answer.key_authorization,
        "seconds": int(SERVED_FOR.total_seconds()),
    }


class ChallengeJourney(Protocol):
    """The way of an authorization as every client goes it."""

    async def read(self, account: AccountRecord, authorization_id: str) -> AuthorizationRecord: ...

    async def respond(
        self, account: AccountRecord, authorization_id: str, challenge_id: str
    ) -> AuthorizationRecord: ...


class NodeValidations:
    """Has a node prove the names of its own orders; implements ``managed_ports.NodeChallenges``."""

    def __init__(
        self,
        answers: NodeAnswers,
        journey: ChallengeJourney,
        *,
        offered: Callable[[OrderRecord], Sequence[ChallengeType]],
    ) -> None:
        """*offered* tells what policy lets a node answer for an order."""
        self._answers = answers
        self._journey = journey
        self._offered = offered

    async def prove(self, node: NodeRecord, account: AccountRecord, order: OrderRecord) -> None:
        """Have every open authorization of *order* answered; again does no harm.

        Raises:
            Unreachable: The node cannot be asked now, or the look at it takes long.
            Broken: The node cannot answer.
            Problem: It cannot be proved so.
        """
        offered = self._offered(order)
        for authorization_id in order.authorization_ids:
            found = await self._journey.read(account, authorization_id)
            if found.status is AuthorizationStatus.PENDING:
                await self._settle(node, account, found, offered)

    async def _settle(
        self,
        node: NodeRecord,
        account: AccountRecord,
        found: AuthorizationRecord,
        offered: Sequence[ChallengeType],
    ) -> None:
        challenge = _choose(found, offered)
        answer = NodeAnswer(
            challenge.type,
            found.identifier.value,
            challenge.token,
            key_authorization(challenge.token, account.thumbprint),
        )
        async with self._served(node, answer):
            await self._journey.respond(account, found.authorization_id, challenge.challenge_id)
            await self._await_end(account, found)

    async def _await_end(self, account: AccountRecord, found: AuthorizationRecord) -> None:
        rounds = int(LOOK_TIME.total_seconds() / LOOK_PAUSE_SECONDS)
        for _ in range(rounds):
            now = await self._journey.read(account, found.authorization_id)
            if now.status is not AuthorizationStatus.PENDING:
                return
            await asyncio.sleep(LOOK_PAUSE_SECONDS)
        raise Unreachable(
            f"challenge for '{found.identifier}' is not decided after {LOOK_TIME.seconds} s"
        )

    @contextlib.asynccontextmanager
    async def _served(self, node: NodeRecord, answer: NodeAnswer) -> AsyncIterator[None]:
        await self._answers.present(node, answer)
        try:
            yield
        finally:
            try:
                await self._answers.withdraw(node.node_id, answer.challenge)
            except (Unreachable, Broken) as error:
                # The node ends it by itself after a while.
                log.warning("challenge answer is not withdrawn", reason=error.reason)


def _choose(
    authorization: AuthorizationRecord, offered: Sequence[ChallengeType]
) -> ChallengeRecord:
    """Return the challenge that a node answers, the one that is under way before any other."""
    open_ones = [
        one
        for one in authorization.challenges
        if one.type in NODE_TYPES
        and one.type in offered
        and one.status in (ChallengeStatus.PROCESSING, ChallengeStatus.PENDING)
    ]
    if authorization.is_wildcard or not open_ones:
        raise Problem(
            ProblemType.UNAUTHORIZED,
            f"'{authorization.identifier}' cannot be proved on a node: none of "
            f"{', '.join(NODE_TYPES)} is offered for it",
        )
    order = {ChallengeStatus.PROCESSING: 0, ChallengeStatus.PENDING: 1}
    return min(open_ones, key=lambda one: (order[one.status], NODE_TYPES.index(one.type)))
