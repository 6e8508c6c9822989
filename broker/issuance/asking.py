"""The beginning of a delivery: policy is asked, then the node for a key and a CSR.

Asking policy first costs nobody anything: a node that wants another's name is refused before it
makes a key, and before any CA hears of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from broker.issuance.accounts import new_id
from broker.issuance.approval_passing import passed
from broker.issuance.delivery_ends import DeliveryEnds
from broker.issuance.delivery_rooms import (
    Workrooms,
    deliver_job,
    delivery_event,
    message_about,
    names_of,
)
from broker.issuance.delivery_stages import DeliveryEvent, advance_delivery, first_stage
from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.freezes import verify_unfrozen
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryView,
    ManagedRecord,
    NodeMessage,
    NodeRecord,
    NodeStatus,
)
from broker.issuance.records import AccountRecord
from broker.issuance.renewal_times import late_at
from broker.policy.decisions import Requirement
from broker.policy.form import NodeKey
from broker.protocol.csr import ParsedCsr, parse_csr, verify_csr_names
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import MAX_IDENTIFIERS
from broker.protocol.resources import AccountStatus

__all__ = ["Asking"]

COMPELLING: frozenset[str] = frozenset({"incident", "revoked", "changed"})
"""Reasons for which an open delivery is given up: what it would bring is wrong or not enough."""

NEW_KEY: frozenset[str] = frozenset({"incident", "revoked"})
"""Reasons for which no key is kept, whatever policy says."""


class Asking:
    """Begins deliveries, and takes what nodes answer."""

    def __init__(self, rooms: Workrooms, ends: DeliveryEnds) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._ends = ends

    # ------------------------------------------------------------------------------ beginning

    async def begin(
        self,
        managed_id: str,
        *,
        reason: str,
        incident_id: str | None = None,
        actor: Actor = SYSTEM,
    ) -> str:
        """Begin a delivery and return its id; one that is open already is gone on with.

        Raises:
            Problem: The node is not served, or policy does not let it have the certificate now.
        """
        managed = await self._store.find_managed(managed_id)
        node = None if managed is None else await self._store.find_node(managed.node_id)
        if managed is None or node is None:
            raise Problem(ProblemType.MALFORMED, f"no certificate {managed_id} at any node")
        going = await self._store.open_delivery(managed_id)
        if going is not None and _goes_on(going, reason, incident_id):
            return going.delivery_id
        await self.verify_allowed(managed, node)
        try:
            view = self._begun(managed, node, reason, incident_id)
            return await self._keep(view, going, actor)
        except Conflict:
            going = await self._store.open_delivery(managed_id)
            if going is None:
                raise
            return going.delivery_id

    async def verify_allowed(self, managed: ManagedRecord, node: NodeRecord) -> AccountRecord:
        """Return the account that the certificate would be ordered under, if policy has it so.

        Raises:
            Problem: It cannot be had, by this node or now.
        """
        if not managed.is_wanted:
            raise Problem(ProblemType.MALFORMED, "the node does not want this certificate any more")
        names = managed.identifiers
        if not 0 < len(names) <= MAX_IDENTIFIERS or len(set(names)) != len(names):
            raise Problem(
                ProblemType.MALFORMED,
                f"{len(names)} names, expected 1 to {MAX_IDENTIFIERS} that differ",
            )
        if node.status is not NodeStatus.ACTIVE:
            raise Problem(ProblemType.UNAUTHORIZED, f"node '{node.name}' is {node.status}")
        account = await self._store.find_account(node.account_id)
        if account is None or account.status is not AccountStatus.VALID:
            raise Problem(ProblemType.UNAUTHORIZED, f"account of node '{node.name}' is closed")
        await verify_unfrozen(self._rooms.freezes, account, "delivery")
        facts = await self._rooms.planner.facts(
            account,
            identifiers=managed.identifiers,
            profile=managed.profile,
            not_before=None,
            not_after=None,
        )
        decision = self._rooms.planner.decide(facts)
        if decision.is_refused or decision.plan is None:
            raise decision.problem()
        await passed(self._rooms.approvals, account, decision, facts, self._rooms.planner)
        self._verify_provable(managed, decision.requirements)
        allowed = decision.key_kinds
        if managed.key_kind not in allowed:
            kinds = ", ".join(allowed)
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY, f"key kind {managed.key_kind} is none of {kinds}"
            )
        return account

    def _verify_provable(
        self, managed: ManagedRecord, requirements: Mapping[Identifier, Requirement]
    ) -> None:
        """See that every name is granted, or can be proved at the node; raises Problem."""
        ours = set(self._rooms.on_nodes(managed).challenges)
        for identifier, needed in requirements.items():
            if needed.granted_by is not None:
                continue
            if self._rooms.challenges is None or not ours & set(needed.challenges):
                raise Problem(
                    ProblemType.UNAUTHORIZED,
                    f"name {identifier} has to be proved, and the policy has no challenge for it"
                    " under 'on_nodes'",
                )

    def _begun(
        self, managed: ManagedRecord, node: NodeRecord, reason: str, incident_id: str | None
    ) -> DeliveryView:
        now = self._rooms.clock.now()
        is_new_key = self._is_new_key(managed, reason)
        mode = self._rooms.on_nodes(managed).key
        changed = replace(
            managed,
            generation=managed.generation + 1,
            next_at=None,
            due_since=managed.due_since or now,
        )
        delivery = DeliveryRecord(
            delivery_id=new_id(),
            managed_id=managed.managed_id,
            node_id=managed.node_id,
            community=managed.community,
            rollout_group=None,
            generation=changed.generation,
            stage=first_stage(has_csr=mode is NodeKey.CSR and not is_new_key and _fits(managed)),
            reason=reason,
            incident_id=incident_id,
            replaces=managed.certificate_id,
            order_id=None,
            certificate_id=None,
            note=None,
            begun_at=now,
        )
        return DeliveryView(delivery=delivery, managed=changed, node=node)

    def _is_new_key(self, managed: ManagedRecord, reason: str) -> bool:
        return self._rooms.on_nodes(managed).key is NodeKey.NEW or reason in NEW_KEY

    def question(self, view: DeliveryView) -> NodeMessage:
        """Return what the node is asked; it may be asked again, and answers the same."""
        is_new_key = self._is_new_key(view.managed, view.delivery.reason)
        return _question(view.managed, view.delivery, is_new_key=is_new_key)

    async def _keep(self, view: DeliveryView, going: DeliveryRecord | None, actor: Actor) -> str:
        delivery, changed, now = view.delivery, view.managed, self._rooms.clock.now()
        has_csr = delivery.stage is not DeliveryStage.ASKED
        reason = delivery.reason
        job = deliver_job(delivery.delivery_id, now if has_csr else late_at(changed) or now)
        begun = delivery_event(
            EventKind.DELIVERY_BEGUN, view, delivery, now, actor=actor, reason=reason
        )
        await self._store.begin_delivery(
            delivery,
            changed,
            events=(begun, *_superseding(view, going, now)),
            jobs=(job,),
            messages=() if has_csr else (self.question(view),),
        )
        if going is not None:
            # It has ended in the same transaction, and its rollout has to hear of that.
            self._rooms.dispatcher.kick(deliver_job(going.delivery_id, now))
        if has_csr:
            self._rooms.dispatcher.kick(job)
        else:
            self._rooms.connections.wake(view.node.node_id)
        return delivery.delivery_id

    # ------------------------------------------------------------------------------- answering

    async def offered(self, node: NodeRecord, delivery_id: str, csr_der: bytes) -> None:
        """Take the CSR of a node; the same one again changes nothing.

        Raises:
            Problem: It is no delivery of this node, or the CSR is not what was asked for; then
                the delivery has failed.
        """
        view = await self.find(node, delivery_id)
        if view.delivery.stage is not DeliveryStage.ASKED:
            if view.managed.csr_der == csr_der or view.delivery.stage.is_end:
                return
            raise Problem(ProblemType.BAD_CSR, "this delivery has another CSR already")
        try:
            self._verify(view, csr_der)
        except Problem as problem:
            with contextlib.suppress(Conflict):  # it has ended meanwhile
                await self._ends.fail(view, DeliveryEvent.NODE_UNABLE, f"bad CSR: {problem.detail}")
            raise
        now = self._rooms.clock.now()
        moved = replace(
            view.delivery,
            stage=advance_delivery(view.delivery.stage, DeliveryEvent.CSR_OFFERED),
            note=None,
        )
        job = deliver_job(delivery_id, now)
        try:
            await self._store.change_delivery(
                moved,
                expected=(DeliveryStage.ASKED,),
                events=(delivery_event(EventKind.DELIVERY_MOVED, view, moved, now),),
                managed=replace(view.managed, csr_der=csr_der),
                jobs=(job,),
            )
        except Conflict:
            await self.offered(node, delivery_id, csr_der)
            return
        self._rooms.dispatcher.kick(job)

    async def unable(
        self, node: NodeRecord, delivery_id: str, reason: str, *, is_final: bool
    ) -> None:
        """Note that a node cannot make its CSR, now or at all."""
        view = await self.find(node, delivery_id)
        if view.delivery.stage is not DeliveryStage.ASKED:
            return
        if is_final:
            with contextlib.suppress(Conflict):  # it has gone on meanwhile
                await self._ends.fail(view, DeliveryEvent.NODE_UNABLE, f"the node says: {reason}")
            return
        noted = replace(view.delivery, note=f"the node says: {reason}")
        with contextlib.suppress(Conflict):  # it has gone on meanwhile
            await self._store.change_delivery(noted, expected=(DeliveryStage.ASKED,), events=())

    async def find(self, node: NodeRecord, delivery_id: str) -> DeliveryView:
        """Return a delivery of this node; another's does not exist for it."""
        view = await self._store.find_delivery(delivery_id)
        if view is None or view.delivery.node_id != node.node_id:
            raise Problem(ProblemType.MALFORMED, "no such delivery here", status=404)
        return view

    def _verify(self, view: DeliveryView, csr_der: bytes) -> ParsedCsr:
        csr = verify_csr_names(parse_csr(csr_der), view.managed.identifiers)
        if csr.spki_sha256 == view.node.spki_sha256:
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY, "the CSR is for the key of the node's identity"
            )
        if csr.key_kind != view.managed.key_kind:
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY,
                f"the CSR has a key {csr.key_kind}, the node states {view.managed.key_kind}",
            )
        return csr


