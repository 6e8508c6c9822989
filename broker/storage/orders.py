"""Downstream orders with their authorizations: every change is a compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.ports import Attached, ChallengeChange, FinalizeClaim, OrderClosing
from broker.issuance.records import AuthorizationRecord, OrderRecord, Suspension, WorkRecord
from broker.protocol.resources import AuthorizationStatus, OrderStatus
from broker.storage.attached import (
    IS_RECOVERED,
    RECOVERED_KEY,
    attach,
    insert_work,
    refuse,
)
from broker.storage.buckets import give_back_unissued, settle_taken
from broker.storage.part import Part
from broker.storage.renewals import keep_renewal, verify_free
from broker.storage.rows import (
    AUTHORIZATIONS,
    CERTIFICATES,
    CHALLENGES,
    ORDERS,
    SUSPENSIONS,
    WORK,
    json_of,
    time_of,
)
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["CHALLENGES_OF", "Orders", "insert_authorization", "move_order"]

_BY_ID: Final = ORDERS.select + " WHERE order_id = ?"
_AUTHORIZATION_BY_ID: Final = AUTHORIZATIONS.select + " WHERE authorization_id = ?"
CHALLENGES_OF: Final = CHALLENGES.select + " WHERE authorization_id = ? ORDER BY position"
_INSERT_CHALLENGE: Final = (
    "INSERT INTO challenges (authorization_id, position,"
    " challenge_id, type, token, status, validated_at, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

# Of several, the one that is open already; among equals the youngest, which lives longest.
_FREE_WORK: Final = (
    WORK.select + " WHERE work_key = ? AND community = ? AND taken_by IS NULL"
    " AND status IN ('intended', 'opened') AND created_at >= ?"
    " AND NOT EXISTS "
    + IS_RECOVERED
    + " ORDER BY status = 'opened' DESC, created_at DESC, work_id LIMIT 1"
)

# Its certificate was issued after the backup that this store came out of, for that very key.
_RECOVERED_WORK: Final = (
    WORK.select + " WHERE work_key = ? AND community = ? AND taken_by IS NULL"
    " AND status IN ('intended', 'opened') AND ? IN "
    + RECOVERED_KEY
    + " ORDER BY created_at DESC, work_id LIMIT 1"
)

ANY_AGE: Final = -(2**63)
"""A time before all others, in microseconds: the least that SQLite's integers hold."""


class Orders(Part):
    """The port OrderStore."""

    async def create_order(
        self,
        order: OrderRecord,
        authorizations: Sequence[AuthorizationRecord],
        attached: Attached,
    ) -> None:
        """Keep a new order with its authorizations and what is attached; see the port."""

        def work(transaction: Transaction) -> None:
            verify_free(transaction, order.account_id, order.replaces)
            transaction.change(ORDERS.insert, *ORDERS.values(order))
            for authorization in authorizations:
                insert_authorization(transaction, authorization)
            attach(transaction, attached)

        await self._database.write(work)

    async def load_order(self, order_id: str) -> OrderRecord | None:
        """Return the order, or None."""

        def work(snapshot: Snapshot) -> OrderRecord | None:
            row = snapshot.first(_BY_ID, order_id)
            return None if row is None else ORDERS.read(row)

        return await self._database.read(work)

    async def load_authorization(self, authorization_id: str) -> AuthorizationRecord | None:
        """Return the authorization with its challenges, or None."""

        def work(snapshot: Snapshot) -> AuthorizationRecord | None:
            row = snapshot.first(_AUTHORIZATION_BY_ID, authorization_id)
            if row is None:
                return None
            challenges = CHALLENGES.read_all(snapshot.all(CHALLENGES_OF, authorization_id))
            return AUTHORIZATIONS.read(row, challenges=tuple(challenges))

        return await self._database.read(work)

    async def change_challenge(self, change: ChallengeChange, *, durable: bool) -> bool:
        """Apply *change* and return whether the order became ready by it; see the port."""
        return await self._database.write(
            lambda transaction: _change_challenge(transaction, change), durable=durable
        )

    async def change_authorization(
        self,
        authorization_id: str,
        *,
        expected: AuthorizationStatus,
        status: AuthorizationStatus,
        order_expected: Sequence[OrderStatus],
        order_status: OrderStatus | None,
        order_error: dict[str, object] | None,
        events: Sequence[Event],
    ) -> None:
        """Change an authorization and the order that stands on it; see the port."""

        def work(transaction: Transaction) -> None:
            moved = _move_authorization(transaction, authorization_id, expected, status)
            ended = [] if moved is None else [moved]
            ended += _move_resting(transaction, authorization_id, status)
            if order_status is not None:
                for order_id in ended:
                    for before in order_expected:
                        if move_order(transaction, order_id, before, order_status, order_error):
                            break
            transaction.record(events)

        await self._database.write(work)

    async def claim_finalize(self, claim: FinalizeClaim) -> tuple[OrderRecord, WorkRecord]:
        """Claim the order and give it upstream work; see the port."""
        return await self._database.write(lambda transaction: _claim(transaction, claim))

    async def close_order(self, closing: OrderClosing) -> OrderRecord:
        """Close the order with all that belongs to its end; see the port."""
        return await self._database.write(lambda transaction: _close(transaction, closing))


