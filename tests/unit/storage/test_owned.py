"""What an account owns is found by indexes; the behaviour is the contract suite's."""

from dataclasses import replace

from broker.issuance.records import Proof
from broker.protocol.resources import AuthorizationStatus
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW
from tests.unit.storage.conftest import Plans


async def test_lists_and_endings_go_by_indexes(store: SqliteStore, plans: Plans) -> None:
    """No statement reads what belongs to others."""
    (part,) = await given.has_authorizations(store, 1)
    order = await store.load_order(part.order_id or "")
    assert order is not None
    await store.orders_of_account(order.account_id, at=NOW, after=None, limit=10)
    await store.orders_of_account(order.account_id, at=NOW, after=order.order_id, limit=10)
    ahead = replace(
        given.authorization(order, status=AuthorizationStatus.VALID, proof=Proof.CHALLENGE),
        order_id=None,
    )
    await store.create_authorization(ahead, given.event())
    await store.proved_ahead(order.account_id, [ahead.identifier], until=NOW)
    await store.is_reserved_key(thumbprint="x", spki_sha256="y")
    await store.close_account(given.account_closing(order.account_id))
    assert len(plans.steps) >= 10
    assert plans.scans() == set()


async def test_proof_that_ends_is_looked_for_by_time(store: SqliteStore) -> None:
    """At its end it proves nothing."""
    (part,) = await given.has_authorizations(store, 1)
    order = await store.load_order(part.order_id or "")
    assert order is not None
    ahead = given.authorization(
        order,
        order_id=None,
        status=AuthorizationStatus.VALID,
        proof=Proof.CHALLENGE,
        expires_at=NOW + HOUR,
    )
    await store.create_authorization(ahead, given.event())
    names = [ahead.identifier]
    assert await store.proved_ahead(order.account_id, names, until=NOW) == [ahead]
    assert await store.proved_ahead(order.account_id, names, until=NOW + HOUR) == []
