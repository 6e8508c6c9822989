"""Buckets of tokens in the store."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import OverLimit
from broker.issuance.quota_ports import BucketKind, GivesBack, Take, Taking
from broker.policy.units import Rate
from broker.storage.buckets import SWEPT_AT_A_TIME, give_back, keep_taken, take
from broker.storage.sqlite import SqliteStore
from tests.fakes.fresh_store import open_fresh
from tests.unit.storage.conftest import Plans

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
RATE = Rate(4, HOUR)


class Till:
    """A store, and orders that take from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers = iter(range(1_000_000))

    async def open(self) -> None:
        self.store = await open_fresh(self.path)

    async def take(
        self, *takes: Take, at: datetime = NOW, order: str | None = None, instead: bool = False
    ) -> str:
        """Take these tokens for an order, and return its id."""
        order_id = order or f"o{next(self.numbers)}"
        taking = Taking(order_id=order_id, at=at, takes=takes, is_instead=instead)
        await self.store._database.write(lambda transaction: take(transaction, taking))
        return order_id

    async def give_back(self, order_id: str, *kinds: GivesBack) -> None:
        """End an order so that these come back."""
        await self.store._database.write(lambda done: give_back(done, order_id, kinds))

    async def level(self, bucket: str = "ca|x") -> float | None:
        """Return what a bucket was left with."""
        found = await self.store.read_bucket(bucket)
        return None if found is None else found.level


def one(bucket: str = "ca|x", **how: object) -> Take:
    """Return a token of a bucket."""
    given: dict[str, object] = {"bucket": bucket, "kind": BucketKind.CA, "rate": RATE, **how}
    return Take(**given)  # type: ignore[arg-type]


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    """An empty store."""
    made = Till(tmp_path / "store.db")
    await made.open()
    yield made
    await made.store.close()


async def test_bucket_is_full_at_first_and_then_kept(till: Till) -> None:
    """What nothing was taken of has no row."""
    assert await till.level() is None
    await till.take(one())
    assert await till.level() == 3


async def test_too_few_tokens_take_nothing_and_say_how_long(till: Till) -> None:
    """From none of the buckets, whichever comes first."""
    for _ in range(4):
        await till.take(one())
    with pytest.raises(OverLimit, match=r"has 0\.0 tokens") as over:
        await till.take(one("ca|y"), one(), one("ca|z"))
    assert (over.value.bucket, over.value.wait) == ("ca|x", HOUR / 4)
    assert await till.level("ca|y") is None
    assert await till.level("ca|z") is None


async def test_level_outlives_the_process(till: Till) -> None:
    """With the time at which it was that."""
    await till.take(one(), at=NOW + HOUR)
    await till.store.close()
    till.store = await SqliteStore.open(till.path)
    found = await till.store.read_bucket("ca|x")
    assert found is not None
    assert (found.level, found.at, found.count) == (3, NOW + HOUR, 4)


async def test_first_level_is_used_once(till: Till) -> None:
    """A bucket that is kept knows better."""
    await till.take(one(at_first=2.0))
    assert await till.level() == 1
    await till.take(one(at_first=4.0))
    assert await till.level() == 0


@pytest.mark.parametrize(
    ("gives_back", "ends", "level"),
    [
        pytest.param(GivesBack.UNSENT, (GivesBack.UNSENT, GivesBack.UNISSUED), 4, id="unheard of"),
        pytest.param(GivesBack.UNSENT, (GivesBack.UNISSUED,), 3, id="sent"),
        pytest.param(GivesBack.UNISSUED, (GivesBack.UNISSUED,), 4, id="no certificate"),
        pytest.param(GivesBack.NEVER, tuple(GivesBack), 3, id="never"),
    ],
)
async def test_what_comes_back(
    till: Till, gives_back: GivesBack, ends: tuple[GivesBack, ...], level: float
) -> None:
    """Once, however often the order ends."""
    order_id = await till.take(one(gives_back=gives_back))
    for _ in range(3):
        await till.give_back(order_id, *ends)
    assert await till.level() == level


