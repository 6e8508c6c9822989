"""How nodes are let in: each method turns what an agent shows into a node with an identity.

A node is a key.  Whoever asks proves to hold it, the method says what the node may be, the node CA
certifies the key, and node, account, identity and the spent token are kept in one transaction.
Refusals tell nobody which tokens or nodes exist; the event says more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from broker.issuance.absence import Absences
from broker.issuance.accounts import new_id
from broker.issuance.approvals import Approvals
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes
from broker.issuance.joining_ports import Asking, Grant, NodeWatch, Voucher
from broker.issuance.node_ports import (
    EnrolmentMethod,
    EnrolmentRequest,
    EnrolmentStore,
    IdentityIssuer,
    IssuedIdentity,
    NodeRecord,
    NodeStatus,
    NodeStore,
)
from broker.issuance.node_refusals import NodeRefusals
from broker.issuance.ports import AccountChangeStore, AccountStore, Clock, EventLog
from broker.issuance.records import AccountRecord
from broker.issuance.regranting import Regrants, is_same_pod, with_grant
from broker.policy.names import PatternSet
from broker.protocol.identity_keys import (
    IdentityKey,
    certified_key,
    parse_identity_request,
    parse_node_name,
)
from broker.protocol.problems import Problem, ProblemType, printable
from broker.protocol.resources import AccountStatus

__all__ = ["Joined", "Joining", "JoiningStore", "TokenVoucher", "not_let_in", "token_hash"]


class JoiningStore(
    NodeStore, NodeWatch, EnrolmentStore, AccountStore, AccountChangeStore, EventLog, Protocol
):
    """What joining reads and writes."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A node with an identity that it was given just now."""

    node: NodeRecord
    identity: IssuedIdentity


