"""What operators do with nodes: tokens to join by, requests to decide, and nodes themselves."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

from broker.issuance.absence import Absences
from broker.issuance.errors import Broken, Refused
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.joining import JoiningStore, token_hash
from broker.issuance.node_ports import (
    Connections,
    EnrolmentRequest,
    IdentityIssuer,
    JoinToken,
    NodeRecord,
    NodeStatus,
    RequestStatus,
)
from broker.issuance.ports import Clock
from broker.issuance.records import AccountRecord
from broker.policy.names import PatternSet
from broker.protocol.identity_keys import parse_node_name
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AccountStatus

__all__ = ["DEFAULT_TOKEN_LIFETIME", "Approval", "NodeAccounts", "Nodes", "TokenWish"]

DEFAULT_TOKEN_LIFETIME: Final = timedelta(hours=24)
"""How long a join token is good where nothing is said: a day's work of setting hosts up."""

MAX_TOKEN_LIFETIME: Final = timedelta(days=90)
"""Longest lifetime of a join token: images that carry one are made anew by then."""

TOKEN_BYTES: Final = 32
"""Length of a join token, in random bytes: nobody guesses one."""

REMEMBERED: Final = timedelta(days=400)
"""How long identities, tokens and requests are remembered after their end: longer than anybody asks
about an incident, and than a node may be away."""

TIDY_EVERY: Final = timedelta(hours=1)
"""How often it is looked for what can be forgotten."""

MAX_FORGOTTEN: Final = 10_000
"""Most identities that are forgotten at once, so that no write takes long."""

