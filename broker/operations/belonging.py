"""Which community a thing is of that a command names: read from the store, and remembered nowhere.

A new kind of thing gets its line here, and whoever may see it is decided by that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from broker.issuance.managed_ports import DeliveryRooms
from broker.issuance.ports import Store
from broker.operations.audit import serial_of
from broker.web.rights import Thing

__all__ = ["StoredBelonging"]

MAX_MANAGED: Final = 10_000
"""Most certificates at nodes of one name that are looked at: as many as a command renews."""

Look = Callable[[str], Awaitable[frozenset[str]]]

_NONE: Final[frozenset[str]] = frozenset()


class Serials(Protocol):
    """Finds certificates by their serial number."""

    async def certificates_with_serial(self, serial: str) -> Sequence[str]:
        """Return the ids of the certificates with this serial number, in lower case hex."""
        ...


class StoredBelonging:
    """Implements ``web.authorizing.Belonging``."""

    def __init__(
        self,
        store: Store,
        deliveries: DeliveryRooms | None = None,
        serials: Serials | None = None,
        clusters: Callable[[str], frozenset[str]] = lambda _name: frozenset(),
    ) -> None:
        """Read *store*; *deliveries* where there are nodes, *serials* where they are known.

        *clusters* tells the communities that pods of a cluster can be of.
        """
        self._clusters = clusters
        self._store = store
        self._deliveries = deliveries
        self._serials = serials
        self._looks: Mapping[Thing, Look] = {
            Thing.ORDER: self._order,
            Thing.CERTIFICATE: self._certificate,
            Thing.ACCOUNT: self._account,
            Thing.NODE: self._node,
            Thing.JOIN_TOKEN: self._join_token,
            Thing.MANAGED: self._managed,
            Thing.DELIVERY: self._delivery,
            Thing.APPROVAL: self._approval,
            Thing.CLUSTER: self._cluster,
        }

    async def communities_of(self, thing: Thing, reference: str) -> frozenset[str]:
        """Return the communities of what *reference* names; none when there is no such thing."""
        look = self._looks.get(thing)
        return await look(reference) if look is not None else _NONE

    async def _order(self, reference: str) -> frozenset[str]:
        found = await self._store.load_order(reference)
        return _NONE if found is None else frozenset({found.community})

    async def _certificate(self, reference: str) -> frozenset[str]:
        found = await self._store.find_certificate(reference)
        if found is None:
            fingerprint = reference.replace(":", "").lower()
            found = await self._store.find_certificate_by_fingerprint(fingerprint)
        return await self._serial(reference) if found is None else frozenset({found.community})

    async def _serial(self, reference: str) -> frozenset[str]:
        if self._serials is None:
            return _NONE
        found: set[str] = set()
        for certificate_id in await self._serials.certificates_with_serial(serial_of(reference)):
            certificate = await self._store.find_certificate(certificate_id)
            found |= set() if certificate is None else {certificate.community}
        return frozenset(found)

    async def _account(self, reference: str) -> frozenset[str]:
        found = await self._store.find_account(reference)
        return _NONE if found is None else frozenset({found.community})

    async def _node(self, reference: str) -> frozenset[str]:
        found = await self._store.find_node(reference)
        return _NONE if found is None else frozenset({found.community})

    async def _join_token(self, reference: str) -> frozenset[str]:
        tokens = await self._store.list_join_tokens()
        return frozenset(one.community for one in tokens if one.token_id == reference)

    async def _managed(self, reference: str) -> frozenset[str]:
        node = await self._node(reference)
        if node or self._deliveries is None:
            return node
        found: set[str] = set()
        for managed in await self._deliveries.managed_named(reference, MAX_MANAGED):
            found |= await self._node(managed.node_id)
        return frozenset(found)

    async def _delivery(self, reference: str) -> frozenset[str]:
        kept = self._deliveries
        if kept is not None:
            view = await kept.find_delivery(reference)
            if view is not None:
                return frozenset({view.node.community})
        return await self._order(reference) or await self._certificate(reference)

    async def _approval(self, reference: str) -> frozenset[str]:
        found = await self._store.find_approval(reference)
        return _NONE if found is None else frozenset({found.community})

    async def _cluster(self, reference: str) -> frozenset[str]:
        return self._clusters(reference)
