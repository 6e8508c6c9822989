"""Outboxes in SQLite: a message rides in the transaction of what it tells of."""

import pytest

from broker.storage.outbox import queue
from broker.storage.sqlite import SqliteStore
from broker.storage.transaction import Transaction
from tests.contract.storage.test_nodes import add, message


async def test_message_of_a_change_that_fails_is_not_sent(store: SqliteStore) -> None:
    """Neither is its number spent."""
    await add(store)

    def work(transaction: Transaction) -> None:
        queue(transaction, [message("a")])
        raise LookupError("the change failed")

    with pytest.raises(LookupError):
        await store._database.write(work)
    assert await store.queued_messages("id-1", 0, 10) == []
    await store.queue_messages([message("b")])
    (waiting,) = await store.queued_messages("id-1", 0, 10)
    assert (waiting.seq, waiting.subject) == (1, "b")
