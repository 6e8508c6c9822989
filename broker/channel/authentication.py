"""Who is at the other end: a node, by its TLS client certificate or by its signature.

A node is known by the fingerprint of an identity that is on record and not revoked, never by a
name in a certificate.  TLS has verified no more than that the certificate came from the node CA;
whether it is believed is looked up here, again at each request, so that a revocation holds at once
and a resumed session proves nothing that has ended.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from aiohttp import web

from broker.channel.door import STALE_SIGNATURE
from broker.channel.limits import Doorkeeper, NoLimits
from broker.channel.ports import ChannelStore
from broker.channel.shown import shown_chain
from broker.channel.signatures import (
    Nonces,
    RequestSignature,
    parse_signature,
    refused,
    verify_signature,
)
from broker.issuance.events import Actor, EventKind
from broker.issuance.joining_ports import IdentityRecord
from broker.issuance.node_ports import NodeRecord, NodeStatus
from broker.issuance.node_refusals import NodeRefusals
from broker.issuance.ports import Clock
from broker.protocol.problems import Problem, printable

__all__ = ["Authentication"]

MAX_KNOWN: Final = 20_000
"""Most identities that are remembered between requests; at about 200 bytes each they take 4 MiB."""


class Authentication:
    """Finds the node behind a request."""

    def __init__(
        self,
        store: ChannelStore,
        clock: Clock,
        refusals: NodeRefusals,
        *,
        doorkeeper: Doorkeeper | None = None,
    ) -> None:
        """Tell *doorkeeper* of each request behind which a node was found."""
        self._store = store
        self._doorkeeper = doorkeeper or NoLimits()
        self._refusals = refusals
        self._clock = clock
        self.nonces = Nonces(clock.now)
        self._known: OrderedDict[str, IdentityRecord] = OrderedDict()

    def forget(self, node_id: str) -> None:
        """Look the node's identities up anew: something about it changed."""
        for fingerprint in [key for key, one in self._known.items() if one.node_id == node_id]:
            del self._known[fingerprint]

    async def node(self, request: web.Request, body: bytes) -> NodeRecord:
        """Return the node that sent this request.

        Raises:
            Problem: It is none that is believed, its signature is stale or was shown before, or
                it asks too often.
        """
        try:
            identity = await self._shown(request, body)
            if identity.not_after <= self._clock.now():
                raise refused()
            node = await self._node_of(identity)
        except Problem as refusal:
            await self._record(request, refusal)
            raise
        self._doorkeeper.believe(request, node.node_id)
        return node

    async def _shown(self, request: web.Request, body: bytes) -> IdentityRecord:
        signature = _signature_of(request)
        if signature is not None:
            return await self._signed(request, body, signature)
        shown = shown_chain(request)
        if not shown:
            raise refused()
        return await self._identity(hashlib.sha256(shown[0]).hexdigest())

    async def former(self, request: web.Request, body: bytes) -> str:
        """Return the fingerprint of the identity, ended or not, whose key has signed this.

        Raises:
            Problem: None has.
        """
        try:
            signature = _signature_of(request)
            if signature is None:
                raise refused()
            identity = await self._signed(request, body, signature)
        except Problem as refusal:
            await self._record(request, refusal)
            raise
        self._doorkeeper.believe(request, identity.node_id)
        return identity.fingerprint

    async def _signed(
        self, request: web.Request, body: bytes, signature: RequestSignature
    ) -> IdentityRecord:
        self.nonces.check_time(signature.created)
        identity = await self._identity(signature.key_id)
        verify_signature(
            signature,
            identity.certificate_der,
            method=request.method,
            target=request.raw_path,
            body=body,
            digest=request.headers.get("Content-Digest"),
        )
        self.nonces.spend(signature)
        return identity

    async def _record(self, request: web.Request, refusal: Problem) -> None:
        """Keep that somebody was not believed: a replay looks like this, or a revoked node."""
        if refusal.raw_type == STALE_SIGNATURE:
            return
        shown = shown_chain(request)
        fingerprint = hashlib.sha256(shown[0]).hexdigest() if shown else None
        data = {
            "peer": request.remote,
            "path": printable(request.path, 100),
            "fingerprint": fingerprint,
            "signature": printable(request.headers.get("Signature-Input", ""), 400) or None,
            "reason": refusal.detail,
        }
        await self._refusals.record(
            EventKind.NODE_REQUEST_REFUSED,
            request.remote or "",
            data,
            actor=Actor("anonymous"),
        )

    async def _identity(self, fingerprint: str) -> IdentityRecord:
        known = self._known.get(fingerprint)
        if known is not None:
            self._known.move_to_end(fingerprint)
            return known
        found = await self._store.find_identity(fingerprint)
        if found is None or found.revoked_at is not None:
            raise refused()
        self._known[fingerprint] = found
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return found

    async def _node_of(self, identity: IdentityRecord) -> NodeRecord:
        node = await self._store.find_node(identity.node_id)
        if node is None or node.status is NodeStatus.REVOKED:
            raise refused()
        return node


def _signature_of(request: web.Request) -> RequestSignature | None:
    headers = request.headers
    return parse_signature(headers.get("Signature-Input"), headers.get("Signature"))
