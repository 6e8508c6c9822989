"""A process that works on a store and says what was acknowledged, to be killed or starved.

``python -m tests.contract.storage.worker PLAN PATH``.  Each line on stdout is written whole,
by one system call, right after the acknowledgement it tells of.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached
from broker.issuance.records import JobKind, WorkStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given

ORDERS_AT_ONCE = 8
"""Orders that are under way at the same time: enough for group commits of several units."""

EVENTS = 48
"""Events that the plans ``mixed`` and ``durable`` append."""

DURABLE_EVERY = 4
"""Of the plan ``mixed``, every fourth event is durable, the three before it are not."""

RETRY_SECONDS = 0.01
"""Pause after a refusal, in seconds: the fault lasts for a number of calls, not for a time."""


def say(*words: object) -> None:
    """Tell the parent, in one write."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def append_events(store: SqliteStore, *, durable_every: int) -> None:
    """Append numbered events, every so many of them durable; go on after a refusal."""
    for number in range(EVENTS):
        is_durable = number % durable_every == durable_every - 1
        event = given.event(data={"number": number})
        while True:
            try:
                await store.append(event, durable=is_durable)
            except Unreachable as error:
                say("refused", number, error.reason)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        say("durable" if is_durable else "relaxed", number)


async def drive_orders(store: SqliteStore) -> None:
    """Take orders through their whole life, for ever, several at once."""
    await asyncio.gather(*(_drive(store) for _ in range(ORDERS_AT_ONCE)))


async def _drive(store: SqliteStore) -> None:
    while True:
        order = given.order(await given.has_account(store), order_id=_unique("order"))
        parts = [given.authorization(order, authorization_id=_unique("part")) for _ in range(2)]
        order = replace(order, authorization_ids=tuple(one.authorization_id for one in parts))
        event = given.event(EventKind.ORDER_CREATED, order_id=order.order_id)
        await store.create_order(order, parts, Attached(events=(event,)))
        say("pending", order.order_id)
        for part in parts:
            is_ready = await store.change_challenge(given.validated(part), durable=False)
        assert is_ready
        say("ready", order.order_id)
        job = given.job(JobKind.FULFIL, subject=order.order_id)
        claimed, work = await store.claim_finalize(
            given.claim(
                order,
                work_key=order.order_id,
                new_work=given.work(work_id=_unique("work"), work_key=order.order_id),
                attached=Attached(jobs=(job,)),
            )
        )
        say("processing", order.order_id)
        await store.close_order(
            given.closing(
                claimed,
                certificate=given.certificate(
                    claimed, certificate_id=_unique("certificate"), fingerprint=_unique("leaf")
                ),
                work_id=work.work_id,
                work_status=WorkStatus.SPENT,
                attached=Attached(
                    events=(given.event(EventKind.CERTIFICATE_ISSUED, order_id=order.order_id),),
                    done=((job.kind, job.subject),),
                ),
            )
        )
        say("valid", order.order_id)


def _unique(prefix: str) -> str:
    """Return an id that no earlier process of the same test has used either."""
    return f"{given.name(prefix)}-{os.getpid()}"


async def main(plan: str, path: Path) -> None:
    """Open the store and follow *plan*."""
    store = await SqliteStore.open(path)
    say("open", os.getpid())
    if plan == "orders":
        await drive_orders(store)
    else:
        await append_events(store, durable_every=DURABLE_EVERY if plan == "mixed" else 1)
    say("done")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
