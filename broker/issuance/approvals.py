"""Nodes that ask to be let in by a person: their requests wait, are approved or denied.

A request is a key's: whoever asks again with it is told of the same request, and nobody else can
take it up.  What the node says of its host is kept for whoever decides, as unproven.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from broker.issuance.accounts import new_id
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.joining_ports import Asking, Grant, NodeWatch
from broker.issuance.node_ports import (
    EnrolmentRequest,
    EnrolmentStore,
    NodeRecord,
    RequestStatus,
)
from broker.issuance.ports import Clock
from broker.protocol.identity_keys import IdentityKey, parse_node_name
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["Approvals", "RequestStore"]

REQUEST_LIFETIME: Final = timedelta(days=7)
"""How long a request waits for a person, and an approval for its node: a holiday week."""

MAX_WAITING: Final = 500
"""Most requests that wait at once: anybody can file one, and a person reads them."""

MAX_FACTS: Final = 32
"""Most facts about its host that are kept of a node that asks."""

MAX_FACT_CHARS: Final = 200
"""Longest name or value of a fact that is kept, in characters."""

RETRY_WHEN_FULL: Final = timedelta(minutes=10)
"""When a node may ask again while too many requests wait."""


class RequestStore(EnrolmentStore, NodeWatch, Protocol):
    """Requests, and the list of them."""


class Approvals:
    """Keeps requests, and says what became of one."""

    def __init__(self, store: RequestStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def ask(self, asking: Asking, key: IdentityKey) -> Grant | EnrolmentRequest:
        """Return what the node is granted, or its request that waits.

        Raises:
            Problem: unauthorized, when it was denied; rateLimited, when too many wait.
        """
        parse_node_name(asking.node)
        found = await self._store.find_request(key.spki_sha256)
        if found is None or found.expires_at <= self._clock.now():
            return await self._file(asking, key)
        if found.node != asking.node or found.status is RequestStatus.DENIED:
            raise Problem(ProblemType.UNAUTHORIZED, "this node was not let in")
        if found.status is RequestStatus.WAITING or found.community is None:
            return found
        return Grant(
            community=found.community,
            names=found.names,
            profiles=found.profiles,
            owner=found.owner,
            contact=found.contact,
            is_for_node=True,
        )

    async def note_node(self, key: IdentityKey, node: NodeRecord) -> None:
        """Keep which node an approved request became."""
        found = await self._store.find_request(key.spki_sha256)
        if found is None or found.node_id is not None:
            return
        event = Event(
            kind=EventKind.ENROLMENT_APPROVED,
            at=self._clock.now(),
            actor=Actor(f"node:{node.name}"),
            community=node.community,
            data={"request_id": found.request_id, "node_id": node.node_id, "node": node.name},
        )
        try:
            changed = replace(found, node_id=node.node_id)
            await self._store.change_request(changed, expected=found.status, event=event)
        except Conflict:
            return

    async def _file(self, asking: Asking, key: IdentityKey) -> EnrolmentRequest:
        now = self._clock.now()
        waiting = [
            one
            for one in await self._store.list_requests()
            if one.status is RequestStatus.WAITING and one.expires_at > now
        ]
        if len(waiting) >= MAX_WAITING:
            raise Problem(
                ProblemType.RATE_LIMITED,
                f"{MAX_WAITING} requests wait for a person already",
                retry_after=RETRY_WHEN_FULL,
            )
        request = EnrolmentRequest(
            request_id=new_id(),
            spki_sha256=key.spki_sha256,
            csr_der=asking.csr_der,
            node=asking.node,
            facts={**_bounded(asking), "peer": asking.peer},
            created_at=now,
            expires_at=now + REQUEST_LIFETIME,
        )
        event = Event(
            kind=EventKind.ENROLMENT_REQUESTED,
            at=now,
            actor=Actor("anonymous"),
            data={
                "request_id": request.request_id,
                "node": request.node,
                "spki_sha256": request.spki_sha256,
                "peer": asking.peer,
            },
        )
        return await self._store.file_request(request, event)


def _bounded(asking: Asking) -> dict[str, object]:
    """Return the facts as they can be shown: few, short, of text."""
    kept = list(asking.facts.items())[:MAX_FACTS]
    return {
        printable(str(name), MAX_FACT_CHARS): printable(str(value), MAX_FACT_CHARS)
        for name, value in kept
    }
