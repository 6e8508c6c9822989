"""A store is filled with copies that stand beside each other, through the store's own ports."""

import asyncio
import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.filling import EVENTS, fill
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Attached, OrderClosing
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CertificateRecord,
    ChallengeRecord,
    OrderRecord,
    Proof,
    WorkRecord,
    WorkStatus,
)
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.storage.sqlite import SqliteStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = (Identifier(IdentifierType.DNS, "first.bench.example.test"),)


async def make_one_order(path: Path) -> None:
    """Make a store with the one finished order that is copied."""
    store = await SqliteStore.open(path)
    account = AccountRecord(
        account_id="a" * 32,
        community="default",
        status=AccountStatus.VALID,
        jwk_json="{}",
        thumbprint="t" * 43,
        contacts=(),
        terms_agreed=True,
        eab_key_id=None,
        created_at=NOW,
    )
    event = Event(kind=EventKind.ACCOUNT_CREATED, at=NOW)
    await store.create_account(account, event, eab_key_id=None)
    order = OrderRecord(
        order_id="0" * 32,
        account_id=account.account_id,
        community="default",
        status=OrderStatus.PROCESSING,
        identifiers=NAMES,
        authorization_ids=("1" * 32,),
        profile="server",
        is_profile_asked=False,
        not_before=None,
        not_after=None,
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
        decision={},
        upstream="local",
        upstream_profile=None,
        cap_seconds=1,
        ask_not_after=False,
    )
    authorization = AuthorizationRecord(
        authorization_id="1" * 32,
        order_id=order.order_id,
        account_id=account.account_id,
        community="default",
        identifier=NAMES[0],
        is_wildcard=False,
        status=AuthorizationStatus.VALID,
        expires_at=order.expires_at,
        proof=Proof.CHALLENGE,
        challenges=(
            ChallengeRecord(
                challenge_id="2" * 32,
                type=ChallengeType.HTTP_01,
                token="token",
                status=ChallengeStatus.VALID,
            ),
        ),
    )
    work = WorkRecord(
        work_id="3" * 32,
        upstream="local",
        community="default",
        work_key="key",
        identifiers=NAMES,
        upstream_profile=None,
        not_after=None,
        status=WorkStatus.OPENED,
        order_url="builtin:first",
        taken_by=order.order_id,
        is_sent=False,
        created_at=NOW,
    )
    certificate = CertificateRecord(
        certificate_id="4" * 32,
        order_id=order.order_id,
        account_id=account.account_id,
        community="default",
        upstream="local",
        fingerprint="5" * 64,
        serial="6" * 32,
        cert_id="7.8",
        chain_pem=b"chain",
        leaf_der=b"leaf",
        identifiers=NAMES,
        spki_sha256="9" * 64,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        received_at=NOW,
        is_released=True,
    )
    await store.create_order(order, (authorization,), Attached(work=work))
    await store.close_order(
        OrderClosing(
            order_id=order.order_id,
            expected=OrderStatus.PROCESSING,
            status=OrderStatus.VALID,
            certificate=certificate,
            work_id=work.work_id,
            work_status=WorkStatus.SPENT,
        )
    )
    await store.close()


def counted(path: Path, table: str) -> int:
    """Return how many rows a table has."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((number,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(number)


def test_copies_stand_beside_the_order_that_they_are_made_of(tmp_path: Path) -> None:
    """Each has an order, an authorization, work, a certificate and its events, all its own."""
    path = tmp_path / "store.db"
    asyncio.run(make_one_order(path))
    before = counted(path, "events")
    fill(path, 300)
    for table in ("orders", "authorizations", "challenges", "work", "certificates"):
        assert counted(path, table) == 301, table
    assert counted(path, "events") == before + 300 * len(EVENTS)
    assert counted(path, "jobs") == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT DISTINCT status FROM orders").fetchall()
    assert rows == [("valid",)]
