"""What all ACME handlers share: a request's community, its envelope, the shape of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web

from broker.protocol.jws import VerifiedRequest
from broker.protocol.problems import Problem, ProblemType
from broker.web.envelope import AccountRequest, Envelope
from broker.web.limits import Gatekeeper
from broker.web.links import CommunityLinks, Links
from broker.web.problems import retry_after_header
from broker.web.workflows import Workflows

__all__ = ["Handlers", "Site", "WebCommunity", "check_empty", "is_read", "json_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebCommunity:
    """What a community's directory tells."""

    website: str | None = None
    terms_of_service: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    terms_version: str | None = None
    """Version of the terms that accounts have to agree to, where they are told apart."""
    is_pre_authorizing: bool = False
    """Whether the directory offers newAuthz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the handlers of one listener stand on."""

    communities: Mapping[str, WebCommunity]
    links: Links
    workflows: Workflows
    envelope: Envelope
    gatekeeper: Gatekeeper
    retry_after: timedelta


class Handlers:
    """A group of handlers over the workflows."""

    def __init__(self, site: Site) -> None:
        self._communities = site.communities
        self._links = site.links
        self._workflows = site.workflows
        self._envelope = site.envelope
        self._gatekeeper = site.gatekeeper
        self._retry_after = retry_after_header(site.retry_after)

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
        check_empty(opened)
        return opened, links


def json_answer(body: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Return *body* as an answer."""
    return web.Response(
        body=json.dumps(body, ensure_ascii=False).encode("utf-8"),
        status=status,
        content_type="application/json",
    )


def is_read(verified: VerifiedRequest) -> bool:
    """Return whether this reads: a POST-as-GET, or the empty object that old clients send."""
    return verified.is_post_as_get or verified.payload.strip() == b"{}"


def check_empty(opened: AccountRequest) -> None:
    """Refuse a read that carries something.

    Raises:
        Problem: malformed.
    """
    if not is_read(opened.verified):
        raise Problem(
            ProblemType.MALFORMED, "payload is not empty, expected a POST-as-GET (RFC 8555 §6.3)"
        )
