"""What an account owns: the list of its orders, what it proved ahead, and the end of it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.events import Event
from broker.issuance.ports import AccountClosing
from broker.issuance.records import AccountRecord, AuthorizationRecord
from broker.protocol.identifiers import Identifier
from broker.storage.attached import refuse
from broker.storage.orders import CHALLENGES_OF, insert_authorization, move_order
from broker.storage.part import Part, page_start
from broker.storage.rows import ACCOUNTS, AUTHORIZATIONS, CHALLENGES, json_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Owned"]

_PLACE: Final = "SELECT created_at, order_id FROM orders WHERE order_id = ? AND account_id = ?"
_PAGE: Final = (
    "SELECT order_id FROM orders WHERE account_id = ?1 AND (created_at, order_id) < (?2, ?3)"
    " AND status <> 'invalid' AND (status NOT IN ('pending', 'ready') OR expires_at > ?4)"
    " ORDER BY created_at DESC, order_id DESC LIMIT ?5"
)
_AHEAD: Final = (
    AUTHORIZATIONS.select + " WHERE account_id = ? AND identifier = ? AND order_id IS NULL"
    " AND status = 'valid' AND proof = 'challenge' AND expires_at > ?"
    " ORDER BY expires_at DESC, authorization_id LIMIT 1"
)
_ACCOUNT: Final = ACCOUNTS.select + " WHERE account_id = ?"


class Owned(Part):
    """The port AccountOrders, and the end of an account."""

    async def orders_of_account(
        self, account_id: str, *, at: datetime, after: str | None, limit: int
    ) -> Sequence[str] | None:
        """Return ids of the account's living orders, newest first; see the port."""

        def work(snapshot: Snapshot) -> list[str] | None:
            start = page_start(snapshot, _PLACE, after, account_id)
            if start is None:
                return None
            rows = snapshot.all(_PAGE, account_id, *start, time_of(at), limit)
            return [order_id for (order_id,) in rows]

        return await self._database.scan(work)

    async def create_authorization(self, authorization: AuthorizationRecord, event: Event) -> None:
        """Keep an authorization that belongs to no order."""

        def work(transaction: Transaction) -> None:
            insert_authorization(transaction, authorization)
            transaction.record((event,))

        await self._database.write(work)

    async def proved_ahead(
        self, account_id: str, identifiers: Sequence[Identifier], *, until: datetime
    ) -> Sequence[AuthorizationRecord]:
        """Return what the account proved ahead of any order; see the port."""

        def work(snapshot: Snapshot) -> list[AuthorizationRecord]:
            found = []
            for identifier in identifiers:
                written = json_of((identifier.type, identifier.value))
                row = snapshot.first(_AHEAD, account_id, written, time_of(until))
                if row is not None:
                    made = AUTHORIZATIONS.read(row, challenges=())
                    rows = snapshot.all(CHALLENGES_OF, made.authorization_id)
                    challenges = tuple(CHALLENGES.read_all(rows))
                    found.append(replace(made, challenges=challenges))
            return found

        return await self._database.read(work)

    async def close_account(self, closing: AccountClosing) -> AccountRecord:
        """End the account with its unfinished work; see the port."""
        return await self._database.write(lambda transaction: _close(transaction, closing))


def _close(transaction: Transaction, closing: AccountClosing) -> AccountRecord:
    changed = transaction.change(
        "UPDATE accounts SET status = ? WHERE account_id = ? AND status = ?",
        closing.status.value,
        closing.account_id,
        closing.expected.value,
    )
    row = transaction.first(_ACCOUNT, closing.account_id)
    if not changed or row is None:
        seen = None if row is None else (ACCOUNTS.read(row).status.value,)
        raise refuse(f"account {closing.account_id}", seen, closing.expected)
    transaction.record((closing.event,))
    for before in closing.order_expected:
        orders = transaction.all(
            "SELECT order_id FROM orders WHERE account_id = ? AND status = ?",
            closing.account_id,
            before.value,
        )
        for (order_id,) in orders:
            move_order(transaction, order_id, before, closing.order_status, closing.order_error)
            _end_authorizations(transaction, closing, order_id)
            transaction.record((replace(closing.order_event, order_id=order_id),))
    _end_authorizations(transaction, closing, None)
    return ACCOUNTS.read(row)


def _end_authorizations(
    transaction: Transaction, closing: AccountClosing, order_id: str | None
) -> None:
    """End the authorizations of one order, or those without one."""
    which = "order_id = ?2" if order_id is not None else "order_id IS NULL AND ?2 IS NULL"
    for before in closing.authorization_expected:
        transaction.change(
            # S608: the text is one of the two above, nothing from outside.
            f"UPDATE authorizations SET status = ?1 WHERE {which}"  # noqa: S608
            " AND account_id = ?3 AND status = ?4",
            closing.authorization_status.value,
            order_id,
            closing.account_id,
            before.value,
        )