def _order(transaction: Transaction, order_id: str) -> OrderRecord:
    (row,) = transaction.all(_BY_ID, order_id)
    return ORDERS.read(row)


def _refuse_order(transaction: Transaction, order_id: str, expected: OrderStatus) -> Conflict:
    found = transaction.first("SELECT status FROM orders WHERE order_id = ?", order_id)
    return refuse(f"order {order_id}", None if found is None else (found[0],), expected)


def move_order(
    transaction: Transaction,
    order_id: str,
    expected: OrderStatus,
    status: OrderStatus,
    error: dict[str, object] | None,
) -> int:
    """Return 1 if the order was *expected* and is *status* now, else 0."""
    moved = transaction.change(
        "UPDATE orders SET status = ?, error = ifnull(?, error) WHERE order_id = ? AND status = ?",
        status.value,
        None if error is None else json_of(error),
        order_id,
        expected.value,
    )
    if moved and status is OrderStatus.INVALID:
        # Of an order that was never ready no CA has heard.
        give_back_unissued(transaction, order_id, is_unsent=expected is OrderStatus.PENDING)
    return moved


# -------------------------------------------------------------------------- authorizations


def insert_authorization(transaction: Transaction, authorization: AuthorizationRecord) -> None:
    """Keep *authorization* with its challenges.

    Raises:
        Conflict: What it rests on is valid no more, or not for as long.
    """
    if authorization.rests_on is not None:
        _check_rest(transaction, authorization)
    transaction.change(AUTHORIZATIONS.insert, *AUTHORIZATIONS.values(authorization))
    transaction.change_each(
        _INSERT_CHALLENGE,
        [
            (authorization.authorization_id, position, *CHALLENGES.values(challenge))
            for position, challenge in enumerate(authorization.challenges)
        ],
    )


def _move_authorization(
    transaction: Transaction,
    authorization_id: str,
    expected: AuthorizationStatus,
    status: AuthorizationStatus,
    proof: str | None = None,
) -> str | None:
    """Change the authorization and return the id of its order, if it has one; raises Conflict."""
    changed = transaction.change(
        "UPDATE authorizations SET status = ?, proof = ifnull(?, proof)"
        " WHERE authorization_id = ? AND status = ?",
        status.value,
        proof,
        authorization_id,
        expected.value,
    )
    found = transaction.first(
        "SELECT status, order_id FROM authorizations WHERE authorization_id = ?",
        authorization_id,
    )
    if not changed or found is None:
        seen = None if found is None else (found[0],)
        raise refuse(f"authorization {authorization_id}", seen, expected)
    return None if found[1] is None else str(found[1])


def _move_resting(
    transaction: Transaction, authorization_id: str, status: AuthorizationStatus
) -> list[str]:
    """Change what is valid because of the authorization; return the orders that stood on it."""
    resting = transaction.all(
        "SELECT authorization_id, order_id FROM authorizations WHERE rests_on = ? AND status = ?",
        authorization_id,
        AuthorizationStatus.VALID.value,
    )
    for name, _ in resting:
        _move_authorization(transaction, name, AuthorizationStatus.VALID, status)
    return [order_id for _, order_id in resting if order_id is not None]


def _check_rest(transaction: Transaction, authorization: AuthorizationRecord) -> None:
    ground = transaction.first(
        "SELECT status, expires_at FROM authorizations WHERE authorization_id = ?"
        " AND account_id = ? AND community = ?",
        authorization.rests_on,
        authorization.account_id,
        authorization.community,
    )
    what = f"authorization {authorization.rests_on}"
    if ground is None or ground[0] != AuthorizationStatus.VALID.value:
        seen = None if ground is None else (ground[0],)
        raise refuse(what, seen, AuthorizationStatus.VALID)
    if ground[1] < time_of(authorization.expires_at):
        raise Conflict(f"{what} ends before what would rest on it")


def _change_challenge(transaction: Transaction, change: ChallengeChange) -> bool:
    _move_challenge(transaction, change)
    proof = change.authorization_proof
    order_id = _move_authorization(
        transaction,
        change.authorization_id,
        change.authorization_expected,
        change.authorization_status,
        None if proof is None else proof.value,
    )
    attach(transaction, change.attached)
    if order_id is None:
        return False
    expected, error = change.order_expected, change.order_error
    if change.when_failed is not None:
        move_order(transaction, order_id, expected, change.when_failed, error)
    if change.when_all_valid is None or _has_open(transaction, order_id):
        return False
    if not move_order(transaction, order_id, expected, change.when_all_valid, None):
        return False
    attach(transaction, change.attached_when_ready)
    # Upstream work begins right after this: what it rests on must outlive the machine.
    transaction.demand_durability()
    return True


