"""Taking over an account that another client registered at a CA of ours.

The key that speaks for it has lived elsewhere, so the account is given a new one at once, where
the configuration keeps keys (docs/adr/0019).  Until the account is on record, the other client has
it and nothing has changed; from then on it is ours, and what is left to do is a change of keys
(docs/adr/0017), which ends by itself however it is cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from broker.issuance.adoption_ports import (
    AccountsElsewhere,
    AdoptedCertificate,
    AdoptionStore,
    ForeignKeys,
)
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_moves import ADOPTED, FILE, KeyMoves
from broker.issuance.key_ports import KeyPlaces
from broker.issuance.ports import Clock, EventLog, KeyRing, Upstreams, UpstreamStore
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_keys import UpstreamKeys
from broker.protocol.certificates import ChainError, cert_id
from broker.protocol.parsed_certificate import ParsedCertificate

__all__ = ["Adopted", "Adoption", "AdoptionWish", "KeyFate"]

log = structlog.get_logger("penstock")

NAME_CHARS: Final = 16
"""Length of what a key is told apart by in its file's name: 64 bits of its hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFate:
    """What becomes of the key that the account has."""

    is_kept: bool = False
    """Whether the account keeps it, where a CA cannot change it."""
    is_imported: bool = False
    """Whether a key that is kept goes into Vault."""
    kind: str
    """Kind of the new key, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionWish:
    """What a person asks to have adopted."""

    upstream: str
    community: str
    pkcs8_der: bytes = field(repr=False)
    """The account's key; it gets into no event and no sentence."""
    spki_der: bytes
    account_url: str | None
    """Where the account is expected to be, None where nobody knows."""
    came_from: str
    """Where the key lay, as the event tells it."""
    replaces: bool = False
    """Whether another account that we have there gives way."""
    fate: KeyFate

    @property
    def key_id(self) -> str:
        """Return the id of the key's file; the same key has the same one whenever it comes."""
        digest = hashlib.sha256(self.spki_der).hexdigest()
        return f"{ADOPTED}{self.upstream}@{self.community}.{digest[:NAME_CHARS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What came of an adoption."""

    account: UpstreamAccountRecord
    is_same_key: bool
    """Whether the account still has the key that has lived elsewhere."""
    gave_way: UpstreamAccountRecord | None
    """The account that was ours there before."""


class _Records(UpstreamStore, AdoptionStore, EventLog, Protocol):
    """What an adoption reads and writes."""

    async def is_fingerprint_known(self, fingerprint: str) -> bool:
        """Return whether a certificate came through us."""
        ...