def _goes_on(going: DeliveryRecord, reason: str, incident_id: str | None) -> bool:
    """Return whether the open delivery does what is asked for."""
    if incident_id is not None:
        return going.incident_id == incident_id
    return reason not in COMPELLING


def _fits(managed: ManagedRecord) -> bool:
    """Return whether the CSR that was kept still asks for what is wanted."""
    if managed.csr_der is None:
        return False
    try:
        csr = verify_csr_names(parse_csr(managed.csr_der), managed.identifiers)
    except Problem:
        return False
    return csr.key_kind == managed.key_kind


def _superseding(
    view: DeliveryView, going: DeliveryRecord | None, now: datetime
) -> Sequence[Event]:
    """Return what is told of the delivery that the new one takes the place of."""
    if going is None:
        return ()
    ended = replace(going, stage=advance_delivery(going.stage, DeliveryEvent.SUPERSEDED))
    by = view.delivery.delivery_id
    return (delivery_event(EventKind.DELIVERY_SUPERSEDED, view, ended, now, by=by),)


def _question(managed: ManagedRecord, delivery: DeliveryRecord, *, is_new_key: bool) -> NodeMessage:
    return message_about(
        managed,
        "want-csr",
        {
            "delivery": delivery.delivery_id,
            "names": names_of(managed),
            "key_kind": managed.key_kind,
            "is_new_key": is_new_key,
        },
    )
