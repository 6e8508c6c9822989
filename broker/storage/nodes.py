"""Nodes, their identities, and how they come: join tokens and requests that wait for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Event
from broker.issuance.joining_ports import IdentityRecord
from broker.issuance.node_ports import (
    EnrolmentRequest,
    IssuedIdentity,
    JoinToken,
    NodeRecord,
    NodeStatus,
    RequestStatus,
)
from broker.issuance.records import AccountRecord
from broker.storage.part import Part
from broker.storage.rows import ACCOUNTS, RowCodec, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["NODES", "Enrolments", "Nodes"]

NODES: Final = RowCodec("nodes", NodeRecord)
IDENTITIES: Final = RowCodec("node_identities", IdentityRecord)
TOKENS: Final = RowCodec("join_tokens", JoinToken)
REQUESTS: Final = RowCodec("enrolment_requests", EnrolmentRequest)

MAX_REQUESTS: Final = 1000
"""Most requests that `list_requests` returns: what a person can look through, and more."""

_BY_ID: Final = NODES.select + " WHERE node_id = ?"
_BY_NAME: Final = NODES.select + " WHERE name = ? AND status <> 'revoked'"
_BY_ACCOUNT: Final = NODES.select + " WHERE account_id = ?"
_BY_IDENTITY: Final = " ".join(
    (
        NODES.select,
        "WHERE node_id = (SELECT node_id FROM node_identities",
        "WHERE fingerprint = ? AND revoked_at IS NULL)",
    )
)
_PAGE: Final = " ".join(
    (
        NODES.select,
        # Pods that are gone would hide those that are there.
        "WHERE (status = ?1 OR (?1 IS NULL AND (pod IS NULL OR status <> 'revoked')))",
        "AND (?2 IS NULL OR (name, node_id) >",
        "(SELECT name, node_id FROM nodes WHERE node_id = ?2)) ORDER BY name, node_id LIMIT ?3",
    )
)
_IDENTITY: Final = IDENTITIES.select + " WHERE fingerprint = ?"
_TOKEN: Final = TOKENS.select + " WHERE token_sha256 = ?"
_TOKEN_BY_ID: Final = TOKENS.select + " WHERE token_id = ?"
_REQUEST: Final = REQUESTS.select + " WHERE request_id = ?"
_NEWEST_REQUEST: Final = (
    REQUESTS.select + " WHERE spki_sha256 = ? ORDER BY created_at DESC, request_id DESC LIMIT 1"
)

# What an agent acknowledged or when it was seen is kept by others and only goes up.
_KEPT: Final = frozenset({"node_id", "acknowledged", "seen_at"})
_CHANGED: Final = tuple(name for name in NODES.columns if name not in _KEPT)
_CHANGE: Final = " ".join(
    ("UPDATE nodes SET", ", ".join(f"{name} = ?" for name in _CHANGED), "WHERE node_id = ?")
)


_FORGET: Final = " ".join(
    (
        "DELETE FROM node_identities WHERE fingerprint IN",
        "(SELECT fingerprint FROM node_identities AS ended WHERE not_after < ? AND NOT EXISTS",
        "(SELECT 1 FROM nodes WHERE nodes.node_id = ended.node_id",
        "AND nodes.fingerprint = ended.fingerprint) LIMIT ?)",
    )
)


class Nodes(Part):
    """The ports NodeStore and NodeWatch."""

    async def add_node(
        self,
        node: NodeRecord,
        identity: IssuedIdentity,
        event: Event,
        *,
        token_id: str | None,
        account: AccountRecord | None = None,
    ) -> NodeRecord:
        """Keep a new node with its account, spending the token; see the port."""

        def work(transaction: Transaction) -> NodeRecord:
            if token_id is not None:
                _spend(transaction, token_id, node)
            if transaction.first(_BY_NAME, node.name) is not None:
                raise Conflict(f"node name {node.name} is taken")
            if account is not None:
                _open_account(transaction, account)
            transaction.change(NODES.insert, *NODES.values(node))
            _keep_identity(transaction, node.node_id, identity, event.at)
            if token_id is not None:
                transaction.change(
                    "UPDATE join_tokens SET used_by = ? WHERE token_id = ?", node.node_id, token_id
                )
            transaction.record((event,))
            return node

        return await self._database.write(work)

    async def find_node(self, reference: str) -> NodeRecord | None:
        """Return the node of that id, or of that name if it is not revoked."""

        def work(snapshot: Snapshot) -> NodeRecord | None:
            row = snapshot.first(_BY_ID, reference) or snapshot.first(_BY_NAME, reference)
            return None if row is None else NODES.read(row)

        return await self._database.read(work)

    async def find_node_by_identity(self, fingerprint: str) -> NodeRecord | None:
        """Return whose identity certificate that is; None for a revoked identity."""
        return await self._find_node_by(_BY_IDENTITY, fingerprint)

    async def find_node_by_account(self, account_id: str) -> NodeRecord | None:
        """Return the node whose account that is, revoked or not."""
        return await self._find_node_by(_BY_ACCOUNT, account_id)

    async def _find_node_by(self, statement: str, parameter: str) -> NodeRecord | None:
        def work(snapshot: Snapshot) -> NodeRecord | None:
            row = snapshot.first(statement, parameter)
            return None if row is None else NODES.read(row)

        return await self._database.read(work)

    async def change_node(
        self,
        node: NodeRecord,
        *,
        expected: Sequence[NodeStatus],
        events: Sequence[Event],
        identity: IssuedIdentity | None = None,
    ) -> None:
        """Keep *node* in place of what is there; one that is revoked loses its identities."""

        def work(transaction: Transaction) -> None:
            row = transaction.first(_BY_ID, node.node_id)
            found = None if row is None else NODES.read(row)
            if found is None or found.status not in expected:
                seen = "unknown" if found is None else found.status.value
                raise Conflict(f"node {node.node_id} is {seen}")
            kept = node if identity is None else _identified(found, node)
            values = dict(zip(NODES.columns, NODES.values(kept), strict=True))
            transaction.change(_CHANGE, *(values[name] for name in _CHANGED), node.node_id)
            at = events[0].at if events else node.enrolled_at
            if identity is not None:
                _keep_identity(transaction, node.node_id, identity, at)
            if node.status is NodeStatus.REVOKED:
                _end(transaction, node.node_id, at)
            transaction.record(events)

        await self._database.write(work)

    async def list_nodes(
        self, *, status: NodeStatus | None, after: str | None, limit: int
    ) -> Sequence[NodeRecord]:
        """Return nodes by name; *after* is the id of the last of the page before."""
        word = None if status is None else status.value
        return await self._database.scan(
            lambda snapshot: NODES.read_all(snapshot.all(_PAGE, word, after, limit))
        )

    async def identities_of(self, node_id: str) -> Sequence[bytes]:
        """Return the DER of its identity certificates that have not been revoked, newest first."""

        def work(snapshot: Snapshot) -> list[bytes]:
            rows = snapshot.all(
                "SELECT certificate_der FROM node_identities"
                " WHERE node_id = ? AND revoked_at IS NULL ORDER BY not_after DESC",
                node_id,
            )
            return [der for (der,) in rows]

        return await self._database.read(work)

    async def find_identity(self, fingerprint: str) -> IdentityRecord | None:
        """Return the identity certificate, whatever became of it, or None."""

        def work(snapshot: Snapshot) -> IdentityRecord | None:
            row = snapshot.first(_IDENTITY, fingerprint)
            return None if row is None else IDENTITIES.read(row)

        return await self._database.read(work)

    async def note_seen(
        self, node_id: str, at: datetime, *, agent_version: str | None, wire_version: str | None
    ) -> None:
        """Keep when a node was seen last and what it speaks, without fsync."""

        def work(transaction: Transaction) -> None:
            transaction.change(
                "UPDATE nodes SET seen_at = max(ifnull(seen_at, 0), ?),"
                " agent_version = ifnull(?, agent_version),"
                " wire_version = ifnull(?, wire_version) WHERE node_id = ?",
                time_of(at),
                agent_version,
                wire_version,
                node_id,
            )

        await self._database.write(work, durable=False)

    async def forget_ended(self, before: datetime, limit: int) -> int:
        """Forget what ended before that; see the port."""

        def work(transaction: Transaction) -> int:
            at = time_of(before)
            transaction.change("DELETE FROM join_tokens WHERE expires_at < ?", at)
            transaction.change("DELETE FROM enrolment_requests WHERE expires_at < ?", at)
            return transaction.change(_FORGET, at, limit)

        return await self._database.write(work, durable=False)

    async def count_nodes(self) -> Mapping[NodeStatus, int]:
        """Return how many nodes there are in each status."""

        def work(snapshot: Snapshot) -> dict[NodeStatus, int]:
            rows = snapshot.all("SELECT status, count(*) FROM nodes GROUP BY status")
            return dict.fromkeys(NodeStatus, 0) | {NodeStatus(word): n for word, n in rows}

        return await self._database.scan(work)

    async def count_messages(self) -> int:
        """Return how many messages wait for nodes."""

        def work(snapshot: Snapshot) -> int:
            return int((snapshot.first("SELECT count(*) FROM node_messages") or (0,))[0])

        return await self._database.scan(work)


class Enrolments(Part):
    """The port EnrolmentStore, and the list of requests."""

    async def add_join_token(self, token: JoinToken, event: Event) -> None:
        """Keep a new token, of which the store knows a hash alone."""

        def work(transaction: Transaction) -> None:
            transaction.change(TOKENS.insert, *TOKENS.values(token))
            transaction.record((event,))

        await self._database.write(work)

    async def find_join_token(self, token_sha256: str) -> JoinToken | None:
        """Return the token of that hash, or None."""

        def work(snapshot: Snapshot) -> JoinToken | None:
            row = snapshot.first(_TOKEN, token_sha256)
            return None if row is None else TOKENS.read(row)

        return await self._database.read(work)

    async def list_join_tokens(self) -> Sequence[JoinToken]:
        """Return all tokens, newest first."""
        statement = TOKENS.select + " ORDER BY created_at DESC, token_id DESC"
        return await self._database.scan(lambda snapshot: TOKENS.read_all(snapshot.all(statement)))

    async def revoke_join_token(self, token_id: str, at: datetime, event: Event) -> JoinToken:
        """Revoke a token; raises Conflict when it is unknown, spent or revoked."""

        def work(transaction: Transaction) -> JoinToken:
            token = _token(transaction, token_id)
            if token.used_at is not None or token.revoked_at is not None:
                what = "revoked" if token.used_at is None else "spent"
                raise Conflict(f"join token {token_id} is {what} already")
            transaction.change(
                "UPDATE join_tokens SET revoked_at = ? WHERE token_id = ?", time_of(at), token_id
            )
            transaction.record((event,))
            return _token(transaction, token_id)

        return await self._database.write(work)

    async def file_request(self, request: EnrolmentRequest, event: Event) -> EnrolmentRequest:
        """Keep the request, or return the one that this key has open; see the port."""

        def work(transaction: Transaction) -> EnrolmentRequest:
            open_one = (
                REQUESTS.select
                + " WHERE spki_sha256 = ? AND status = 'waiting' AND expires_at > ? LIMIT 1"
            )
            now = time_of(request.created_at)
            row = transaction.first(open_one, request.spki_sha256, now)
            if row is not None:
                return REQUESTS.read(row)
            # One that nobody decided in time makes room.
            transaction.change(
                "DELETE FROM enrolment_requests WHERE status = 'waiting' AND expires_at <= ?", now
            )
            transaction.change(REQUESTS.insert, *REQUESTS.values(request))
            transaction.record((event,))
            return request

        return await self._database.write(work)

    async def find_request(self, reference: str) -> EnrolmentRequest | None:
        """Return the request of that id, or the newest of that key."""

        def work(snapshot: Snapshot) -> EnrolmentRequest | None:
            row = snapshot.first(_REQUEST, reference) or snapshot.first(_NEWEST_REQUEST, reference)
            return None if row is None else REQUESTS.read(row)

        return await self._database.read(work)

    async def change_request(
        self, request: EnrolmentRequest, *, expected: RequestStatus, event: Event
    ) -> None:
        """Keep *request* in place of what is there; see the port."""
        places = ", ".join(f"{name} = ?" for name in REQUESTS.columns)
        statement = " ".join(
            # S608: the columns are those of a record of ours.
            ("UPDATE enrolment_requests SET", places, "WHERE request_id = ? AND status = ?")
        )

        def work(transaction: Transaction) -> None:
            values = REQUESTS.values(request)
            changed = transaction.change(statement, *values, request.request_id, expected.value)
            if not changed:
                raise Conflict(f"request {request.request_id} is not {expected} any more")
            transaction.record((event,))

        await self._database.write(work)

    async def list_requests(self) -> Sequence[EnrolmentRequest]:
        """Return the newest requests, newest first."""
        statement = REQUESTS.select + " ORDER BY created_at DESC, request_id DESC LIMIT ?"
        return await self._database.scan(
            lambda snapshot: REQUESTS.read_all(snapshot.all(statement, MAX_REQUESTS))
        )


def _token(transaction: Transaction, token_id: str) -> JoinToken:
    row = transaction.first(_TOKEN_BY_ID, token_id)
    if row is None:
        raise Conflict(f"join token {token_id} is unknown")
    return TOKENS.read(row)


def _spend(transaction: Transaction, token_id: str, node: NodeRecord) -> None:
    token = _token(transaction, token_id)
    if token.used_at is not None or token.revoked_at is not None:
        raise Conflict(f"join token {token_id} is spent or revoked")
    if token.expires_at <= node.enrolled_at:
        raise Conflict(f"join token {token_id} has expired")
    transaction.change(
        "UPDATE join_tokens SET used_at = ? WHERE token_id = ?", time_of(node.enrolled_at), token_id
    )


def _identified(found: NodeRecord, node: NodeRecord) -> NodeRecord:
    """Return *node*, but for what people and its own messages may have changed meanwhile."""
    others = ("status", "owner", "contact", "agent_version", "wire_version")
    return replace(node, **{name: getattr(found, name) for name in others})


def _open_account(transaction: Transaction, account: AccountRecord) -> None:
    taken = transaction.first(
        "SELECT 1 FROM accounts WHERE thumbprint = ? LIMIT 1", account.thumbprint
    )
    if taken is not None:
        raise Conflict("the identity's key is an account's already")
    transaction.change(ACCOUNTS.insert, *ACCOUNTS.values(account))


def _keep_identity(
    transaction: Transaction, node_id: str, identity: IssuedIdentity, at: datetime
) -> None:
    record = IdentityRecord(
        fingerprint=identity.fingerprint,
        node_id=node_id,
        certificate_der=identity.certificate_der,
        not_after=identity.not_after,
        issued_at=at,
    )
    statement = IDENTITIES.insert + " ON CONFLICT (fingerprint) DO NOTHING"
    transaction.change(statement, *IDENTITIES.values(record))


def _end(transaction: Transaction, node_id: str, at: datetime) -> None:
    """Believe no identity of the node any more, and tell it nothing more."""
    transaction.change(
        "UPDATE node_identities SET revoked_at = ? WHERE node_id = ? AND revoked_at IS NULL",
        time_of(at),
        node_id,
    )
    transaction.change("DELETE FROM node_messages WHERE node_id = ?", node_id)
