"""The orders that a CA lists."""

from broker.protocol.resources import OrderStatus
from broker.upstreams.listing import list_orders
from tests.fakes.ca_simulator import with_members
from tests.fakes.hostile_ca.script import Resource
from tests.unit.upstreams.given import Given, given


async def listed(known: Given) -> tuple[str, ...] | None:
    """Return the URLs that the CA lists for our account."""
    record = await known.accounts.find_upstream_account("ca", "default")
    assert record is not None
    key = await known.client.account_key(record.key_id)
    found = await list_orders(known.client, key.speaking_for(record.account_url))
    if found is None:
        return None
    assert found.is_whole
    return tuple(found.urls)


async def test_every_order_of_ours_is_listed() -> None:
    """Each once, whatever page it stands on."""
    known = await given()
    opened = [await known.opened(f"w{number}.example.com") for number in range(3)]
    assert all(one.status is not OrderStatus.INVALID for one in opened)
    assert sorted(await listed(known) or ()) == sorted(one.url for one in opened)


async def test_ca_without_a_list_is_no_fault() -> None:
    """Many have none (RFC 8555 §7.1.2 wants it, and is not followed)."""
    known = await given()
    known.ca.intercept(Resource.ACCOUNT, lambda honest: with_members(honest(), {"orders": None}))
    assert await listed(known) is None
