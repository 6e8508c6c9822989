"""Who answers for accounts, binding keys and nodes.

An account that names nobody itself is its node's owner's, or that of the key it was bound by; the
contact goes with the owner, and is never another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.owner_ports import (
    OwnedCertificate,
    OwnedKind,
    OwnedRecord,
    OwnerRecord,
)
from broker.storage.part import Part
from broker.storage.rows import json_of, moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Ownership"]

_SOURCE: Final = (
    "CASE WHEN a.owner <> '' THEN 'own' WHEN ifnull(k.owner, '') <> '' THEN 'eab-key'"
    " WHEN ifnull(n.owner, '') <> '' THEN 'node' ELSE 'own' END"
)
_ACCOUNTS: Final = " ".join(
    (
        "SELECT 'account' AS kind, a.community AS community, a.account_id AS subject,",
        "a.account_id AS name,",
        "CASE",
        _SOURCE,
        "WHEN 'own' THEN a.owner WHEN 'eab-key' THEN k.owner ELSE n.owner END AS owner,",
        "CASE",
        _SOURCE,
        "WHEN 'own' THEN a.contact WHEN 'eab-key' THEN k.contact ELSE n.contact END AS contact,",
        _SOURCE,
        "AS source, a.status AS status FROM accounts a",
        "LEFT JOIN eab_keys k ON k.community = a.community AND k.key_id = a.eab_key_id",
        "LEFT JOIN nodes n ON n.account_id = a.account_id",
    )
)
_OF_ACCOUNTS: Final = " ".join(
    (_ACCOUNTS, "WHERE a.account_id IN (SELECT value FROM json_each(?1))")
)
_KEYS: Final = (
    "SELECT 'eab-key', community, key_id, CASE label WHEN '' THEN key_id ELSE label END, owner,"
    " contact, 'own', CASE WHEN revoked_at IS NULL THEN 'valid' ELSE 'revoked' END FROM eab_keys"
)
_NODES: Final = "SELECT 'node', community, node_id, name, owner, contact, 'own', status FROM nodes"
_ALL: Final = " ".join(("(", _ACCOUNTS, "UNION ALL", _KEYS, "UNION ALL", _NODES, ")"))
_OWNERS: Final = " ".join(
    (
        "SELECT owner, group_concat(DISTINCT nullif(contact, '')), count(*) FILTER",
        "(WHERE kind = 'account'), count(*) FILTER (WHERE kind = 'eab-key'),",
        "count(*) FILTER (WHERE kind = 'node') FROM",
        _ALL,
        "WHERE (?1 IS NULL OR community = ?1)",
        "AND (?2 IS NULL OR instr(lower(owner || ' ' || contact), lower(?2)) > 0)",
        "GROUP BY owner ORDER BY lower(owner), owner LIMIT ?3",
    )
)
_OWNED: Final = " ".join(
    (
        "SELECT kind, community, subject, name, owner, contact, source, status FROM",
        _ALL,
        "WHERE (?2 IS NULL OR community = ?2) AND (lower(owner) = lower(?1)",
        "OR (?1 <> '' AND lower(contact) = lower(?1)))",
        "ORDER BY kind, community, name, subject LIMIT ?3",
    )
)
_ONE: Final = " ".join(
    (
        "SELECT kind, community, subject, name, owner, contact, source, status FROM",
        _ALL,
        "WHERE kind = ?1 AND (?2 IS NULL OR community = ?2)",
        "AND (subject = ?3 OR (kind = 'node' AND name = ?3 AND status <> 'revoked')) LIMIT 2",
    )
)
_CERTIFICATES: Final = (
    "SELECT certificate_id, account_id, community, identifiers, not_after FROM certificates"
    " WHERE account_id IN (SELECT value FROM json_each(?1)) AND not_after > ?2"
    " AND is_released = 1 AND revoked_at IS NULL ORDER BY not_after, certificate_id LIMIT ?3"
)
_SET: Final = {
    OwnedKind.ACCOUNT: "UPDATE accounts SET owner = ?1, contact = ?2"
    " WHERE community = ?3 AND account_id = ?4",
    OwnedKind.EAB_KEY: "UPDATE eab_keys SET owner = ?1, contact = ?2"
    " WHERE community = ?3 AND key_id = ?4",
    OwnedKind.NODE: "UPDATE nodes SET owner = ?1, contact = ?2"
    " WHERE community = ?3 AND node_id = ?4",
}


class Ownership(Part):
    """The port OwnerStore."""

    async def owners(
        self, *, community: str | None, text: str | None, limit: int
    ) -> Sequence[OwnerRecord]:
        """Return owners by name; see the port."""

        def work(snapshot: Snapshot) -> list[OwnerRecord]:
            return [
                OwnerRecord(
                    owner=owner,
                    contacts=contacts or "",
                    accounts=accounts,
                    eab_keys=eab_keys,
                    nodes=nodes,
                )
                for owner, contacts, accounts, eab_keys, nodes in snapshot.all(
                    _OWNERS, community, text, limit
                )
            ]

        return await self._database.scan(work)

    async def owned_by(
        self, owner: str, *, community: str | None, limit: int
    ) -> Sequence[OwnedRecord]:
        """Return what *owner* answers for; see the port."""

        def work(snapshot: Snapshot) -> list[OwnedRecord]:
            return [_owned(row) for row in snapshot.all(_OWNED, owner, community, limit)]

        return await self._database.scan(work)

    async def owner_of(
        self, kind: OwnedKind, community: str | None, subject: str
    ) -> OwnedRecord | None:
        """Return who answers for one thing; None: there is no such thing, or it is not clear which
        is meant."""

        def work(snapshot: Snapshot) -> OwnedRecord | None:
            rows = snapshot.all(_ONE, kind.value, community, subject)
            return _owned(rows[0]) if len(rows) == 1 else None

        return await self._database.scan(work)

    async def owners_of_accounts(self, accounts: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Return owner and contact of each of *accounts*."""

        def work(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
            rows = snapshot.all(_OF_ACCOUNTS, json_of(list(accounts)))
            return {row[2]: (row[4], row[5]) for row in rows}

        return await self._database.read(work)

    async def certificates_of_accounts(
        self, accounts: Sequence[str], now: datetime, limit: int
    ) -> Sequence[OwnedCertificate]:
        """Return their certificates that live at *now*, the first to end first."""

        def work(snapshot: Snapshot) -> list[OwnedCertificate]:
            rows = snapshot.all(_CERTIFICATES, json_of(list(accounts)), time_of(now), limit)
            return [
                OwnedCertificate(
                    certificate_id=certificate_id,
                    account_id=account_id,
                    community=community,
                    names=names,
                    not_after=moment_of(not_after),
                )
                for certificate_id, account_id, community, names, not_after in rows
            ]

        return await self._database.scan(work)

    async def set_owner(
        self, record: OwnedRecord, *, owner: str, contact: str, event: Event
    ) -> None:
        """Name who answers for it; see the port."""

        def work(transaction: Transaction) -> None:
            changed = transaction.change(
                _SET[record.kind], owner, contact, record.community, record.subject
            )
            if not changed:
                raise Conflict(f"there is no {record.kind} '{record.subject}' any more")
            transaction.record((event,))

        await self._database.write(work)


def _owned(row: tuple[str, ...]) -> OwnedRecord:
    kind, community, subject, name, owner, contact, source, status = row
    return OwnedRecord(
        kind=OwnedKind(kind),
        community=community,
        subject=subject,
        name=name,
        owner=owner,
        contact=contact,
        source=source,
        status=status,
    )
