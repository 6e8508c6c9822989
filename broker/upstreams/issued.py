"""What a CA is asked about certificates that it has issued: chains, revocation, renewal.

The order's own part is in ``acme``.  A chain that the CA offers beside the first is fetched like
it and judged by nobody here; where it lies is the CA's affair, and no client learns of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import UpstreamOrder
from broker.issuance.renewal_ports import RenewalAnswer
from broker.protocol.encoding import encode_base64url
from broker.protocol.exchange import (
    JSON,
    MAX_ANSWER_BYTES,
    MAX_CERTIFICATE_BYTES,
    PEM_CHAIN,
    Answer,
)
from broker.protocol.members import ProtocolError
from broker.protocol.problems import ProblemType, printable
from broker.protocol.renewal import RenewalInfo
from broker.protocol.resources import OrderStatus
from broker.upstreams.client import AcmeClient

__all__ = ["IssuedAtCa", "Post"]

MAX_ALTERNATES: Final = 5
"""Most other chains that are fetched; Let's Encrypt has offered three at most."""

MAX_REMEMBERED: Final = 1024
"""Most certificates whose other chains are remembered between two calls; a forgotten one costs
one more request."""

log = structlog.get_logger(__name__)


class Post(Protocol):
    """Sends one signed request as our account."""

    def __call__(
        self,
        url: str,
        payload: Mapping[str, Any] | None,
        *,
        subject: str | None = None,
        accept: str = JSON,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> Awaitable[Answer]:
        """Return its success."""
        ...


class IssuedAtCa:
    """Implements ``ports.IssuedThere`` and ``renewal_ports.RenewalThere`` for one account."""

    def __init__(self, client: AcmeClient, post: Post) -> None:
        self._client = client
        self._post = post
        self._alternates: dict[str, tuple[str, ...]] = {}

    async def download(self, order: UpstreamOrder) -> bytes:
        """Return the PEM chain of a VALID order, exactly as sent, at most 100 kB."""
        url = _certificate_url(order)
        answer = await self._fetch(url, order)
        try:
            pem = answer.verify_media_type(PEM_CHAIN)
        except ProtocolError as error:
            raise Broken(str(error)) from error
        self._alternates.pop(url, None)
        self._alternates[url] = answer.alternates
        if len(self._alternates) > MAX_REMEMBERED:
            del self._alternates[next(iter(self._alternates))]
        return pem

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:
        """Return the other chains that the CA offers, at most five, in its order.

        One that it names and does not give, or gives as something else, is passed over: the first
        chain is what was asked for.
        """
        url = _certificate_url(order)
        if url not in self._alternates:
            await self.download(order)
        found = []
        for alternate in self._alternates.pop(url)[:MAX_ALTERNATES]:
            try:
                answer = await self._fetch(alternate, order)
                found.append(answer.verify_media_type(PEM_CHAIN))
            except (Refused, Broken, ProtocolError) as error:
                reason = printable(str(error), 300)
                log.warning("alternate chain passed over", about=order.url, reason=reason)
        return found

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """Revoke; a certificate that is revoked already is no error.

        A CA may take no reason but the unspecified one (RFC 8555 §7.6: badRevocationReason; Vault's
        PKI is such a CA).  One reading of ours: then it is told none, since revoked for no reason
        is better than not revoked.
        """
        directory = await self._client.directory()
        if directory.revoke_cert is None:
            raise Broken(f"{self._client.directory_url} offers no revocation")
        payload = {"certificate": encode_base64url(certificate_der), "reason": reason}
        try:
            try:
                await self._post(directory.revoke_cert, payload)
            except Refused as refusal:
                if refusal.problem.type is not ProblemType.BAD_REVOCATION_REASON or not reason:
                    raise
                log.warning("revocation reason not taken by the CA", reason=reason)
                del payload["reason"]
                await self._post(directory.revoke_cert, payload)
        except Refused as refusal:
            if refusal.problem.type is not ProblemType.ALREADY_REVOKED:
                raise

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:
        """Return what the CA says about a certificate's renewal; None where it says nothing about
        any.  The request is the one of ACME that nobody signs beside the directory's."""
        directory = await self._client.directory()
        if directory.renewal_info is None:
            return None
        answer = await self._client.get(f"{directory.renewal_info.rstrip('/')}/{cert_id}")
        try:
            info = RenewalInfo.from_json(answer.json())
        except ProtocolError as error:
            raise Broken(f"{answer.url}: {error}") from error
        return RenewalAnswer(info=info, retry_at=answer.retry_at)

    async def _fetch(self, url: str, order: UpstreamOrder) -> Answer:
        return await self._post(
            url,
            None,
            subject=order.url,
            accept=PEM_CHAIN,
            max_answer_bytes=MAX_CERTIFICATE_BYTES,
        )


def _certificate_url(order: UpstreamOrder) -> str:
    if order.status is not OrderStatus.VALID or order.certificate_url is None:
        raise Broken(f"{order.url} is {order.status} and names no certificate URL")
    return order.certificate_url