MAX_PATTERNS: Final = 100
"""Most patterns of names that a token or an approval grants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What a token is to grant."""

    community: str
    node: str | None = None
    node_pattern: str | None = None
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    owner: str = ""
    contact: str = ""
    lifetime: timedelta = DEFAULT_TOKEN_LIFETIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What a request is granted."""

    community: str
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    owner: str = ""
    contact: str = ""


class NodeAccounts(Protocol):
    """Closes the account of a node."""

    async def deactivate(self, account: AccountRecord, actor: Actor) -> AccountRecord: ...


class Nodes:
    """Tokens, requests and nodes, as operators see them."""

    def __init__(
        self,
        store: JoiningStore,
        issuer: IdentityIssuer,
        connections: Connections,
        clock: Clock,
        *,
        accounts: NodeAccounts,
        absences: Absences,
        communities: tuple[str, ...],
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._connections = connections
        self._clock = clock
        self._accounts = accounts
        self._absences = absences
        self._communities = communities
        self._tidy_at = clock.now()

    # ---------------------------------------------------------------------------------- tokens

    async def mint_token(self, wish: TokenWish, actor: Actor) -> tuple[JoinToken, str]:
        """Make a join token; the text is in this answer and nowhere else.

        Raises:
            Problem: malformed, for what no token can grant.
        """
        self._check_grant(wish.community, wish.names)
        if (wish.node is None) == (wish.node_pattern is None):
            raise _malformed("a token is for one node or for a pattern of names, give one of both")
        if wish.node is not None:
            parse_node_name(wish.node)
        _check_patterns([wish.node_pattern] if wish.node_pattern is not None else [])
        if not timedelta(0) < wish.lifetime <= MAX_TOKEN_LIFETIME:
            limit = MAX_TOKEN_LIFETIME.days
            raise _malformed(f"a token's lifetime is above 0 and at most {limit} days")
        now, text = self._clock.now(), _draw_token()
        token = JoinToken(
            token_id=f"join-{secrets.token_hex(8)}",
            token_sha256=token_hash(text),
            node=wish.node,
            node_pattern=wish.node_pattern,
            community=wish.community,
            names=wish.names,
            profiles=wish.profiles,
            owner=wish.owner,
            contact=wish.contact,
            created_at=now,
            expires_at=now + wish.lifetime,
        )
        event = Event(
            kind=EventKind.JOIN_TOKEN_MINTED,
            at=now,
            actor=actor,
            community=token.community,
            data={
                "token_id": token.token_id,
                "node": token.node or token.node_pattern,
                "names": list(token.names),
                "expires": token.expires_at.isoformat(),
            },
        )
        await self._store.add_join_token(token, event)
        return token, text

    async def list_tokens(self) -> Sequence[JoinToken]:
        """Return all tokens, newest first."""
        return await self._store.list_join_tokens()

    async def revoke_token(self, token_id: str, actor: Actor) -> JoinToken:
        """Revoke a token; raises Conflict when it is unknown or spent."""
        now = self._clock.now()
        event = Event(
            kind=EventKind.JOIN_TOKEN_REVOKED, at=now, actor=actor, data={"token_id": token_id}
        )
        return await self._store.revoke_join_token(token_id, now, event)

    # -------------------------------------------------------------------------------- requests

    async def list_requests(self) -> Sequence[EnrolmentRequest]:
        """Return requests, newest first."""
        return await self._store.list_requests()

    async def approve(self, request_id: str, approval: Approval, actor: Actor) -> EnrolmentRequest:
        """Let the node of a request in: its agent is told when it asks next.  It may have the
        name of one that was away for too long to come back, whose place it takes then.

        Raises:
            Problem: There is no such request, or it cannot be granted this.
            Conflict: It was decided already.
        """
        request = await self._request(request_id)
        self._check_grant(approval.community, approval.names)
        taken = await self._store.find_node(request.node)
        if taken is not None:
            why = await self._absences.why_kept(taken, approval.community)
            if why is not None:
                raise _malformed(f"node name '{request.node}' is {why}; revoke it first")
        decided = replace(
            request,
            status=RequestStatus.APPROVED,
            community=approval.community,
            names=approval.names,
            profiles=approval.profiles,
            owner=approval.owner,
            contact=approval.contact,
        )
        return await self._decide(decided, EventKind.ENROLMENT_APPROVED, actor)

    async def deny(self, request_id: str, actor: Actor) -> EnrolmentRequest:
        """Refuse a request."""
        request = replace(await self._request(request_id), status=RequestStatus.DENIED)
        return await self._decide(request, EventKind.ENROLMENT_DENIED, actor)

    async def _request(self, request_id: str) -> EnrolmentRequest:
        found = await self._store.find_request(request_id)
        if found is None:
            raise _malformed(f"there is no request '{request_id}'")
        return found

    async def _decide(
        self, request: EnrolmentRequest, kind: EventKind, actor: Actor
    ) -> EnrolmentRequest:
        now = self._clock.now()
        decided = replace(request, decided_by=actor.name, decided_at=now)
        event = Event(
            kind=kind,
            at=now,
            actor=actor,
            community=decided.community,
            data={
                "request_id": decided.request_id,
                "node": decided.node,
                "spki_sha256": decided.spki_sha256,
            },
        )
        await self._store.change_request(decided, expected=RequestStatus.WAITING, event=event)
        return decided

    # ----------------------------------------------------------------------------------- nodes

    async def list(
        self, *, status: NodeStatus | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[NodeRecord]:
        """Return nodes by name."""
        return await self._store.list_nodes(status=status, after=after, limit=limit)

    async def find(self, reference: str) -> NodeRecord:
        """Return the node of that id or name; raises Problem when there is none."""
        found = await self._store.find_node(reference)
        if found is None:
            raise _malformed(f"there is no node '{reference}'")
        return found

    def is_connected(self, node_id: str) -> bool:
        """Return whether the node has a connection to this broker now."""
        return self._connections.is_connected(node_id)

    async def drain(self, reference: str, actor: Actor) -> NodeRecord:
        """Tell a node nothing new; it keeps what it has and its channel."""
        node = await self.find(reference)
        if node.status is NodeStatus.DRAINED:
            return node
        return await self._change(node, NodeStatus.DRAINED, EventKind.NODE_DRAINED, actor)

    async def resume(self, reference: str, actor: Actor) -> NodeRecord:
        """Serve a drained node again."""
        node = await self.find(reference)
        if node.status is NodeStatus.ACTIVE:
            return node
        return await self._change(node, NodeStatus.ACTIVE, EventKind.NODE_RESUMED, actor)

    async def revoke(self, reference: str, actor: Actor) -> NodeRecord:
        """Make a node a stranger for good: its channel ends at once, its account is closed, its
        identities are on the node CA's list, its name is free.

        Asking again finishes what could not be done the first time.

        Raises:
            Problem: There is no such node.
            Unreachable: It is revoked here, and the node CA's list could not be signed now.
        """
        return await self.end(await self.find(reference), actor)

    async def end(self, node: NodeRecord, actor: Actor) -> NodeRecord:
        """Revoke this node; see `revoke`."""
        identities = await self._store.identities_of(node.node_id)
        revoked = await self.retire(node, actor)
        for certificate_der in identities:
            with suppress(Refused, Broken):
                await self._issuer.revoke(certificate_der)
        return revoked

    async def retire(self, node: NodeRecord, actor: Actor) -> NodeRecord:
        """Make this node a stranger, leaving the node CA's list as it is: for identities that have
        ended by themselves."""
        revoked = node
        if node.status is not NodeStatus.REVOKED:
            revoked = await self._change(node, NodeStatus.REVOKED, EventKind.NODE_REVOKED, actor)
        self._connections.drop(node.node_id)
        account = await self._store.find_account(node.account_id)
        if account is not None and account.status is AccountStatus.VALID:
            with suppress(Problem):
                await self._accounts.deactivate(account, actor)
        return revoked

    async def tidy(self) -> None:
        """Forget identities, tokens and requests that ended long ago, a part at a time."""
        now = self._clock.now()
        if now < self._tidy_at:
            return
        forgotten = await self._store.forget_ended(now - REMEMBERED, MAX_FORGOTTEN)
        self._tidy_at = now if forgotten == MAX_FORGOTTEN else now + TIDY_EVERY

    async def _change(
        self, node: NodeRecord, status: NodeStatus, kind: EventKind, actor: Actor
    ) -> NodeRecord:
        changed = replace(node, status=status)
        event = Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=node.community,
            account_id=node.account_id,
            data={"node_id": node.node_id, "node": node.name},
        )
        await self._store.change_node(
            changed, expected=(NodeStatus.ACTIVE, NodeStatus.DRAINED), events=(event,)
        )
        return changed

    def _check_grant(self, community: str, names: Sequence[str]) -> None:
        if community not in self._communities:
            known = ", ".join(self._communities)
            raise _malformed(f"no community is called '{community}', there is {known}")
        if len(names) > MAX_PATTERNS:
            raise _malformed(f"{len(names)} name patterns, at most {MAX_PATTERNS}")
        _check_patterns(names)


def _draw_token() -> str:
    """Return a token that can be typed behind an option: none begins with a dash."""
    return f"pnst_{secrets.token_urlsafe(TOKEN_BYTES)}"


def _check_patterns(patterns: Sequence[str]) -> None:
    try:
        PatternSet.parse(patterns)
    except ValueError as fault:
        raise _malformed(str(fault)) from fault


def _malformed(detail: str) -> Problem:
    return Problem(ProblemType.MALFORMED, detail)