def _move_challenge(transaction: Transaction, change: ChallengeChange) -> None:
    challenge = change.challenge
    name = (change.authorization_id, challenge.challenge_id)
    changed = transaction.change(
        "UPDATE challenges SET status = ?, validated_at = ?, error = ?"
        " WHERE authorization_id = ? AND challenge_id = ? AND status = ?",
        challenge.status.value,
        None if challenge.validated_at is None else time_of(challenge.validated_at),
        None if challenge.error is None else json_of(dict(challenge.error)),
        *name,
        change.expected.value,
    )
    if not changed:
        found = transaction.first(
            "SELECT status FROM challenges WHERE authorization_id = ? AND challenge_id = ?", *name
        )
        seen = None if found is None else (found[0],)
        raise refuse(f"challenge {challenge.challenge_id}", seen, change.expected)


def _has_open(transaction: Transaction, order_id: str) -> bool:
    """Return whether an authorization of the order is other than valid."""
    found = transaction.first(
        "SELECT 1 FROM authorizations WHERE order_id = ? AND status <> ? LIMIT 1",
        order_id,
        AuthorizationStatus.VALID.value,
    )
    return found is not None


# ---------------------------------------------------------------------- finalize and the end


def _claim(transaction: Transaction, claim: FinalizeClaim) -> tuple[OrderRecord, WorkRecord]:
    changed = transaction.change(
        "UPDATE orders SET status = ?, csr_der = ?, csr_sha256 = ?, finalized_at = ?,"
        " decision = ?, upstream = ?, upstream_profile = ?, cap_seconds = ?, ask_not_after = ?"
        " WHERE order_id = ? AND status = ?",
        claim.status.value,
        claim.csr_der,
        claim.csr_sha256,
        time_of(claim.at),
        json_of(claim.decision),
        claim.upstream,
        claim.upstream_profile,
        claim.cap_seconds,
        int(claim.ask_not_after),
        claim.order_id,
        claim.expected.value,
    )
    if not changed:
        raise _refuse_order(transaction, claim.order_id, claim.expected)
    work = _take_work(transaction, claim)
    is_new = work.work_id == claim.new_work.work_id
    attach(transaction, claim.attached, without_work=None if is_new else claim.new_work.work_id)
    return _order(transaction, claim.order_id), work


def _take_work(transaction: Transaction, claim: FinalizeClaim) -> WorkRecord:
    since = ANY_AGE if claim.work_since is None else time_of(claim.work_since)
    asked = (claim.work_key, claim.new_work.community)
    row = transaction.first(_RECOVERED_WORK, *asked, claim.spki_sha256)
    if row is None:
        row = transaction.first(_FREE_WORK, *asked, since)
    if row is None:
        work = replace(claim.new_work, taken_by=claim.order_id)
        insert_work(transaction, work)
        return work
    work = replace(WORK.read(row), taken_by=claim.order_id)
    transaction.change(
        "UPDATE work SET taken_by = ? WHERE work_id = ?", claim.order_id, work.work_id
    )
    return work


def _close(transaction: Transaction, closing: OrderClosing) -> OrderRecord:
    order_id = closing.order_id
    settle_taken(transaction, closing)
    if not move_order(transaction, order_id, closing.expected, closing.status, closing.error):
        raise _refuse_order(transaction, order_id, closing.expected)
    certificate = closing.certificate
    answer = closing.again
    if certificate is not None:
        transaction.change(CERTIFICATES.insert, *CERTIFICATES.values(certificate))
        # What is withheld is kept and revoked, but no order leads a client to it.
        answer = certificate.certificate_id if certificate.is_released else None
        keep_renewal(transaction, closing)
    if answer is not None:
        transaction.change(
            "UPDATE orders SET certificate_id = ? WHERE order_id = ?", answer, order_id
        )
    if closing.suspension is not None:
        _suspend(transaction, closing.suspension)
    if closing.work_id is not None and closing.work_status is not None:
        changed = transaction.change(
            "UPDATE work SET status = ? WHERE work_id = ?",
            closing.work_status.value,
            closing.work_id,
        )
        if not changed:
            raise Conflict(f"work {closing.work_id} is unknown")
    attach(transaction, closing.attached)
    return _order(transaction, order_id)


def _suspend(transaction: Transaction, suspension: Suspension) -> None:
    """Keep *suspension*; where its pair is suspended already, the first reason stays."""
    transaction.change(
        SUSPENSIONS.insert + " ON CONFLICT DO NOTHING", *SUSPENSIONS.values(suspension)
    )
