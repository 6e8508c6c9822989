"""Upstream accounts are found by an index; the behaviour is the contract suite's."""

from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_upstream_accounts_are_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """Keeping, finding, and asking for a key read no other account."""
    made = given.upstream_account()
    await store.save_upstream_account(made, given.event())
    await store.find_upstream_account(made.upstream, made.community)
    await store.is_account_key(made.thumbprint)
    assert len(plans.steps) >= 4
    assert plans.scans() == set()
