"""Another key for an account (RFC 8555 §7.3.5).

Nothing else changes with it: orders and authorizations go on.  What a pending challenge has to
show is made from the key that the account has when somebody looks, so that whoever lost the old
key cannot prove anything by it any more.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.ports import AccountChangeStore, AccountKeyInspector, AccountStore, Clock
from broker.issuance.records import AccountRecord
from broker.protocol.jws import Jwk
from broker.protocol.key_change import VerifiedKeyChange
from broker.protocol.problems import Problem, ProblemType

__all__ = ["KeyChanges", "KeyInUse"]


class KeyInUse(Exception):
    """Another account, or this one, has the key: the client is told which (409)."""

    def __init__(self, account_id: str) -> None:
        super().__init__(f"account {account_id} has this key")
        self.account_id = account_id


class _Store(AccountStore, AccountChangeStore, Protocol):
    """Accounts, and what changes them."""


class KeyChanges:
    """The workflow of a key change."""

    def __init__(
        self,
        store: _Store,
        inspector: AccountKeyInspector,
        clock: Clock,
        *,
        freezes: Freezes | None = None,
    ) -> None:
        self._store = store
        self._freezes = freezes
        self._inspector = inspector
        self._clock = clock

    async def change(self, account: AccountRecord, change: VerifiedKeyChange) -> AccountRecord:
        """Return the account with its new key; of several changes at once, one wins.

        Raises:
            KeyInUse: An account of this community has the key.
            Problem: badPublicKey for a key that may speak for no account; unauthorized when the
                account is frozen, or has changed its key, or its status, meanwhile.
        """
        # With a stolen key nobody locks its owner out while the account is frozen.
        await verify_unfrozen(self._freezes, account, "key-change")
        new_key = change.new_key
        holder = await self._store.find_account_by_key(account.community, new_key.thumbprint)
        if holder is not None:
            raise KeyInUse(holder.account_id)
        await self._check(new_key)
        try:
            kept = await self._store.change_account_key(
                account.account_id,
                expected=change.old_key.thumbprint,
                jwk_json=new_key.canonical,
                thumbprint=new_key.thumbprint,
                event=self._event(account, change),
            )
        except Conflict as lost:
            raise Problem(
                ProblemType.UNAUTHORIZED, "the account has another key, or none, by now"
            ) from lost
        if kept.account_id != account.account_id:
            raise KeyInUse(kept.account_id)
        return kept

    async def _check(self, key: Jwk) -> None:
        spki_der = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        weaknesses = await self._inspector.inspect_key(spki_der)
        if weaknesses:
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY, f"new account key is refused: {', '.join(weaknesses)}"
            )
        is_reserved = await self._store.is_reserved_key(
            thumbprint=key.thumbprint, spki_sha256=hashlib.sha256(spki_der).hexdigest()
        )
        if is_reserved:
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY,
                "new account key is the key of something else already, expected one of its own",
            )

    def _event(self, account: AccountRecord, change: VerifiedKeyChange) -> Event:
        return Event(
            kind=EventKind.ACCOUNT_KEY_CHANGED,
            at=self._clock.now(),
            actor=Actor(f"account:{account.account_id}"),
            community=account.community,
            account_id=account.account_id,
            data={"before": change.old_key.thumbprint, "thumbprint": change.new_key.thumbprint},
        )
