"""The part of the desk about renewals at nodes, and about clients that do not renew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from broker.issuance.deliveries import Deliveries
from broker.issuance.delivery_stages import AT_NODE
from broker.issuance.events import Actor
from broker.issuance.managed_ports import DeliveryRooms
from broker.issuance.node_ports import (
    DeliveryRecord,
    DeliveryStage,
    DeliveryView,
    ManagedRecord,
    NodeStatus,
    Unmanaged,
)
from broker.operations.rooms import Desk
from broker.operations.views import View, event_view, time_view
from broker.policy.node_names import node_patterns
from broker.protocol.problems import Problem
from broker.web.operator import OperationError

__all__ = ["DeliveryDesk"]

KINDS: Final = ("due", "held", "not-seen", "not-renewed")
"""What can be listed."""

MAX_ROWS: Final = 1000
"""Most rows of one list."""

MAX_RENEWED: Final = 10_000
"""Most certificates that one command renews: what has to be more is an incident."""

AT_ONCE: Final = 32
"""Certificates that one command begins at a time; their writes share commits."""

MAX_EVENTS: Final = 200
"""Most events shown of one delivery's order."""


class DeliveryDesk(Desk):
    """Commands about renewals at nodes."""

    @property
    def _deliveries(self) -> Deliveries:
        if self._rooms.deliveries is None:
            raise OperationError(
                "this broker serves no nodes", "add agents to its configuration, see docs/agents.md"
            )
        return self._rooms.deliveries

    @property
    def _kept(self) -> DeliveryRooms:
        if self._rooms.delivery_rooms is None:
            raise OperationError("this desk knows of no renewals")
        return self._rooms.delivery_rooms

    # ----------------------------------------------------------------------------------- lists

    async def cert_watch(self, *, kind: str, limit: int = 100) -> Any:
        """Return certificates that are due, held, not seen in time, or not renewed by clients."""
        if kind not in KINDS:
            raise OperationError(f"'{kind}' is no list", f"one of {', '.join(KINDS)}")
        if not 0 < limit <= MAX_ROWS:
            raise OperationError(f"limit {limit} is not between 1 and {MAX_ROWS}")
        if kind == "not-renewed":
            return [_unmanaged_view(one) for one in await self._kept.unrenewed(limit)]
        if kind == "due":
            now = self._rooms.clock.now()
            found = await self._kept.managed_overdue(now, limit)
            return [await self._managed_view(one) for one in found]
        if kind == "held":
            held = await self._kept.deliveries_in((DeliveryStage.HELD,), group=None, limit=limit)
            return [delivery_view(one) for one in held]
        sent = await self._kept.deliveries_in(AT_NODE, group=None, limit=MAX_RENEWED)
        return [delivery_view(one) for one in sent if one.delivery.told_at is not None][:limit]

    async def cert_trace(self, *, reference: str) -> Any:
        """Return the way of one certificate, from the order to the server that was seen to serve
        it; *reference* names the delivery, the order, the certificate or its fingerprint."""
        view = await self._traced(reference)
        delivery = view.delivery
        events = []
        if delivery.order_id is not None:
            events = [
                event_view(number, event)
                for number, event in await self._kept.read_events(
                    after=0, limit=MAX_EVENTS, order_id=delivery.order_id
                )
            ]
        certificate = None
        if delivery.certificate_id is not None:
            certificate = await self._kept.find_certificate(delivery.certificate_id)
        return {
            **delivery_view(view),
            "fingerprint": None if certificate is None else certificate.fingerprint,
            "serial": None if certificate is None else certificate.serial,
            "not_after": None if certificate is None else time_view(certificate.not_after),
            "replaces": delivery.replaces,
            "stages": _stages(delivery),
            "events": events,
        }

    # --------------------------------------------------------------------------------- decisions

    async def cert_release(self, *, actor: Actor, delivery: str) -> Any:
        """Let a held delivery go on."""
        self._verify_reason(actor, "release")
        return delivery_view(await self._deliveries.releasing.release(delivery, actor))

    async def cert_withdraw(self, *, actor: Actor, delivery: str) -> Any:
        """Take a delivery back that has not ended."""
        self._verify_reason(actor, "withdraw")
        return delivery_view(await self._deliveries.releasing.withdraw(delivery, actor))

    async def renew(
        self,
        *,
        actor: Actor,
        target: str | None = None,
        nodes: str | None = None,
        all_due: bool = False,
        dry_run: bool = False,
    ) -> Any:
        """Renew certificates at nodes now, whenever they would be due."""
        if [target is not None, nodes is not None, all_due].count(True) != 1:
            raise OperationError(
                "one thing is renewed at a time",
                "name a node or a certificate, --node or --all-due",
            )
        found = await self._chosen(target, nodes, all_due=all_due)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(managed: ManagedRecord) -> View:
            async with slots:
                return await self._renew_one(managed, actor, is_dry=dry_run)

        rows = await asyncio.gather(*(one(managed) for managed in found[:MAX_RENEWED]))
        return {"dry_run": dry_run, "certificates": rows}

    async def renew_progress(self, *, deliveries: Sequence[str]) -> Any:
        """Return how far these deliveries have come."""
        rows = []
        for delivery_id in deliveries[:MAX_RENEWED]:
            view = await self._kept.find_delivery(delivery_id)
            if view is not None:
                ended = view.delivery.stage.is_end
                rows.append({**delivery_view(view), "ended": ended})
        return rows

    # ----------------------------------------------------------------------------------- helpers

    async def _renew_one(self, managed: ManagedRecord, actor: Actor, *, is_dry: bool) -> View:
        asking = self._deliveries.asking
        row = await self._managed_view(managed)
        try:
            if is_dry:
                node = await self._kept.find_node(managed.node_id)
                if node is not None:
                    await asking.verify_allowed(managed, node)
                return {**row, "delivery": None, "refused": None}
            begun = await asking.begin(managed.managed_id, reason="asked", actor=actor)
        except Problem as problem:
            return {**row, "delivery": None, "refused": problem.detail}
        return {**row, "delivery": begun, "refused": None}

    async def _chosen(
        self, target: str | None, nodes: str | None, *, all_due: bool
    ) -> Sequence[ManagedRecord]:
        if all_due:
            return await self._kept.managed_overdue(self._rooms.clock.now(), MAX_RENEWED)
        found: list[ManagedRecord] = []
        if target is not None:
            node = await self._kept.find_node(target)
            found = list(
                await self._kept.managed_of(node.node_id)
                if node is not None
                else await self._kept.managed_named(target, MAX_RENEWED)
            )
            what = f"'{target}' is neither a node nor a certificate at one"
        else:
            for name in await self._nodes_matching(nodes or ""):
                found += await self._kept.managed_of(name)
            what = f"no node that is '{nodes}' has a certificate"
        found = [one for one in found if one.is_wanted]
        if not found:
            raise OperationError(what, "see penstock node list")
        return found

    async def _nodes_matching(self, pattern: str) -> list[str]:
        try:
            patterns = node_patterns([pattern])
        except ValueError as error:
            raise OperationError(str(error)) from error
        found: list[str] = []
        after: str | None = None
        while page := await self._kept.list_nodes(status=NodeStatus.ACTIVE, after=after, limit=500):
            found += [one.node_id for one in page if patterns.covering(one.name) is not None]
            after = page[-1].node_id
        return found

    async def _traced(self, reference: str) -> DeliveryView:
        kept = self._kept
        view = await kept.find_delivery(reference) or await kept.find_delivery_by_order(reference)
        if view is None:
            certificate = await kept.find_certificate(reference)
            if certificate is None:
                fingerprint = reference.replace(":", "").lower()
                certificate = await kept.find_certificate_by_fingerprint(fingerprint)
            if certificate is not None:
                view = await kept.find_delivery_by_order(certificate.order_id)
        if view is None:
            raise OperationError(
                f"no delivery is, or brought, '{reference}'",
                "give the id of a delivery, an order or a certificate, or its fingerprint",
            )
        return view

    async def _managed_view(self, managed: ManagedRecord) -> View:
        node = await self._kept.find_node(managed.node_id)
        return {
            "node": managed.node_id if node is None else node.name,
            "community": None if node is None else node.community,
            "certificate": managed.name,
            "names": [one.value for one in managed.identifiers],
            "profile": managed.profile,
            "not_after": time_view(managed.not_after),
            "due_since": time_view(managed.due_since),
            "next": time_view(managed.next_at),
            "attempts": managed.attempts,
            "fault": managed.fault,
        }

    def _verify_reason(self, actor: Actor, what: str) -> None:
        if not actor.reason:
            raise OperationError(f"to {what} a delivery a reason is needed", "give --reason")


