"""The part of the desk about nodes: tokens, requests, and the nodes themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.issuance.events import Actor
from broker.issuance.node_ports import EnrolmentRequest, JoinToken, NodeRecord, NodeStatus
from broker.issuance.nodes import DEFAULT_TOKEN_LIFETIME, Approval, Nodes, TokenWish
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.units import parse_duration
from broker.web.operator import OperationError

__all__ = ["NodeDesk"]


class NodeDesk(Desk):
    """Commands about nodes."""

    @property
    def _nodes(self) -> Nodes:
        if self._rooms.nodes is None:
            raise OperationError(
                "this broker serves no nodes", "add agents to its configuration, see docs/agents.md"
            )
        return self._rooms.nodes

    # ---------------------------------------------------------------------------------- tokens

    async def node_token(
        self,
        *,
        actor: Actor,
        node: str | None = None,
        nodes: str | None = None,
        community: str = "default",
        names: Sequence[str] | None = None,
        profiles: Sequence[str] | None = None,
        owner: str = "",
        contact: str = "",
        expires_in: str | None = None,
    ) -> Any:
        """Make a join token; it is in this answer and in no other."""
        try:
            lifetime = DEFAULT_TOKEN_LIFETIME if expires_in is None else parse_duration(expires_in)
        except ValueError as error:
            raise OperationError(str(error)) from error
        self._check_profiles(community, profiles or ())
        wish = TokenWish(
            community=community,
            node=node,
            node_pattern=nodes,
            names=tuple(names or ()),
            profiles=tuple(profiles or ()),
            owner=owner,
            contact=contact,
            lifetime=lifetime,
        )
        token, text = await self._nodes.mint_token(wish, actor)
        return {**_token_view(token), "token": text}

    async def node_tokens(self) -> Any:
        """Return all tokens, without their text."""
        return [_token_view(one) for one in await self._nodes.list_tokens()]

    async def node_token_revoke(self, *, actor: Actor, token_id: str) -> Any:
        """Revoke a token."""
        return _token_view(await self._nodes.revoke_token(token_id, actor))

    # -------------------------------------------------------------------------------- requests

    async def node_requests(self) -> Any:
        """Return requests, newest first."""
        return [_request_view(one) for one in await self._nodes.list_requests()]

    async def node_approve(
        self,
        *,
        actor: Actor,
        request_id: str,
        community: str = "default",
        names: Sequence[str] | None = None,
        profiles: Sequence[str] | None = None,
        owner: str = "",
        contact: str = "",
    ) -> Any:
        """Let the node of a request in."""
        self._check_profiles(community, profiles or ())
        approval = Approval(
            community=community,
            names=tuple(names or ()),
            profiles=tuple(profiles or ()),
            owner=owner,
            contact=contact,
        )
        return _request_view(await self._nodes.approve(request_id, approval, actor))

    async def node_deny(self, *, actor: Actor, request_id: str) -> Any:
        """Refuse a request."""
        return _request_view(await self._nodes.deny(request_id, actor))

    # ----------------------------------------------------------------------------------- nodes

    async def node_list(
        self, *, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> Any:
        """Return nodes by name."""
        if status is not None and status not in set(NodeStatus):
            raise OperationError(f"'{status}' is no status", f"one of {', '.join(NodeStatus)}")
        found = await self._nodes.list(
            status=None if status is None else NodeStatus(status),
            after=after,
            limit=max(1, min(limit, 1000)),
        )
        return [self._node_view(one) for one in found]

    async def node_show(self, *, node: str) -> Any:
        """Return a node."""
        return self._node_view(await self._nodes.find(node))

    async def node_drain(self, *, actor: Actor, node: str) -> Any:
        """Tell a node nothing new."""
        return self._node_view(await self._nodes.drain(node, actor))

    async def node_resume(self, *, actor: Actor, node: str) -> Any:
        """Serve a drained node again."""
        return self._node_view(await self._nodes.resume(node, actor))

    async def node_revoke(self, *, actor: Actor, node: str) -> Any:
        """Make a node a stranger for good."""
        return self._node_view(await self._nodes.revoke(node, actor))

    def _node_view(self, node: NodeRecord) -> View:
        is_connected = self._nodes.is_connected(node.node_id)
        shown: View = {
            "node": node.name,
            "node_id": node.node_id,
            "community": node.community,
            "status": node.status.value,
            "connected": is_connected,
            "seen": time_view(self._rooms.clock.now() if is_connected else node.seen_at),
            "owner": node.owner,
            "contact": node.contact,
            "owner_by": "own" if node.owner else "",
            "names": list(node.names),
            "profiles": list(node.profiles),
            "upstreams": None if node.upstreams is None else list(node.upstreams),
            "method": node.method.value,
            "cluster": node.cluster,
            "namespace": node.namespace,
            "service_account": node.service_account,
            "pod": node.pod,
            "account": node.account_id,
            "enrolled": time_view(node.enrolled_at),
            "identity_ends": time_view(node.identity_not_after),
            "fingerprint": node.fingerprint,
            "agent_version": node.agent_version,
            "wire_version": node.wire_version,
            "acknowledged": node.acknowledged,
        }
        return self._answered_for(shown)

    def _check_profiles(self, community: str, profiles: Sequence[str]) -> None:
        self._check_community(community)
        offered = self._rooms.policies.current(community).profiles
        for profile in profiles:
            if profile not in offered:
                raise OperationError(
                    f"community '{community}' has no profile '{profile}'",
                    f"it has {', '.join(offered)}",
                )


def _token_view(token: JoinToken) -> View:
    return {
        "token_id": token.token_id,
        "for": token.node or token.node_pattern,
        "community": token.community,
        "names": list(token.names),
        "profiles": list(token.profiles),
        "owner": token.owner,
        "contact": token.contact,
        "created": time_view(token.created_at),
        "expires": time_view(token.expires_at),
        "used": time_view(token.used_at),
        "used_by": token.used_by,
        "revoked": time_view(token.revoked_at),
    }


def _request_view(request: EnrolmentRequest) -> View:
    return {
        "request": request.request_id,
        "node": request.node,
        "key": request.spki_sha256,
        "status": request.status.value,
        "created": time_view(request.created_at),
        "expires": time_view(request.expires_at),
        "facts": dict(request.facts),
        "community": request.community,
        "names": list(request.names),
        "owner": request.owner,
        "contact": request.contact,
        "decided_by": request.decided_by,
        "decided": time_view(request.decided_at),
        "node_id": request.node_id,
    }
