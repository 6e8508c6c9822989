"""Accounts and their keys are found by an index; the behaviour is the contract suite's."""

from broker.protocol.resources import AccountStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_accounts_are_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """No look-up, change or page of accounts reads all of them."""
    made = await given.has_account(store)
    await store.find_account(made.account_id)
    await store.find_account_by_key(made.community, made.thumbprint)
    await store.is_account_key("unknown")
    await store.update_account(
        made.account_id,
        expected=AccountStatus.VALID,
        status=AccountStatus.VALID,
        contacts=(),
        event=given.event(),
    )
    await store.list_accounts(community=None, after=made.account_id, limit=1)
    assert len(plans.steps) >= 7
    assert plans.scans() == set()


async def test_eab_keys_are_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """Binding, finding and revoking a key read no other."""
    key = given.eab_key()
    await store.add_eab_key(key, given.event())
    account = given.account(eab_key_id=key.key_id)
    await store.create_account(account, given.event(), eab_key_id=key.key_id)
    await store.find_eab_key(key.community, key.key_id)
    await store.revoke_eab_key(key.community, key.key_id, given.NOW, given.event())
    assert len(plans.steps) >= 7
    assert plans.scans() == set()
