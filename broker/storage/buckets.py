"""Buckets of tokens: taken from in the transaction of an order, given back in that of its end.

Every take reads the row that it changes, in the transaction that changes it, so processes over
one database cannot take the same token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import OverLimit
from broker.issuance.ports import OrderClosing
from broker.issuance.quota_ports import BucketKind, BucketRecord, GivesBack, Take, Taking
from broker.policy.buckets import Bucket
from broker.policy.units import Rate, format_rate
from broker.storage.part import Part
from broker.storage.rows import moment_of, time_of
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["Buckets", "give_back", "give_back_unissued", "keep_taken", "settle_taken", "take"]

SWEPT_AT_A_TIME: Final = 8
"""Buckets that are full again and go with each take: more than one order ever makes."""

MICROSECOND: Final = timedelta(microseconds=1)
"""Unit of a period in a row, as of every time."""

_SELECT: Final = "SELECT bucket, kind, count, period_microseconds, level, at FROM buckets"
_KEEP: Final = (
    "INSERT INTO buckets (bucket, kind, count, period_microseconds, level, at, full_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (bucket) DO UPDATE SET"
    " count = excluded.count, period_microseconds = excluded.period_microseconds,"
    " level = excluded.level, at = excluded.at, full_at = excluded.full_at"
)
_SWEEP: Final = (
    "DELETE FROM buckets WHERE bucket IN"
    " (SELECT bucket FROM buckets INDEXED BY buckets_full WHERE full_at <= ?"
    " ORDER BY full_at LIMIT ?)"
)
_REMEMBER: Final = (
    "INSERT INTO taken_tokens (order_id, bucket, kind, gives_back) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)


class Buckets(Part):
    """The port BucketStore, but for the history of orders."""

    async def read_bucket(self, bucket: str) -> BucketRecord | None:
        """Return the bucket as it was left, None where nothing was ever taken."""

        def work(snapshot: Snapshot) -> BucketRecord | None:
            return _read(snapshot, bucket)

        return await self._database.read(work)

    async def list_buckets(self, prefix: str, limit: int) -> Sequence[BucketRecord]:
        """Return buckets whose name begins so, the emptiest first."""

        def work(snapshot: Snapshot) -> Sequence[BucketRecord]:
            rows = snapshot.all(
                _SELECT + " WHERE substr(bucket, 1, ?) = ? ORDER BY level / count, bucket LIMIT ?",
                len(prefix),
                prefix,
                limit,
            )
            return [_record(row) for row in rows]

        return await self._database.scan(work)


def take(transaction: Transaction, taking: Taking) -> None:
    """Take every token of *taking*.

    Raises:
        OverLimit: One bucket has too few; the one that takes longest to have enough is named.
    """
    counted = _leave(transaction, taking) if taking.is_instead else frozenset()
    short: list[OverLimit] = []
    for one in taking.takes:
        if one.bucket in counted:
            continue
        bucket = _bucket(transaction, one, taking.at)
        if bucket.is_enough(1, floor=one.floor):
            _keep(transaction, one.bucket, one.kind, bucket.without(1))
            if one.gives_back is not GivesBack.NEVER:
                transaction.change(
                    _REMEMBER, taking.order_id, one.bucket, one.kind.value, one.gives_back.value
                )
        elif one.is_enforced:
            short.append(_short(one, bucket))
        elif one.told is not None:
            transaction.record((one.told,))
    if short:
        raise max(short, key=lambda each: each.wait)
    if taking.takes:
        transaction.change(_SWEEP, time_of(taking.at), SWEPT_AT_A_TIME)


def give_back(
    transaction: Transaction,
    order_id: str,
    kinds: Sequence[GivesBack],
    *,
    but: Collection[str] = (),
) -> None:
    """Put back the tokens of an order that come back in these cases, and forget all of them; those
    of buckets in *but* stay as they are.

    No time is needed: what a bucket has since been filled up by is added when it is next looked at.
    """
    rows = transaction.all(
        "SELECT bucket, gives_back FROM taken_tokens WHERE order_id = ?", order_id
    )
    for bucket, gives_back in rows:
        if bucket in but:
            continue
        transaction.change(
            "DELETE FROM taken_tokens WHERE order_id = ? AND bucket = ?", order_id, bucket
        )
        if gives_back in kinds:
            found = _read(transaction, bucket)
            # One that is gone was full again.
            if found is not None:
                _keep(transaction, bucket, found.kind, _filled(found, found.at).with_back(1))


def _leave(transaction: Transaction, taking: Taking) -> frozenset[str]:
    """Give back what was taken for the CA that the order leaves, and return the buckets of policy
    that count it at the next one too."""
    rows = transaction.all(
        "SELECT bucket FROM taken_tokens WHERE order_id = ? AND kind = ?",
        taking.order_id,
        BucketKind.POLICY.value,
    )
    wanted = {one.bucket for one in taking.takes}
    counted = frozenset(str(row[0]) for row in rows if row[0] in wanted)
    is_sent = taking.is_heard_of or _has_been_sent(transaction, taking.order_id)
    kinds = (GivesBack.UNISSUED, GivesBack.MOVED) if is_sent else tuple(GivesBack)
    give_back(transaction, taking.order_id, kinds, but=counted)
    return counted


def give_back_unissued(transaction: Transaction, order_id: str, *, is_unsent: bool) -> None:
    """Put back what an order took that ended without a certificate; all of it where no CA has
    heard of it."""
    kinds = (GivesBack.UNISSUED, GivesBack.UNSENT) if is_unsent else (GivesBack.UNISSUED,)
    give_back(transaction, order_id, kinds)


def settle_taken(transaction: Transaction, closing: OrderClosing) -> None:
    """Let what was taken for a certificate that came be gone, and for one that was there already
    come back."""
    if closing.certificate is not None:
        keep_taken(transaction, closing.order_id)
    elif closing.again is not None:
        is_sent = _has_been_sent(transaction, closing.order_id)
        give_back_unissued(transaction, closing.order_id, is_unsent=not is_sent)


def _has_been_sent(snapshot: Snapshot, order_id: str) -> bool:
    """Return whether a CA has heard of the order, or may have."""
    statement = "SELECT 1 FROM work WHERE taken_by = ? AND (is_sent OR order_url IS NOT NULL)"
    return snapshot.first(statement, order_id) is not None


def keep_taken(transaction: Transaction, order_id: str) -> None:
    """Let nothing of what the order took come back: it was used."""
    transaction.change("DELETE FROM taken_tokens WHERE order_id = ?", order_id)


def _bucket(snapshot: Snapshot, one: Take, at: datetime) -> Bucket:
    found = _read(snapshot, one.bucket)
    if found is not None:
        return _filled(found, at).resized(one.rate)
    full = Bucket.full(one.rate, at)
    return full if one.at_first is None else full.without(one.rate.count - one.at_first)


def _filled(record: BucketRecord, at: datetime) -> Bucket:
    rate = Rate(record.count, timedelta(microseconds=record.period_microseconds))
    return Bucket(rate, record.level, record.at).filled(at)


def _keep(transaction: Transaction, name: str, kind: BucketKind, bucket: Bucket) -> None:
    full_at = bucket.at + bucket.wait_for(float(bucket.rate.count))
    transaction.change(
        _KEEP,
        name,
        kind.value,
        bucket.rate.count,
        bucket.rate.period // MICROSECOND,
        bucket.level,
        time_of(bucket.at),
        time_of(full_at),
    )


def _short(one: Take, bucket: Bucket) -> OverLimit:
    return OverLimit(
        f"bucket '{one.bucket}' of {format_rate(one.rate)} has {bucket.level:.1f} tokens",
        bucket=one.bucket,
        limit=format_rate(one.rate),
        wait=bucket.wait_for(one.floor + 1),
        floor=one.floor,
    )


def _read(snapshot: Snapshot, bucket: str) -> BucketRecord | None:
    row = snapshot.first(_SELECT + " WHERE bucket = ?", bucket)
    return None if row is None else _record(row)


def _record(row: tuple[str, str, int, int, float, int]) -> BucketRecord:
    bucket, kind, count, period_microseconds, level, at = row
    return BucketRecord(
        bucket=bucket,
        kind=BucketKind(kind),
        count=count,
        period_microseconds=period_microseconds,
        level=level,
        at=moment_of(at),
    )
