"""The part of the desk about who answers for accounts, binding keys and nodes."""

from __future__ import annotations

import json
from typing import Any, Final

from broker.issuance.events import Actor
from broker.issuance.owner_ports import OwnedCertificate, OwnedKind, OwnedRecord
from broker.issuance.ownership import Ownership
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.web.operator import OperationError

__all__ = ["OwnerDesk"]

MAX_OWNED: Final = 1000
"""Most rows of one list."""


class OwnerDesk(Desk):
    """Commands about owners."""

    @property
    def _ownership(self) -> Ownership:
        if self._rooms.ownership is None:
            raise OperationError("this broker knows no owners")
        return self._rooms.ownership

    async def owner_list(
        self, *, community: str | None = None, text: str | None = None, limit: int = 100
    ) -> Any:
        """Return owners, with how much each answers for."""
        found = await self._ownership.list(
            community=self._known(community), text=text, limit=_limit(limit)
        )
        return [
            {
                "owner": one.owner,
                "contacts": one.contacts,
                "accounts": one.accounts,
                "eab_keys": one.eab_keys,
                "nodes": one.nodes,
            }
            for one in found
        ]

    async def owner_show(
        self, *, owner: str, community: str | None = None, limit: int = 100
    ) -> Any:
        """Return all that one owner answers for; what nobody does, where the name is empty."""
        things, certificates = await self._ownership.owned_by(
            owner, community=self._known(community), limit=_limit(limit)
        )
        return {
            "owner": owner,
            "things": [self._view(one) for one in things],
            "certificates": [_certificate(one) for one in certificates],
        }

    async def owner_set(
        self,
        *,
        actor: Actor,
        owner: str,
        contact: str = "",
        account: str | None = None,
        node: str | None = None,
        eab: str | None = None,
        community: str = "default",
    ) -> Any:
        """Name who answers for one account, node or key; an empty name is nobody."""
        given = {
            kind: value
            for kind, value in (
                (OwnedKind.ACCOUNT, account),
                (OwnedKind.NODE, node),
                (OwnedKind.EAB_KEY, eab),
            )
            if value is not None
        }
        if len(given) != 1:
            raise OperationError("name one account, node or EAB key")
        ((kind, subject),) = given.items()
        of = community if kind is OwnedKind.EAB_KEY else None
        found = await self._ownership.of(kind, subject, community=of)
        if found is None:
            raise OperationError(f"there is no {kind} '{subject}'", f"see penstock {_LIST[kind]}")
        made = await self._ownership.set(found, owner=owner, contact=contact, actor=actor)
        return self._view(made)

    def _view(self, record: OwnedRecord) -> View:
        """Return one thing; what names nobody with its community's owner, and told as that."""
        shown = _view(record)
        if record.owner:
            return shown
        owner, contact = self._ownership.of_community(record.community)
        by = "community" if owner else record.source
        return {**shown, "owner": owner, "contact": contact, "by": by}

    def _known(self, community: str | None) -> str | None:
        if community is not None:
            self._check_community(community)
        return community


_LIST: Final = {
    OwnedKind.ACCOUNT: "account list",
    OwnedKind.NODE: "node list",
    OwnedKind.EAB_KEY: "eab list",
}


def _limit(limit: int) -> int:
    if not 0 < limit <= MAX_OWNED:
        raise OperationError(f"limit {limit} is not between 1 and {MAX_OWNED}")
    return limit


def _view(record: OwnedRecord) -> View:
    return {
        "what": record.kind.value,
        "name": record.name,
        "id": record.subject,
        "community": record.community,
        "status": record.status,
        "owner": record.owner,
        "contact": record.contact,
        "by": record.source,
    }


def _certificate(record: OwnedCertificate) -> View:
    return {
        "certificate": record.certificate_id,
        "account": record.account_id,
        "community": record.community,
        "names": [value for _, value in json.loads(record.names)],
        "not_after": time_view(record.not_after),
    }
