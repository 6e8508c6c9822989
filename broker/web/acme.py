"""The ACME resources of RFC 8555 §7 as handlers: open the envelope, call a workflow, answer.

Each handler is a few lines, since nothing is decided here.  Those of accounts are in ``accounts``.
"""

from __future__ import annotations

from aiohttp import web

from broker.issuance.records import AccountRecord, AuthorizationRecord, OrderRecord
from broker.protocol.jws import VerifiedRequest
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import (
    parse_finalize,
    parse_new_authorization,
    parse_new_order,
    parse_revocation,
)
from broker.protocol.resources import (
    AuthorizationStatus,
    ChallengeStatus,
    Directory,
    DirectoryMeta,
    OrderStatus,
)
from broker.web.envelope import AccountRequest
from broker.web.handlers import Site, check_empty, is_read, json_answer
from broker.web.links import CommunityLinks
from broker.web.origins import origin_of
from broker.web.renewal import RenewalHandlers
from broker.web.wire import (
    authorization_object,
    challenge_object,
    order_object,
)
from broker.web.workflows import ProfileNames

__all__ = ["AcmeHandlers"]


class AcmeHandlers(RenewalHandlers):
    """One method for each resource; ``server`` puts them under their paths."""

    def __init__(self, site: Site, profiles: ProfileNames) -> None:
        super().__init__(site)
        self._profiles = profiles

    # ------------------------------------------------------------------ directory and nonces

    async def directory(self, request: web.Request) -> web.StreamResponse:
        """Answer with the directory; by POST too, as POST-as-GET (RFC 8555 §6.3)."""
        community, links = self._community(request)
        if request.method == "POST":
            check_empty(await self._envelope.open_account_request(request, community))
        settings = self._communities[community]
        listed = Directory(
            new_nonce=links.new_nonce,
            new_account=links.new_account,
            new_order=links.new_order,
            new_authz=links.new_authorization if settings.is_pre_authorizing else None,
            revoke_cert=links.revoke_certificate,
            renewal_info=links.renewal_info,
            key_change=links.key_change,
            meta=DirectoryMeta(
                terms_of_service=settings.terms_of_service,
                website=settings.website,
                caa_identities=settings.caa_identities,
                external_account_required=settings.external_account_required,
                profiles=self._profiles(community),
            ),
        )
        return json_answer(listed.to_json())

    async def new_nonce(self, request: web.Request) -> web.StreamResponse:
        """Answer with nothing but the headers: 200 to HEAD, 204 else (RFC 8555 §7.2)."""
        community, _ = self._community(request)
        if request.method == "POST":
            check_empty(await self._envelope.open_account_request(request, community))
        return web.Response(status=200 if request.method == "HEAD" else 204)

    # ---------------------------------------------------------------------------------- orders

    async def new_order(self, request: web.Request) -> web.StreamResponse:
        """Make an order (RFC 8555 §7.4)."""
        opened, links = await self._open(request)
        wanted = parse_new_order(opened.verified.json())
        self._gatekeeper.count_order(opened.account.account_id, wanted.identifiers)
        order = await self._workflows.orders.create(
            opened.account, wanted, origin=origin_of(request)
        )
        return self._order(links, order, status=201)

    async def order(self, request: web.Request) -> web.StreamResponse:
        """Show an order."""
        opened, links = await self._open_empty(request)
        order_id = request.match_info["order_id"]
        order = await self._workflows.orders.read(opened.account, order_id)
        return self._order(links, order)

    async def finalize(self, request: web.Request) -> web.StreamResponse:
        """Take the CSR of an order (RFC 8555 §7.4)."""
        opened, links = await self._open(request)
        csr_der = parse_finalize(opened.verified.json())
        order_id = request.match_info["order_id"]
        order = await self._workflows.orders.finalize(
            opened.account, order_id, csr_der, origin=origin_of(request)
        )
        return self._order(links, order)

    # -------------------------------------------------------------------------- authorizations

    async def new_authorization(self, request: web.Request) -> web.StreamResponse:
        """Make an authorization ahead of any order (RFC 8555 §7.4.1)."""
        opened, links = await self._open(request)
        identifier = parse_new_authorization(opened.verified.json())
        self._gatekeeper.count_order(opened.account.account_id, (identifier,))
        made = await self._workflows.orders.pre_authorize(
            opened.account, identifier, origin=origin_of(request)
        )
        answer = json_answer(authorization_object(links, made).to_json(), status=201)
        answer.headers["Location"] = links.authorization(made.authorization_id)
        return answer

    async def authorization(self, request: web.Request) -> web.StreamResponse:
        """Show an authorization, or give it up (RFC 8555 §7.5, §7.5.2)."""
        opened, links = await self._open(request)
        authorizations = self._workflows.authorizations
        authorization_id = request.match_info["authorization_id"]
        if is_read(opened.verified):
            found = await authorizations.read(opened.account, authorization_id)
        else:
            _check_deactivation(opened.verified)
            found = await authorizations.deactivate(opened.account, authorization_id)
        answer = json_answer(authorization_object(links, found).to_json())
        if found.status is AuthorizationStatus.PENDING:
            answer.headers["Retry-After"] = self._retry_after
        return answer

    async def challenge(self, request: web.Request) -> web.StreamResponse:
        """Take the client's word that a challenge is ready, or show it (RFC 8555 §7.5.1)."""
        opened, links = await self._open(request)
        authorizations = self._workflows.authorizations
        authorization_id = request.match_info["authorization_id"]
        challenge_id = request.match_info["challenge_id"]
        if opened.verified.is_post_as_get:
            found = await authorizations.read(opened.account, authorization_id)
        else:
            opened.verified.json()  # members that are unknown, as old clients send, are ignored
            found = await authorizations.respond(opened.account, authorization_id, challenge_id)
        return self._challenge(links, found, challenge_id)

    # ------------------------------------------------------------------------------ revocation

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        """Revoke a certificate for an account, or for its own key (RFC 8555 §7.6)."""
        community, _ = self._community(request)
        opened = await self._envelope.open_either(request, community)
        account: AccountRecord | None = None
        if isinstance(opened, AccountRequest):
            account, verified = opened.account, opened.verified
        else:
            verified = opened
        await self._workflows.revocations.revoke(
            community,
            parse_revocation(verified.json()),
            account=account,
            key=verified.key if account is None else None,
        )
        return web.Response(status=200)

    # --------------------------------------------------------------------------------- together

    def _order(
        self, links: CommunityLinks, order: OrderRecord, *, status: int = 200
    ) -> web.Response:
        """Answer with an order.

        ``Location`` goes with every one of them: Go's x/crypto waits at the URL that finalize
        named (RFC 8555 §7.4 asks for it at newOrder alone).
        """
        answer = json_answer(order_object(links, order).to_json(), status=status)
        answer.headers["Location"] = links.order(order.order_id)
        if order.status is OrderStatus.PROCESSING:
            answer.headers["Retry-After"] = self._retry_after
        return answer

    def _challenge(
        self, links: CommunityLinks, authorization: AuthorizationRecord, challenge_id: str
    ) -> web.Response:
        for challenge in authorization.challenges:
            if challenge.challenge_id == challenge_id:
                break
        else:
            raise Problem(ProblemType.MALFORMED, "no such challenge", status=404)
        answer = json_answer(challenge_object(links, authorization, challenge).to_json())
        up = links.authorization(authorization.authorization_id)
        answer.headers.add("Link", f'<{up}>;rel="up"')
        if challenge.status is ChallengeStatus.PROCESSING:
            answer.headers["Retry-After"] = self._retry_after
        return answer


def _check_deactivation(verified: VerifiedRequest) -> None:
    if verified.json().get("status") != "deactivated":
        raise Problem(
            ProblemType.MALFORMED,
            "an authorization can only be read or deactivated, "
            "expected an empty payload or status 'deactivated'",
        )