class Adoption:
    """Adopts accounts and what came with them."""

    def __init__(
        self,
        store: _Records,
        *,
        ring: KeyRing,
        places: KeyPlaces,
        keys: UpstreamKeys,
        moves: KeyMoves,
        foreign: ForeignKeys,
        elsewhere: AccountsElsewhere,
        upstreams: Upstreams,
        clock: Clock,
    ) -> None:
        self._store = store
        self._ring = ring
        self._places = places
        self._keys = keys
        self._moves = moves
        self._foreign = foreign
        self._elsewhere = elsewhere
        self._upstreams = upstreams
        self._clock = clock

    async def adopt(self, wish: AdoptionWish, *, actor: Actor) -> Adopted:
        """Take over the account of a key, and give it a new key unless it is to be kept.

        Asked again after it was cut off, it goes on where it was.

        Raises:
            Refused: The CA said no, to the question or to the new key; nothing is ours.
            Unreachable: The CA or Vault cannot answer now.  Where a change of the key is in doubt
                by then, the account is ours and the change ends by itself.
            Broken: There is no such account, another one is in its place, or its key may not be
                what it would have to be.
            Conflict: Somebody else was first.
        """
        # Held: an order that is on its way goes on with the account that it began with.
        async with self._keys.held(wish.upstream, wish.community):
            before = await self._store.find_upstream_account(wish.upstream, wish.community)
            await self._check_place(wish, before)
            is_new = before is None or before.key_id != wish.key_id
            if before is None or is_new:
                self._check_vacant(wish, before)
                account = await self._looked_up(wish)
                event = self._event(wish, account, before, actor)
                await self._store.save_upstream_account(account, event)
            else:
                account, before = before, None
        return await self._settled(wish, account, before, actor, is_new=is_new)

    async def adopt_certificates(
        self, upstream: str, community: str, found: Sequence[ParsedCertificate], *, actor: Actor
    ) -> Sequence[AdoptedCertificate]:
        """Remember what another client ordered with the account that is ours now; return that.

        A client that renews one of them here has its ``replaces`` passed on to the CA.  What has
        no CertID, or has ended, is passed over.

        Raises:
            Broken: There is no account.
        """
        account = await self._account(upstream, community)
        now = self._clock.now()
        kept = []
        for certificate in found:
            try:
                named = cert_id(certificate)
            except ChainError:
                continue
            if certificate.not_after > now:
                kept.append(
                    AdoptedCertificate(
                        cert_id=named,
                        upstream=upstream,
                        community=community,
                        account_url=account.account_url,
                        identifiers=tuple(sorted(certificate.identifiers, key=str)),
                        not_after=certificate.not_after,
                    )
                )
        event = Event(
            kind=EventKind.CERTIFICATES_ADOPTED,
            at=now,
            actor=actor,
            community=community,
            upstream=upstream,
            data={"account_url": account.account_url, "cert_ids": [one.cert_id for one in kept]},
        )
        await self._store.keep_adopted_certificates(kept, event)
        return kept

    async def revoke(
        self,
        upstream: str,
        community: str,
        certificate: ParsedCertificate,
        *,
        reason: int,
        actor: Actor,
    ) -> UpstreamAccountRecord:
        """Have a certificate revoked that the account ordered before it became ours.

        Raises:
            Refused: The CA said no.
            Unreachable: It cannot answer now.
            Broken: There is no account, or the certificate is one of our own.
        """
        if await self._store.is_fingerprint_known(certificate.fingerprint):
            raise Broken(
                f"certificate {certificate.fingerprint} came through this broker; revoke it with "
                f"penstock cert revoke {certificate.fingerprint}"
            )
        account = await self._account(upstream, community)
        await self._upstreams.get(upstream, community).revoke(certificate.der, reason)
        event = Event(
            kind=EventKind.ADOPTED_CERTIFICATE_REVOKED,
            at=self._clock.now(),
            actor=actor,
            community=community,
            upstream=upstream,
            data={
                "account_url": account.account_url,
                "fingerprint": certificate.fingerprint,
                "serial": certificate.serial,
                "reason": reason,
            },
        )
        await self._store.append(event, durable=True)
        return account

    async def _account(self, upstream: str, community: str) -> UpstreamAccountRecord:
        account = await self._store.find_upstream_account(upstream, community)
        if account is None:
            raise Broken(f"upstream '{upstream}' has no account for community '{community}'")
        return account

    async def _check_place(self, wish: AdoptionWish, before: UpstreamAccountRecord | None) -> None:
        """See that the key can come to where the configuration keeps keys, before anything is
        done; where none can be made, this raises as well."""
        fate, place = wish.fate, self._foreign.place(wish.upstream, wish.community)
        if fate.is_kept and not fate.is_imported and place != FILE:
            raise Broken(
                f"the configuration keeps the keys of '{wish.upstream}' in {place}: a key that is "
                "kept has to be imported there, which is said with --import-existing"
            )
        if fate.is_imported and place == FILE:
            raise Broken(
                f"the configuration keeps the keys of '{wish.upstream}' in files, where there is "
                "nothing to import into; leave out --import-existing"
            )
        if not fate.is_kept:
            current = None if before is None else before.key_id
            await self._places.next_account_key_id(wish.upstream, wish.community, current)

    def _check_vacant(self, wish: AdoptionWish, before: UpstreamAccountRecord | None) -> None:
        if before is not None and not wish.replaces:
            raise Broken(
                f"upstream '{wish.upstream}' has account {before.account_url} for community "
                f"'{wish.community}' already; say --replace to have it give way: what it ordered "
                "is then renewed as new, and its names have to be proved anew to revoke it"
            )

    async def _looked_up(self, wish: AdoptionWish) -> UpstreamAccountRecord:
        """Return the account, having its key here; where it is not to be had the key goes again."""
        await self._foreign.take_in(wish.key_id, wish.pkcs8_der)
        try:
            account = await self._elsewhere.look_up(
                wish.upstream, wish.community, wish.key_id, wish.account_url
            )
            await self._check_foreign(wish, account)
        except (Refused, Unreachable, Broken):
            await self._ring.destroy_key(wish.key_id)
            raise
        return account

    async def _check_foreign(self, wish: AdoptionWish, account: UpstreamAccountRecord) -> None:
        """See that the account is none of ours: a new key for the one would lose the other."""
        for ours in await self._store.list_upstream_accounts():
            if ours.account_url != account.account_url:
                continue
            where = f"for community '{ours.community}' at upstream '{ours.upstream}', "
            if (ours.upstream, ours.community) == (wish.upstream, wish.community):
                where = ""
            raise Broken(
                f"account {account.account_url} is ours already, {where}by the key '{ours.key_id}'"
            )

    async def _settled(
        self,
        wish: AdoptionWish,
        account: UpstreamAccountRecord,
        gave_way: UpstreamAccountRecord | None,
        actor: Actor,
        *,
        is_new: bool,
    ) -> Adopted:
        """Give the account that is on record the key that it is to have."""
        if gave_way is not None:
            # Whatever stood against the former account does not stand against this one.
            self._elsewhere.welcome(wish.upstream, wish.community)
        fate, changed = wish.fate, account
        if fate.is_imported or not fate.is_kept:
            may_undo = is_new and gave_way is None
            changed = await self._changed(wish, account, actor, may_undo=may_undo)
        self._elsewhere.welcome(wish.upstream, wish.community)
        if changed.key_id != wish.key_id:
            # It signs no more, or is in Vault: its original lies where it came from.
            await self._moves.destroy(changed, wish.key_id, actor)
        return Adopted(account=changed, is_same_key=fate.is_kept, gave_way=gave_way)

    async def _changed(
        self, wish: AdoptionWish, account: UpstreamAccountRecord, actor: Actor, *, may_undo: bool
    ) -> UpstreamAccountRecord:
        try:
            if wish.fate.is_imported:
                return await self._moves.bring(account, kind=wish.fate.kind, actor=actor)
            return await self._keys.change(
                wish.upstream, wish.community, kind=wish.fate.kind, actor=actor
            )
        except (Refused, Unreachable, Broken, Conflict) as failure:
            if self._keys.is_unsettled(wish.upstream, wish.community):
                raise
            if may_undo:
                await self._undo(wish, account, actor)
                raise
            # Orders may rest on it by now: it stays ours, and says by which key.
            self._elsewhere.welcome(wish.upstream, wish.community)
            raise Broken(
                f"account {account.account_url} is ours by the key that it had, which could not be "
                f"changed: {failure}; ask again: penstock upstream rotate-key {wish.upstream}"
            ) from failure

    async def _undo(self, wish: AdoptionWish, account: UpstreamAccountRecord, actor: Actor) -> None:
        """Let go of an account whose key is the one that it always had."""
        present = await self._store.find_upstream_account(wish.upstream, wish.community)
        if present is None or present.key_id != wish.key_id:
            return  # the change went through after all
        event = Event(
            kind=EventKind.UPSTREAM_ADOPTION_UNDONE,
            at=self._clock.now(),
            actor=actor,
            community=wish.community,
            upstream=wish.upstream,
            data={"account_url": account.account_url, "key": wish.key_id},
        )
        await self._store.undo_adoption(present, event)
        await self._ring.destroy_key(wish.key_id)
        log.info("adoption was undone", upstream=wish.upstream, community=wish.community)

    def _event(
        self,
        wish: AdoptionWish,
        account: UpstreamAccountRecord,
        before: UpstreamAccountRecord | None,
        actor: Actor,
    ) -> Event:
        data = {
            "account_url": account.account_url,
            "key": account.key_id,
            "thumbprint": account.thumbprint,
            "came_from": wish.came_from,
        }
        if before is not None:
            data |= {"former_account_url": before.account_url, "former_key": before.key_id}
        return Event(
            kind=EventKind.UPSTREAM_ACCOUNT_ADOPTED,
            at=self._clock.now(),
            actor=actor,
            community=wish.community,
            upstream=wish.upstream,
            data=data,
        )