def token_hash(token: str) -> str:
    """Return what is kept of a join token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def not_let_in() -> Problem:
    """Return the one refusal there is, whatever was wrong with what the node showed."""
    return Problem(
        ProblemType.UNAUTHORIZED,
        "this node is not let in: its token or proof is unknown, spent, expired or for another",
    )


class TokenVoucher:
    """Believes a join token: once, in its time, for the nodes that it is for."""

    def __init__(self, store: EnrolmentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def vouch(self, asking: Asking) -> Grant:
        """Return what the token grants; it is spent when the node is kept."""
        token = await self._store.find_join_token(token_hash(asking.credential or ""))
        if token is None or token.used_at is not None or token.revoked_at is not None:
            raise not_let_in()
        if token.expires_at <= self._clock.now():
            raise not_let_in()
        pattern = token.node_pattern
        is_named = token.node == asking.node
        if not is_named and (pattern is None or not _covers(pattern, asking.node)):
            raise not_let_in()
        return Grant(
            community=token.community,
            names=token.names,
            profiles=token.profiles,
            owner=token.owner,
            contact=token.contact,
            token_id=token.token_id,
            is_for_node=is_named,
        )


class Joining:
    """Lets nodes in, and renews their identities."""

    def __init__(
        self,
        store: JoiningStore,
        issuer: IdentityIssuer,
        clock: Clock,
        *,
        vouchers: Mapping[EnrolmentMethod, Voucher],
        return_within: timedelta,
        freezes: Freezes | None = None,
        regrants: Regrants | None = None,
    ) -> None:
        self._regrants = regrants or Regrants()
        self._store = store
        self._freezes = freezes
        self._issuer = issuer
        self._clock = clock
        self._vouchers = dict(vouchers)
        self.absences = Absences(clock, return_within, freezes=freezes)
        self._approvals = Approvals(store, clock)
        self.refusals = NodeRefusals(store, clock)
        self.displace: Callable[[NodeRecord, Actor], Awaitable[object]] | None = None
        """Revokes a node whose place another takes."""
        self.on_outcome: Callable[[str, str], None] = lambda _method, _outcome: None
        """Told the method and what came of it."""

    # ------------------------------------------------------------------------------- enrolment

    async def enrol(self, asking: Asking) -> Joined | EnrolmentRequest:
        """Let a node in, or return its request that waits for a person.

        The same key showing the same again, because no answer reached it, is given an identity
        of the node that it is already.

        Raises:
            Problem: The node is not let in; tell the agent.
            Unreachable: It cannot be said now.
            Broken: The node CA or the method cannot work as configured.
        """
        try:
            outcome = await self._enrol(asking)
        except Problem as refusal:
            self.on_outcome(asking.method, "refused")
            await self._record_refusal(asking, refusal)
            raise
        except (Unreachable, Broken):
            self.on_outcome(asking.method, "failed")
            raise
        self.on_outcome(asking.method, "enrolled" if isinstance(outcome, Joined) else "waiting")
        return outcome

    async def _enrol(self, asking: Asking) -> Joined | EnrolmentRequest:
        key = parse_identity_request(asking.csr_der)
        if asking.method is EnrolmentMethod.FORMER:
            return await self._let_back(asking, key)
        again = await self._met_before(asking, key)
        if again is not None:
            return await self._renewed(again, key, EventKind.NODE_RETURNED)
        grant = await self._granted(asking, key)
        if isinstance(grant, EnrolmentRequest):
            return grant
        if self._freezes is not None:
            await self._freezes.verify_open(grant.community)
        asking = replace(asking, node=parse_node_name(grant.node or asking.node))
        holder = await self._store.find_node(asking.node)
        holder = holder if holder is not None and holder.name == asking.node else None
        if holder is not None and grant.token_id is None and holder.spki_sha256 == key.spki_sha256:
            return await self._renewed(with_grant(holder, grant), key, EventKind.NODE_RETURNED)
        await self._check_key(key)
        if holder is not None:
            await self._make_way(holder, asking, grant)
        joined = await self._add(asking, grant, key)
        if asking.method is EnrolmentMethod.APPROVAL:
            await self._approvals.note_node(key, joined.node)
        return joined

    async def _granted(self, asking: Asking, key: IdentityKey) -> Grant | EnrolmentRequest:
        if asking.method is EnrolmentMethod.APPROVAL:
            return await self._approvals.ask(asking, key)
        voucher = self._vouchers.get(asking.method)
        if voucher is None:
            raise Problem(ProblemType.UNAUTHORIZED, f"no node enrols by {asking.method} here")
        return await voucher.vouch(asking)

    async def _met_before(self, asking: Asking, key: IdentityKey) -> NodeRecord | None:
        """Return the node that this key has become already by the same token."""
        if asking.method is not EnrolmentMethod.TOKEN:
            return None
        token = await self._store.find_join_token(token_hash(asking.credential or ""))
        if token is None or token.used_by is None or token.revoked_at is not None:
            return None
        found = await self._store.find_node(token.used_by)
        if found is None or found.status is NodeStatus.REVOKED or found.name != asking.node:
            return None
        # A token that is spent proves nothing later: it only has its lost answer sent again.
        is_alive = found.identity_not_after > self._clock.now()
        return found if is_alive and found.spki_sha256 == key.spki_sha256 else None

    async def _make_way(self, holder: NodeRecord, asking: Asking, grant: Grant) -> None:
        """Revoke the node that has the name: of the same pod come anew, or away for too long."""
        is_alike = holder.method is asking.method and holder.community == grant.community
        is_anew = grant.takes_over and is_alike and is_same_pod(holder, grant)
        is_free = await self.absences.is_free_for(holder, grant, is_anew=is_anew)
        if self.displace is None or not is_free:
            raise not_let_in()
        try:
            await self.displace(holder, Actor(f"node:{holder.name}", "another took its place"))
        except Conflict as lost:
            raise not_let_in() from lost

    async def _check_key(self, key: IdentityKey) -> None:
        """See that the key is nobody's yet: one key has one purpose, and the revoked stay out."""
        is_account_key = await self._store.is_account_key(key.jwk.thumbprint)
        is_reserved = await self._store.is_reserved_key(
            thumbprint=key.jwk.thumbprint, spki_sha256=key.spki_sha256
        )
        if is_account_key or is_reserved:
            raise Problem(
                ProblemType.UNAUTHORIZED,
                "this identity key has been used before, make a new one and ask again",
            )

    async def _add(self, asking: Asking, grant: Grant, key: IdentityKey) -> Joined:
        now, node_id, account_id = self._clock.now(), new_id(), new_id()
        identity = await self._issue(node_id, key)
        account = _account(account_id, grant.community, key, now)
        node = NodeRecord(
            node_id=node_id,
            name=asking.node,
            community=grant.community,
            status=NodeStatus.ACTIVE,
            account_id=account_id,
            method=asking.method,
            names=grant.names,
            profiles=grant.profiles,
            owner=grant.owner,
            contact=grant.contact,
            spki_sha256=key.spki_sha256,
            fingerprint=identity.fingerprint,
            identity_not_after=identity.not_after,
            enrolled_at=now,
            seen_at=now,
            agent_version=asking.agent_version,
            wire_version=asking.wire_version,
            namespace=grant.namespace,
            service_account=grant.service_account,
            cluster=grant.cluster,
            pod=grant.pod,
            pod_uid=grant.pod_uid,
            upstreams=grant.upstreams,
        )
        event = _event(EventKind.NODE_ENROLLED, node, self._clock, peer=asking.peer)
        try:
            kept = await self._store.add_node(
                node, identity, event, token_id=grant.token_id, account=account
            )
        except Conflict as lost:
            # It is on no record, so nobody believes it; on the list it is seen to be so.
            with suppress(Refused, Unreachable, Broken):
                await self._issuer.revoke(identity.certificate_der)
            raise not_let_in() from lost
        return Joined(kept, identity)

    # -------------------------------------------------------------------------------- return

    async def _let_back(self, asking: Asking, key: IdentityKey) -> Joined:
        """Let a node back whose identity has ended, by the key of that identity."""
        found = await self._store.find_identity(asking.former or "")
        node = None if found is None else await self._store.find_node(found.node_id)
        if found is None or node is None or found.revoked_at is not None:
            raise not_let_in()
        is_known = node.name == asking.node and node.status is not NodeStatus.REVOKED
        # A key that the node has given up proves nothing any more.
        is_current = certified_key(found.certificate_der) == node.spki_sha256
        if not is_known or not is_current or self.absences.is_late(node):
            raise not_let_in()
        node = await self._regrants.renewed(node)
        return await self._renewed(node, key, EventKind.NODE_RETURNED)

    # ------------------------------------------------------------------------------- renewal

    async def renew(self, node: NodeRecord, csr_der: bytes) -> Joined:
        """Give a node that has shown its identity another one, for the same key or a new one.

        Raises:
            Problem: The request is unfit, its key is another's, or its cluster's rules have no
                such node any more.
            Unreachable: The node CA cannot sign now.
            Broken: It cannot work as configured.
        """
        key = parse_identity_request(csr_der)
        node = await self._regrants.renewed(node)
        return await self._renewed(node, key, EventKind.NODE_RENEWED)

    async def _renewed(self, node: NodeRecord, key: IdentityKey, kind: EventKind) -> Joined:
        is_new_key = key.spki_sha256 != node.spki_sha256
        if is_new_key:
            await self._check_key(key)
        identity = await self._issue(node.node_id, key)
        changed = replace(
            node,
            spki_sha256=key.spki_sha256,
            fingerprint=identity.fingerprint,
            identity_not_after=identity.not_after,
        )
        event = _event(kind, changed, self._clock, is_new_key=is_new_key)
        if is_new_key:
            await self._change_account_key(changed, key, event)
        try:
            await self._store.change_node(
                changed,
                expected=(NodeStatus.ACTIVE, NodeStatus.DRAINED),
                events=(event,),
                identity=identity,
            )
        except Conflict as lost:
            raise not_let_in() from lost
        return Joined(changed, identity)

    async def _change_account_key(self, node: NodeRecord, key: IdentityKey, event: Event) -> None:
        account = await self._store.find_account(node.account_id)
        if account is None or account.thumbprint == key.jwk.thumbprint:
            return
        changed = replace(event, kind=EventKind.ACCOUNT_KEY_CHANGED)
        try:
            await self._store.change_account_key(
                account.account_id,
                expected=account.thumbprint,
                jwk_json=key.jwk.canonical,
                thumbprint=key.jwk.thumbprint,
                event=changed,
            )
        except Conflict as lost:
            raise not_let_in() from lost

    async def _issue(self, node_id: str, key: IdentityKey) -> IssuedIdentity:
        try:
            return await self._issuer.issue(node_id, key.spki_der, new_id())
        except Refused as refusal:
            raise Broken(f"node CA refuses an identity: {refusal.problem.detail}") from refusal

    # ------------------------------------------------------------------------------- what is told

    async def _record_refusal(self, asking: Asking, refusal: Problem) -> None:
        data = {
            "method": asking.method.value,
            "node": printable(asking.node, 100),
            "peer": asking.peer,
            "reason": refusal.detail,
        }
        await self.refusals.record(
            EventKind.ENROLMENT_REFUSED, asking.peer or "", data, actor=Actor("anonymous")
        )


def _account(account_id: str, community: str, key: IdentityKey, now: datetime) -> AccountRecord:
    """Return the account that a node's certificates are ordered under."""
    return AccountRecord(
        account_id=account_id,
        community=community,
        status=AccountStatus.VALID,
        jwk_json=key.jwk.canonical,
        thumbprint=key.jwk.thumbprint,
        contacts=(),
        terms_agreed=True,
        eab_key_id=None,
        created_at=now,
    )


def _covers(pattern: str, node: str) -> bool:
    try:
        return PatternSet.parse((pattern,)).covering(parse_node_name(node)) is not None
    except Problem:
        return False


def _event(kind: EventKind, node: NodeRecord, clock: Clock, **more: object) -> Event:
    return Event(
        kind=kind,
        at=clock.now(),
        actor=Actor(f"node:{node.name}"),
        community=node.community,
        account_id=node.account_id,
        data={
            "node_id": node.node_id,
            "node": node.name,
            "method": node.method.value,
            "fingerprint": node.fingerprint,
            **more,
        },
    )