async def test_what_was_used_does_not_come_back(till: Till) -> None:
    """A certificate that came has cost its token."""
    order_id = await till.take(one(gives_back=GivesBack.UNISSUED))
    await till.store._database.write(lambda done: keep_taken(done, order_id))
    await till.give_back(order_id, *GivesBack)
    assert await till.level() == 3


async def test_order_that_goes_elsewhere_takes_there_and_gives_back_here(till: Till) -> None:
    """Quotas of policy were for the asking, and stay."""
    rule = one("policy|r", kind=BucketKind.POLICY)
    await till.take(one())
    order_id = await till.take(one(gives_back=GivesBack.UNISSUED), rule)
    await till.take(one("ca|next"), order=order_id, instead=True)
    assert await till.level("ca|x") == 3
    assert await till.level("ca|next") == 3
    assert await till.level("policy|r") == 3


async def test_quota_that_counts_by_ca_goes_with_the_order(till: Till) -> None:
    """Back where only the CA that is left was counted, kept where both are, taken at the next."""
    how = {"kind": BucketKind.POLICY, "gives_back": GivesBack.MOVED}
    left, both, there = (one(f"policy|{name}", **how) for name in ("left", "both", "there"))
    order_id = await till.take(left, both)
    await till.take(left)  # somebody else's: a bucket that is full has no row
    for _ in range(2):
        await till.take(both, there, order=order_id, instead=True)
        assert await till.level("policy|left") == 3
        assert await till.level("policy|both") == 3
        assert await till.level("policy|there") == 3
    await till.take(left, both, order=order_id, instead=True)
    assert await till.level("policy|left") == 2
    assert await till.level("policy|both") == 3
    assert await till.level("policy|there") is None, "it is full again"
    await till.give_back(order_id, GivesBack.UNISSUED, GivesBack.UNSENT)
    assert await till.level("policy|left") == 2, "its end brings nothing back: it was asked for"


async def test_where_the_next_quota_has_no_room_nothing_moves(till: Till) -> None:
    """Of the quota that is left neither."""
    how = {"kind": BucketKind.POLICY, "gives_back": GivesBack.MOVED}
    for _ in range(4):
        await till.take(one("policy|there", **how))
    order_id = await till.take(one("policy|left", **how))
    with pytest.raises(OverLimit, match=r"policy\|there"):
        await till.take(one("policy|there", **how), order=order_id, instead=True)
    assert await till.level("policy|left") == 3


async def test_where_the_next_has_no_room_nothing_moves(till: Till) -> None:
    """Not even what would have come back."""
    for _ in range(4):
        await till.take(one("ca|next"))
    order_id = await till.take(one(gives_back=GivesBack.UNISSUED))
    with pytest.raises(OverLimit):
        await till.take(one("ca|next"), order=order_id, instead=True)
    assert await till.level("ca|x") == 3


async def test_buckets_that_are_full_again_go(till: Till) -> None:
    """So that a million names leave no million rows."""
    for number in range(3 * SWEPT_AT_A_TIME):
        await till.take(one(f"ca|{number}"))
    for _ in range(3):
        await till.take(one(), at=NOW + 2 * HOUR)
    kept = await till.store.list_buckets("", 1000)
    assert [found.bucket for found in kept] == ["ca|x"]


async def test_list_begins_with_the_emptiest(till: Till) -> None:
    """Of those whose name begins so."""
    await till.take(one("ca|a|1"))
    for _ in range(2):
        await till.take(one("ca|a|2"))
    await till.take(one("ca|b|3"))
    assert [found.bucket for found in await till.store.list_buckets("ca|a|", 9)] == [
        "ca|a|2",
        "ca|a|1",
    ]
    assert len(await till.store.list_buckets("", 2)) == 2


async def test_no_take_reads_a_whole_table(till: Till, plans: Plans) -> None:
    """It is done in the transaction of every order."""
    order_id = await till.take(one(gives_back=GivesBack.UNISSUED))
    await till.give_back(order_id, GivesBack.UNISSUED)
    assert plans.scans() == set()
