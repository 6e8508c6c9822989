"""Who answers for accounts, binding keys and nodes, and how that is changed.

Rules can demand an owner (``owner: required``), an approval asks nobody who answers for its
requester, and whoever freezes something finds whom to call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.owner_ports import (
    OwnedCertificate,
    OwnedKind,
    OwnedRecord,
    OwnerRecord,
    OwnerStore,
)
from broker.issuance.ports import Clock
from broker.protocol.problems import Problem, ProblemType

__all__ = ["MAX_OWNER_CHARS", "Ownership", "check_owner"]

MAX_OWNER_CHARS: Final = 200
"""Longest name of an owner and longest contact, in characters, as in join tokens."""


class Ownership:
    """Knows who answers for what."""

    def __init__(
        self,
        store: OwnerStore,
        clock: Clock,
        *,
        declared: Mapping[tuple[str, str], tuple[str, str]] | None = None,
        of_communities: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Work on *store*; *declared* are the binding keys, by community and id, whose owner and
        contact stand in the configuration, *of_communities* those who answer for what names
        nobody."""
        self._of_communities = dict(of_communities or {})
        self._store = store
        self._clock = clock
        self._declared = dict(declared or {})

    def of_community(self, community: str) -> tuple[str, str]:
        """Return owner and contact of what names nobody in *community*; empty: nobody.

        They are whom to call, and no more: a rule that wants an owner wants one who is named for
        the requester, and they may approve requests like anybody else.
        """
        return self._of_communities.get(community, ("", ""))

    async def keep_declared(self) -> None:
        """Have the store say what the configuration says; called once at the start."""
        for (community, key_id), (owner, contact) in self._declared.items():
            found = await self.of(OwnedKind.EAB_KEY, key_id, community=community)
            if found is not None and (found.owner, found.contact) != (owner, contact):
                event = self._event(found, owner, contact, SYSTEM)
                await self._store.set_owner(found, owner=owner, contact=contact, event=event)

    async def list(
        self, *, community: str | None, text: str | None, limit: int
    ) -> Sequence[OwnerRecord]:
        """Return owners by name, those that *text* occurs in."""
        return await self._store.owners(community=community, text=text, limit=limit)

    async def owned_by(
        self, owner: str, *, community: str | None, limit: int
    ) -> tuple[Sequence[OwnedRecord], Sequence[OwnedCertificate]]:
        """Return what *owner* answers for, with the certificates of those accounts that live."""
        things = await self._store.owned_by(owner, community=community, limit=limit)
        accounts = [one.subject for one in things if one.kind is OwnedKind.ACCOUNT]
        found = await self._store.certificates_of_accounts(accounts, self._clock.now(), limit)
        return things, found

    async def of(
        self, kind: OwnedKind, subject: str, *, community: str | None = None
    ) -> OwnedRecord | None:
        """Return who answers for one thing; None: there is no such thing."""
        return await self._store.owner_of(kind, community, subject)

    async def set(
        self, record: OwnedRecord, *, owner: str, contact: str, actor: Actor
    ) -> OwnedRecord:
        """Name who answers for *record*, or nobody; return it as it is then.

        Raises:
            Problem: malformed, for names that are too long.
            Conflict: It is gone, or the configuration says who answers for it.
        """
        check_owner(owner, contact)
        is_key = record.kind is OwnedKind.EAB_KEY
        if is_key and (record.community, record.subject) in self._declared:
            raise Conflict(
                f"EAB key '{record.subject}' is declared in the configuration with its owner: "
                "change it there"
            )
        event = self._event(record, owner, contact, actor)
        await self._store.set_owner(record, owner=owner, contact=contact, event=event)
        found = await self.of(record.kind, record.subject, community=record.community)
        if found is None:
            raise Conflict(f"there is no {record.kind} '{record.subject}' any more")
        return found

    def _event(self, record: OwnedRecord, owner: str, contact: str, actor: Actor) -> Event:
        return Event(
            kind=EventKind.OWNER_CHANGED,
            at=self._clock.now(),
            actor=actor,
            community=record.community,
            account_id=record.subject if record.kind is OwnedKind.ACCOUNT else None,
            data={
                "what": record.kind.value,
                "subject": record.subject,
                "name": record.name,
                "owner": owner,
                "contact": contact,
                "before": {"owner": record.owner, "contact": record.contact},
            },
        )


def check_owner(owner: str, contact: str) -> None:
    """See that a name and a contact can be kept and shown; raises Problem."""
    for what, text in (("owner", owner), ("contact", contact)):
        if len(text) > MAX_OWNER_CHARS or not text.isprintable() or text != text.strip():
            raise Problem(
                ProblemType.MALFORMED,
                f"{what} is not at most {MAX_OWNER_CHARS} printable characters",
            )
    if contact and not owner:
        raise Problem(ProblemType.MALFORMED, "a contact needs an owner")
