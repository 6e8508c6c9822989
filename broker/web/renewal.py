"""Certificates with all their chains, and when to renew them: two resources and their answers."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from aiohttp import web

from broker.issuance.handover import Handed
from broker.web.handlers import Handlers, json_answer
from broker.web.links import CommunityLinks

__all__ = ["RenewalHandlers"]

MAX_CACHED: Final = timedelta(minutes=5)
"""Longest that a cache may keep renewal information: a window that was moved for a revocation
reaches everyone soon, and a client in a loop behind a cache costs us one answer in that time."""


class RenewalHandlers(Handlers):
    """What a client comes for once its order is valid, again and again."""

    async def certificate(self, request: web.Request) -> web.StreamResponse:
        """Hand over a certificate with its chain, or with another one (RFC 8555 §7.4.2)."""
        opened, links = await self._open_empty(request)
        certificate_id = request.match_info["certificate_id"]
        number = int(request.match_info.get("number", "0"))
        handed = await self._workflows.handover.certificate(opened.account, certificate_id, number)
        return _certificate_answer(links, certificate_id, handed)

    async def renewal_info(self, request: web.Request) -> web.StreamResponse:
        """Tell when to renew a certificate; nobody has to say who asks (RFC 9773 §4.1)."""
        community, _ = self._community(request)
        cert_id = request.match_info["cert_id"]
        found = await self._workflows.renewals.suggestion(community, cert_id)
        answer = json_answer(found.info.to_json())
        seconds = math.ceil(found.retry_after.total_seconds())
        kept = min(seconds, int(MAX_CACHED.total_seconds()))
        answer.headers["Retry-After"] = str(seconds)
        answer.headers["Cache-Control"] = f"public, max-age={kept}"
        return answer


def _certificate_answer(links: CommunityLinks, certificate_id: str, handed: Handed) -> web.Response:
    answer = web.Response(body=handed.chain_pem, content_type="application/pem-certificate-chain")
    for number in range(handed.chains):
        if number != handed.number:
            url = links.certificate(certificate_id, number)
            answer.headers.add("Link", f'<{url}>;rel="alternate"')
    return answer
