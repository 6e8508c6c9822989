"""The account resources of RFC 8555 §7.3 as handlers: register, update, orders list, new key.

Each handler is a few lines, since nothing is decided here.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from broker.issuance.key_changes import KeyInUse
from broker.issuance.records import AccountRecord
from broker.protocol.jws import parse_binding
from broker.protocol.key_change import verify_key_change
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import parse_account_update, parse_new_account
from broker.web.envelope import AccountRequest
from broker.web.handlers import Handlers, json_answer
from broker.web.links import CURSOR, CommunityLinks
from broker.web.origins import origin_of
from broker.web.wire import account_object

__all__ = ["AccountHandlers"]

KEY_IN_USE_STATUS: Final = 409
"""HTTP status where a key is an account's already (RFC 8555 §7.3.5)."""


class AccountHandlers(Handlers):
    """One method for each resource; ``server`` puts them under their paths."""

    async def new_account(self, request: web.Request) -> web.StreamResponse:
        """Register an account, or find the one that the key has (RFC 8555 §7.3)."""
        community, links = self._community(request)
        verified = await self._envelope.open_key_request(request)
        wanted = parse_new_account(verified.json())
        binding = None
        if wanted.eab is not None:
            binding = parse_binding(wanted.eab, expected_url=verified.url, account_key=verified.key)
        with self._gatekeeper.new_account(request) as registration:
            account, is_created = await self._workflows.accounts.register(
                community, verified.key, wanted, binding, origin=origin_of(request)
            )
            registration.is_new = is_created
        answer = json_answer(self._show(links, account), status=201 if is_created else 200)
        answer.headers["Location"] = links.account(account.account_id)
        return answer

    async def account(self, request: web.Request) -> web.StreamResponse:
        """Show or update the account (RFC 8555 §7.3.2, §7.3.6)."""
        opened, links = await self._open(request)
        _check_owner(request, opened)
        account = opened.account
        if not opened.verified.is_post_as_get:
            update = parse_account_update(opened.verified.json())
            account = await self._workflows.accounts.update(account, update)
        return json_answer(self._show(links, account))

    async def orders(self, request: web.Request) -> web.StreamResponse:
        """List the account's living orders, a page at a time (RFC 8555 §7.1.2.1)."""
        opened, links = await self._open_empty(request)
        _check_owner(request, opened)
        account = opened.account
        page, after = await self._workflows.orders.list(account, request.query.get(CURSOR))
        answer = json_answer({"orders": [links.order(order_id) for order_id in page]})
        if after is not None:
            following = links.orders(account.account_id, after=after)
            answer.headers.add("Link", f'<{following}>;rel="next"')
        return answer

    async def key_change(self, request: web.Request) -> web.StreamResponse:
        """Give the account another key (RFC 8555 §7.3.5)."""
        opened, links = await self._open(request)
        change = verify_key_change(opened.verified)
        try:
            account = await self._workflows.key_changes.change(opened.account, change)
        except KeyInUse as taken:
            raise Problem(
                ProblemType.MALFORMED,
                "an account has this key already",
                status=KEY_IN_USE_STATUS,
                location=links.account(taken.account_id),
            ) from None
        return json_answer(self._show(links, account))

    def _show(self, links: CommunityLinks, account: AccountRecord) -> dict[str, object]:
        version = self._communities[account.community].terms_version
        return account_object(links, account, terms_version=version).to_json()


def _check_owner(request: web.Request, opened: AccountRequest) -> None:
    if request.match_info["account_id"] != opened.account.account_id:
        raise Problem(ProblemType.UNAUTHORIZED, "this is the account of somebody else")
