"""Downstream accounts and the external account binding keys that admit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.records import AccountRecord, EabKeyRecord
from broker.protocol.resources import AccountStatus
from broker.storage.attached import refuse
from broker.storage.part import Part, page_start
from broker.storage.rows import ACCOUNTS, EAB_KEYS, json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Accounts", "EabKeys"]

_BY_ID: Final = ACCOUNTS.select + " WHERE account_id = ?"
_BY_KEY: Final = ACCOUNTS.select + " WHERE thumbprint = ? AND community = ?"
_PAGE: Final = (
    ACCOUNTS.select + " WHERE (created_at, account_id) < (?, ?) AND (?3 IS NULL OR community = ?3)"
    " ORDER BY created_at DESC, account_id DESC LIMIT ?4"
)
_EAB_BY_ID: Final = EAB_KEYS.select + " WHERE community = ? AND key_id = ?"
_EAB_LIST: Final = (
    EAB_KEYS.select + " WHERE (?1 IS NULL OR community = ?1) ORDER BY created_at DESC, key_id DESC"
)


class Accounts(Part):
    """The port AccountStore."""

    async def create_account(
        self, account: AccountRecord, event: Event, *, eab_key_id: str | None
    ) -> AccountRecord:
        """Keep a new account, or return the one that has its key; see the port."""

        def work(transaction: Transaction) -> AccountRecord:
            row = transaction.first(_BY_KEY, account.thumbprint, account.community)
            if row is not None:
                return ACCOUNTS.read(row)
            transaction.change(ACCOUNTS.insert, *ACCOUNTS.values(account))
            if eab_key_id is not None:
                _bind(transaction, account, eab_key_id)
            transaction.record((event,))
            return account

        return await self._database.write(work)

    async def find_account(self, account_id: str) -> AccountRecord | None:
        """Return the account, or None."""

        def work(snapshot: Snapshot) -> AccountRecord | None:
            row = snapshot.first(_BY_ID, account_id)
            return None if row is None else ACCOUNTS.read(row)

        return await self._database.read(work)

    async def find_account_by_key(self, community: str, thumbprint: str) -> AccountRecord | None:
        """Return the community's account that has this key, or None."""

        def work(snapshot: Snapshot) -> AccountRecord | None:
            row = snapshot.first(_BY_KEY, thumbprint, community)
            return None if row is None else ACCOUNTS.read(row)

        return await self._database.read(work)

    async def update_account(
        self,
        account_id: str,
        *,
        expected: AccountStatus,
        status: AccountStatus,
        contacts: tuple[str, ...] | None,
        event: Event,
    ) -> AccountRecord:
        """Change contacts or status by compare-and-set; see the port."""

        def work(transaction: Transaction) -> AccountRecord:
            changed = transaction.change(
                "UPDATE accounts SET status = ?, contacts = ifnull(?, contacts)"
                " WHERE account_id = ? AND status = ?",
                status.value,
                None if contacts is None else json_of(contacts),
                account_id,
                expected.value,
            )
            row = transaction.first(_BY_ID, account_id)
            found = None if row is None else ACCOUNTS.read(row)
            if not changed or found is None:
                seen = None if found is None else (found.status.value,)
                raise refuse(f"account {account_id}", seen, expected)
            transaction.record((event,))
            return found

        return await self._database.write(work)

    async def change_account_key(
        self, account_id: str, *, expected: str, jwk_json: str, thumbprint: str, event: Event
    ) -> AccountRecord:
        """Give the account another key by compare-and-set; see the port."""

        def work(transaction: Transaction) -> AccountRecord:
            row = transaction.first(_BY_ID, account_id)
            found = None if row is None else ACCOUNTS.read(row)
            if found is None or found.status is not AccountStatus.VALID:
                seen = None if found is None else (found.status.value,)
                raise refuse(f"account {account_id}", seen, AccountStatus.VALID)
            if found.thumbprint != expected:
                raise Conflict(f"account {account_id} has another key by now")
            holder = transaction.first(_BY_KEY, thumbprint, found.community)
            if holder is not None:
                return ACCOUNTS.read(holder)
            transaction.change(
                "UPDATE accounts SET jwk_json = ?, thumbprint = ? WHERE account_id = ?",
                jwk_json,
                thumbprint,
                account_id,
            )
            transaction.record((event,))
            return replace(found, jwk_json=jwk_json, thumbprint=thumbprint)

        return await self._database.write(work)

    async def agree_to_terms(self, account_id: str, version: str, event: Event) -> AccountRecord:
        """Note which terms the account agreed to; see the port."""

        def work(transaction: Transaction) -> AccountRecord:
            transaction.change(
                "UPDATE accounts SET terms_agreed = 1, terms_version = ? WHERE account_id = ?",
                version,
                account_id,
            )
            row = transaction.first(_BY_ID, account_id)
            if row is None:
                raise Conflict(f"account {account_id} is unknown")
            transaction.record((event,))
            return ACCOUNTS.read(row)

        return await self._database.write(work)

    async def list_accounts(
        self, *, community: str | None, after: str | None, limit: int
    ) -> Sequence[AccountRecord]:
        """Return accounts, newest first; *after* is the last account id of the page before."""

        def work(snapshot: Snapshot) -> list[AccountRecord]:
            start = page_start(
                snapshot,
                "SELECT created_at, account_id FROM accounts WHERE account_id = ?",
                after,
            )
            if start is None:
                return []
            return ACCOUNTS.read_all(snapshot.all(_PAGE, *start, community, limit))

        return await self._database.scan(work)

    async def is_account_key(self, thumbprint: str) -> bool:
        """Return whether any account, downstream or upstream, has this key."""

        def is_known(snapshot: Snapshot) -> bool:
            row = snapshot.first(
                "SELECT 1 FROM accounts WHERE thumbprint = ?1"
                " UNION ALL SELECT 1 FROM upstream_accounts WHERE thumbprint = ?1 LIMIT 1",
                thumbprint,
            )
            return row is not None

        return await self._database.read(is_known)

    async def is_reserved_key(self, *, thumbprint: str, spki_sha256: str) -> bool:
        """Return whether an upstream account or a certificate has this key."""

        def is_reserved(snapshot: Snapshot) -> bool:
            row = snapshot.first(
                "SELECT 1 FROM upstream_accounts WHERE thumbprint = ?1"
                " UNION ALL SELECT 1 FROM certificates WHERE spki_sha256 = ?2 LIMIT 1",
                thumbprint,
                spki_sha256,
            )
            return row is not None

        return await self._database.read(is_reserved)


