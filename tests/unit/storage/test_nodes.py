"""Nodes in SQLite: every question on the way of a request is answered by an index."""

from broker.storage.sqlite import SqliteStore
from tests.contract.storage.test_nodes import add, message
from tests.unit.storage.conftest import Plans


async def test_requests_of_agents_scan_nothing(store: SqliteStore, plans: Plans) -> None:
    """However many nodes there are."""
    await add(store)
    await store.find_node("id-1")
    await store.find_node("web-01")
    await store.find_node_by_identity("first-1")
    await store.find_node_by_account("account-1")
    await store.find_identity("first-1")
    await store.identities_of("id-1")
    await store.find_join_token("hash")
    await store.find_request("key-1")
    await store.queue_messages([message("a")])
    await store.queued_messages("id-1", 0, 10)
    await store.acknowledge("id-1", 1)
    assert plans.scans() == set()
