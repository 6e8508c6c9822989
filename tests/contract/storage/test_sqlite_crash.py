"""A process that is killed at any moment has lost nothing it acknowledged, and left nothing half.

The worker takes orders through their whole life, eight at a time, and is killed after so many
lines, or as it enters its Nth fsync.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.issuance.events import EventKind
from broker.issuance.records import JobKind, WorkStatus
from broker.protocol.resources import OrderStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.disk import REPOSITORY, Disk, run_worker, said
from tests.contract.storage.given import NOW

STAGES = ["pending", "ready", "processing", "valid"]

SEED = 8555
"""Makes the moments of the kills random and repeatable."""

KILLS = 4
"""Processes that are killed one after the other on one store."""

LONGEST_LIFE = 200
"""Most acknowledgements that a process lives to see."""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """The path of a store that is there and whole."""
    path = tmp_path / "store" / "penstock.db"
    await (await SqliteStore.open(path)).close()
    return path


async def check_store(path: Path, lines: Sequence[Sequence[str]]) -> int:
    """Check the store against what was acknowledged; return how many orders it holds."""
    store = await SqliteStore.open(path)
    try:
        for stage, order_id in (one for one in lines if one[0] in STAGES):
            order = await store.load_order(order_id)
            assert order is not None, f"order {order_id} was acknowledged and is gone"
            assert STAGES.index(order.status) >= STAGES.index(stage)
        return await check_every_order(store)
    finally:
        await store.close()


async def check_every_order(store: SqliteStore) -> int:
    """Check that each order has all that belongs to its status, and nothing else."""
    jobs = {one.subject for one in await store.due_jobs(NOW, 10_000)}
    orders = await store.list_orders(
        community=None, account_id=None, status=None, after=None, limit=10_000
    )
    for order in orders:
        parts = [await store.load_authorization(one) for one in order.authorization_ids]
        assert len([one for one in parts if one is not None]) == 2
        is_ready = all(one is not None and one.status == "valid" for one in parts)
        assert is_ready == (order.status is not OrderStatus.PENDING)
        work = await store.work_of_order(order.order_id)
        assert (work is not None) == (order.csr_der is not None)
        is_processing = order.status is OrderStatus.PROCESSING
        assert (order.order_id in jobs) == is_processing
        is_valid = order.status is OrderStatus.VALID
        assert (work is not None and work.status is WorkStatus.SPENT) == is_valid
        certificate = await store.find_certificate(order.certificate_id or "")
        assert (certificate is not None) == is_valid
        events = await store.read_events(after=0, limit=9, order_id=order.order_id)
        expected = [EventKind.ORDER_CREATED, EventKind.CERTIFICATE_ISSUED]
        assert [one.kind for _, one in events] == expected[: 1 + is_valid]
    counts = await store.outcome_counts()
    assert counts["orders_processing"] == counts[f"jobs_{JobKind.FULFIL.value}"]
    return len(orders)


def run_and_kill(path: Path, after_lines: int) -> list[list[str]]:
    """Let a worker live for so many acknowledgements; return all that it got to say."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.storage.worker", "orders", str(path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(1 + after_lines)]
        os.kill(worker.pid, signal.SIGKILL)
        lines += worker.stdout.readlines()
    return [line.split() for line in lines]


async def test_killed_process_has_lost_nothing(path: Path) -> None:
    """Process after process is killed on one store: each finds it whole, with all that every one
    before it had acknowledged."""
    moments = random.Random(SEED)
    lines: list[list[str]] = []
    for _ in range(KILLS):
        lines += run_and_kill(path, moments.randint(0, LONGEST_LIFE))
        orders = await check_store(path, lines)
        assert orders >= len({order_id for stage, order_id in lines if stage in STAGES})
    assert len(lines) > KILLS


@pytest.mark.peers
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 13, 21, 34])
async def test_process_killed_in_a_commit_has_lost_nothing(
    path: Path, tmp_path: Path, number: int
) -> None:
    """Killed as it enters its Nth fsync, with or without the machine's power: what was
    acknowledged is there; what was not is there whole or not at all."""
    disk = Disk(path.parent)
    calls, status = run_worker("orders", path, inject=[f"fdatasync:signal=KILL:when={number}"])
    assert status == -signal.SIGKILL
    await check_store(path, said(calls))
    for call in calls:
        disk.follow(call)
    disk.write_to(tmp_path / "cut")
    await check_store(tmp_path / "cut" / path.name, said(calls))