def delivery_view(view: DeliveryView) -> View:
    """Return a delivery."""
    delivery = view.delivery
    return {
        "delivery": delivery.delivery_id,
        "stage": str(delivery.stage),
        "node": view.node.name,
        "community": view.node.community,
        "certificate": view.managed.name,
        "names": [one.value for one in view.managed.identifiers],
        "generation": delivery.generation,
        "reason": delivery.reason,
        "group": delivery.rollout_group,
        "incident": delivery.incident_id,
        "order": delivery.order_id,
        "certificate_id": delivery.certificate_id,
        "note": delivery.note,
        "begun": time_view(delivery.begun_at),
        "pushed": time_view(delivery.pushed_at),
        "ended": time_view(delivery.ended_at),
    }


def _stages(delivery: DeliveryRecord) -> View:
    """Return when each stage was reached."""
    return {
        "asked": time_view(delivery.begun_at),
        "issued": time_view(delivery.issued_at),
        "released": time_view(delivery.released_at),
        "pushed": time_view(delivery.pushed_at),
        "checked": time_view(delivery.checked_at),
        "installed": time_view(delivery.installed_at),
        "reloaded": time_view(delivery.reloaded_at),
        str(delivery.stage) if delivery.stage.is_end else "seen": time_view(delivery.ended_at),
    }


def _unmanaged_view(one: Unmanaged) -> View:
    return {
        "certificate": one.certificate_id,
        "account": one.account_id,
        "community": one.community,
        "names": [each.value for each in one.identifiers],
        "should_by": time_view(one.should_by),
        "not_after": time_view(one.not_after),
    }
