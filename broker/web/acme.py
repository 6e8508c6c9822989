"""The ACME resources of RFC 8555 §7 as handlers: open the envelope, call a workflow, answer.

Each handler is a few lines, since nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web

from broker.issuance.records import AccountRecord, AuthorizationRecord, OrderRecord
from broker.protocol.jws import VerifiedRequest, parse_binding
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import (
    parse_account_update,
    parse_finalize,
    parse_new_account,
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
from broker.web.envelope import AccountRequest, Envelope
from broker.web.links import CommunityLinks, Links
from broker.web.problems import retry_after_header
from broker.web.wire import (
    account_object,
    authorization_object,
    challenge_object,
    order_object,
)
from broker.web.workflows import ProfileNames, Workflows

__all__ = ["AcmeHandlers", "WebCommunity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebCommunity:
    """What a community's directory tells in its ``meta``."""

    website: str | None = None
    terms_of_service: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False


class AcmeHandlers:
    """One method for each resource; ``server`` puts them under their paths."""

    def __init__(
        self,
        *,
        communities: Mapping[str, WebCommunity],
        links: Links,
        workflows: Workflows,
        envelope: Envelope,
        profiles: ProfileNames,
        retry_after: timedelta,
    ) -> None:
        self._communities = communities
        self._links = links
        self._workflows = workflows
        self._envelope = envelope
        self._profiles = profiles
        self._retry_after = retry_after_header(retry_after)

    # ------------------------------------------------------------------ directory and nonces

    async def directory(self, request: web.Request) -> web.StreamResponse:
        """Answer with the directory; by POST too, as POST-as-GET (RFC 8555 §6.3)."""
        community, links = self._community(request)
        if request.method == "POST":
            _check_empty(await self._envelope.open_account_request(request, community))
        settings = self._communities[community]
        listed = Directory(
            new_nonce=links.new_nonce,
            new_account=links.new_account,
            new_order=links.new_order,
            revoke_cert=links.revoke_certificate,
            meta=DirectoryMeta(
                terms_of_service=settings.terms_of_service,
                website=settings.website,
                caa_identities=settings.caa_identities,
                external_account_required=settings.external_account_required,
                profiles=self._profiles(community),
            ),
        )
        return _answer(listed.to_json())

    async def new_nonce(self, request: web.Request) -> web.StreamResponse:
        """Answer with nothing but the headers: 200 to HEAD, 204 else (RFC 8555 §7.2)."""
        community, _ = self._community(request)
        if request.method == "POST":
            _check_empty(await self._envelope.open_account_request(request, community))
        return web.Response(status=200 if request.method == "HEAD" else 204)

    # -------------------------------------------------------------------------------- accounts

    async def new_account(self, request: web.Request) -> web.StreamResponse:
        """Register an account, or find the one that the key has (RFC 8555 §7.3)."""
        community, links = self._community(request)
        verified = await self._envelope.open_key_request(request)
        wanted = parse_new_account(verified.json())
        binding = None
        if wanted.eab is not None:
            binding = parse_binding(wanted.eab, expected_url=verified.url, account_key=verified.key)
        account, is_created = await self._workflows.accounts.register(
            community, verified.key, wanted, binding
        )
        answer = _answer(account_object(account).to_json(), status=201 if is_created else 200)
        answer.headers["Location"] = links.account(account.account_id)
        return answer

    async def account(self, request: web.Request) -> web.StreamResponse:
        """Show or update the account (RFC 8555 §7.3.2, §7.3.6)."""
        opened, _ = await self._open(request)
        account = opened.account
        if request.match_info["account_id"] != account.account_id:
            raise Problem(ProblemType.UNAUTHORIZED, "this is the account of somebody else")
        if not opened.verified.is_post_as_get:
            update = parse_account_update(opened.verified.json())
            account = await self._workflows.accounts.update(account, update)
        return _answer(account_object(account).to_json())

    # ---------------------------------------------------------------------------------- orders

    async def new_order(self, request: web.Request) -> web.StreamResponse:
        """Make an order (RFC 8555 §7.4)."""
        opened, links = await self._open(request)
        wanted = parse_new_order(opened.verified.json())
        order = await self._workflows.orders.create(opened.account, wanted)
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
        order = await self._workflows.orders.finalize(opened.account, order_id, csr_der)
        return self._order(links, order)

    async def certificate(self, request: web.Request) -> web.StreamResponse:
        """Hand over a certificate with its chain (RFC 8555 §7.4.2)."""
        opened, _ = await self._open_empty(request)
        certificate_id = request.match_info["certificate_id"]
        chain_pem = await self._workflows.orders.certificate(opened.account, certificate_id)
        return web.Response(body=chain_pem, content_type="application/pem-certificate-chain")

    # -------------------------------------------------------------------------- authorizations

    async def authorization(self, request: web.Request) -> web.StreamResponse:
        """Show an authorization, or give it up (RFC 8555 §7.5, §7.5.2)."""
        opened, links = await self._open(request)
        authorizations = self._workflows.authorizations
        authorization_id = request.match_info["authorization_id"]
        if _is_read(opened.verified):
            found = await authorizations.read(opened.account, authorization_id)
        else:
            _check_deactivation(opened.verified)
            found = await authorizations.deactivate(opened.account, authorization_id)
        answer = _answer(authorization_object(links, found).to_json())
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

    def _community(self, request: web.Request) -> tuple[str, CommunityLinks]:
        community = request.match_info["community"]
        if community not in self._communities:
            raise Problem(
                ProblemType.MALFORMED, f"no community is called '{community}'", status=404
            )
        return community, self._links.of(community)

    async def _open(self, request: web.Request) -> tuple[AccountRequest, CommunityLinks]:
        community, links = self._community(request)
        return await self._envelope.open_account_request(request, community), links

    async def _open_empty(self, request: web.Request) -> tuple[AccountRequest, CommunityLinks]:
        opened, links = await self._open(request)
        _check_empty(opened)
        return opened, links

    def _order(
        self, links: CommunityLinks, order: OrderRecord, *, status: int = 200
    ) -> web.Response:
        """Answer with an order.

        ``Location`` goes with every one of them: Go's x/crypto waits at the URL that finalize
        named (RFC 8555 §7.4 asks for it at newOrder alone).
        """
        answer = _answer(order_object(links, order).to_json(), status=status)
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
        answer = _answer(challenge_object(links, authorization, challenge).to_json())
        up = links.authorization(authorization.authorization_id)
        answer.headers.add("Link", f'<{up}>;rel="up"')
        if challenge.status is ChallengeStatus.PROCESSING:
            answer.headers["Retry-After"] = self._retry_after
        return answer


def _answer(body: Mapping[str, object], *, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body, ensure_ascii=False).encode("utf-8"),
        status=status,
        content_type="application/json",
    )


def _is_read(verified: VerifiedRequest) -> bool:
    """Return whether this reads: a POST-as-GET, or the empty object that old clients send."""
    return verified.is_post_as_get or verified.payload.strip() == b"{}"


def _check_empty(opened: AccountRequest) -> None:
    if not _is_read(opened.verified):
        raise Problem(
            ProblemType.MALFORMED, "payload is not empty, expected a POST-as-GET (RFC 8555 §6.3)"
        )


def _check_deactivation(verified: VerifiedRequest) -> None:
    if verified.json().get("status") != "deactivated":
        raise Problem(
            ProblemType.MALFORMED,
            "an authorization can only be read or deactivated, "
            "expected an empty payload or status 'deactivated'",
        )
