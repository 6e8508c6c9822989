"""The orders that a CA says our account has (RFC 8555 §7.1.2.1), all pages of them.

Asked for after a restore, when the CA may know orders that we don't.  Many CAs offer no list, and
step-ca's holds no order that is done.
"""

from __future__ import annotations

from typing import Final

from broker.issuance.errors import Refused, Unreachable
from broker.issuance.reconciling import OrderListing
from broker.protocol.exchange import Answer
from broker.upstreams.account import read_account
from broker.upstreams.acme import read_order_list
from broker.upstreams.client import AccountKey, AcmeClient

__all__ = ["list_orders"]

MAX_PAGES: Final = 20_000
"""Most pages that are read; Pebble puts three orders on one, step-ca all on the first."""

MAX_ORDERS: Final = 50_000
"""Most orders that are read; past either bound the list counts as cut off."""


async def list_orders(client: AcmeClient, key: AccountKey) -> OrderListing | None:
    """Return the account's orders, or None where the CA offers no list.

    Raises:
        Refused: The CA refuses the account, or its list.
        Unreachable: It cannot answer now.
        Broken: What it answers is no list.
    """
    page = (await read_account(client, key)).orders
    if page is None:
        return None
    found: dict[str, None] = {}
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        seen.add(page)
        try:
            answer: Answer = await client.post(page, None, key=key)
        except (Refused, Unreachable):
            # Boulder's kin name a list in the account and have none behind it; step-ca answers
            # 500 for good once its list was empty.  The account was answered just now, and a CA
            # that went away since says so at the next request.
            if not found:
                return None
            raise
        found |= dict.fromkeys(read_order_list(answer))
        if answer.next_url is None:
            return OrderListing(tuple(found), is_whole=True)
        if answer.next_url in seen or len(found) > MAX_ORDERS:
            break
        page = answer.next_url
    return OrderListing(tuple(found), is_whole=False)