class EabKeys(Part):
    """The port EabStore.  MAC keys lie as they are given, which is sealed."""

    async def add_eab_key(self, key: EabKeyRecord, event: Event) -> None:
        """Keep a new key; raises Conflict when its id is taken in its community."""

        def work(transaction: Transaction) -> None:
            if transaction.first(_EAB_BY_ID, key.community, key.key_id) is not None:
                raise Conflict(f"external account binding key {key.key_id} exists already")
            transaction.change(EAB_KEYS.insert, *EAB_KEYS.values(key))
            transaction.record((event,))

        await self._database.write(work)

    async def find_eab_key(self, community: str, key_id: str) -> EabKeyRecord | None:
        """Return the key, or None."""

        def work(snapshot: Snapshot) -> EabKeyRecord | None:
            row = snapshot.first(_EAB_BY_ID, community, key_id)
            return None if row is None else EAB_KEYS.read(row)

        return await self._database.read(work)

    async def list_eab_keys(self, community: str | None) -> Sequence[EabKeyRecord]:
        """Return the keys of one community or of all, newest first."""
        return await self._database.scan(
            lambda snapshot: EAB_KEYS.read_all(snapshot.all(_EAB_LIST, community))
        )

    async def revoke_eab_key(
        self, community: str, key_id: str, at: datetime, event: Event
    ) -> EabKeyRecord:
        """Revoke the key; raises Conflict when it is unknown or revoked already."""

        def work(transaction: Transaction) -> EabKeyRecord:
            key = _eab_key(transaction, community, key_id)
            if key.revoked_at is not None:
                raise Conflict(f"external account binding key {key_id} is revoked already")
            transaction.change(
                "UPDATE eab_keys SET revoked_at = ? WHERE community = ? AND key_id = ?",
                time_of(at),
                community,
                key_id,
            )
            transaction.record((event,))
            return _eab_key(transaction, community, key_id)

        return await self._database.write(work)


def _eab_key(transaction: Transaction, community: str, key_id: str) -> EabKeyRecord:
    row = transaction.first(_EAB_BY_ID, community, key_id)
    if row is None:
        raise Conflict(f"external account binding key {key_id} is unknown")
    return EAB_KEYS.read(row)


def _bind(transaction: Transaction, account: AccountRecord, key_id: str) -> None:
    """Let *account* use the key; a key for one account is its own from now on."""
    key = _eab_key(transaction, account.community, key_id)
    if key.revoked_at is not None:
        raise Conflict(f"external account binding key {key_id} is revoked")
    if key.expires_at is not None and key.expires_at <= account.created_at:
        raise Conflict(
            f"external account binding key {key_id} expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    if key.is_reusable:
        return
    if key.bound_account_id is not None:
        raise Conflict(f"external account binding key {key_id} is bound to another account")
    transaction.change(
        "UPDATE eab_keys SET bound_account_id = ? WHERE community = ? AND key_id = ?",
        account.account_id,
        account.community,
        key_id,
    )
