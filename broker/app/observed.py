"""An upstream that is watched: every call is passed on unchanged, timed, and counted by outcome.

A call that fails is told to the log as well: nobody else says which order waits for what.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

import structlog

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Upstream, UpstreamOrder, UpstreamRequest
from broker.issuance.renewal_ports import RenewalAnswer
from broker.protocol.problems import printable
from broker.telemetry import Telemetry

__all__ = ["ObservedUpstream"]

T = TypeVar("T")

log = structlog.get_logger("penstock")

MAX_REASON_CHARS: Final = 500
"""Longest reason in the log, in characters: part of it may be text that a CA chose."""


class ObservedUpstream:
    """Implements ``ports.Upstream`` around another one."""

    def __init__(self, name: str, inner: Upstream, telemetry: Telemetry) -> None:
        self._name = name
        self._inner = inner
        self._telemetry = telemetry

    @property
    def is_local(self) -> bool:
        """Return what the inner one says."""
        return self._inner.is_local

    async def open_order(self, request: UpstreamRequest) -> UpstreamOrder:
        """Send newOrder."""
        return await self._timed(
            "open-order", request.reference, lambda: self._inner.open_order(request)
        )

    async def seek_order(
        self, request: UpstreamRequest, known: Collection[str]
    ) -> UpstreamOrder | None:
        """Look for a lost order."""
        return await self._timed(
            "seek-order", request.reference, lambda: self._inner.seek_order(request, known)
        )

    async def authorize(self, order: UpstreamOrder) -> UpstreamOrder:
        """Answer the challenges."""
        return await self._timed("authorize", order.url, lambda: self._inner.authorize(order))

    async def finalize(self, order: UpstreamOrder, csr_der: bytes) -> UpstreamOrder:
        """Send finalize."""
        return await self._timed(
            "finalize", order.url, lambda: self._inner.finalize(order, csr_der)
        )

    async def read_order(self, url: str) -> UpstreamOrder:
        """Read the order."""
        return await self._timed("read-order", url, lambda: self._inner.read_order(url))

    async def withdraw(self, order: UpstreamOrder) -> None:
        """Give the order up."""
        await self._timed("withdraw", order.url, lambda: self._inner.withdraw(order))

    async def download(self, order: UpstreamOrder) -> bytes:
        """Fetch the chain."""
        return await self._timed("download", order.url, lambda: self._inner.download(order))

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:
        """Fetch the other chains."""
        return await self._timed(
            "download-alternates", order.url, lambda: self._inner.download_alternates(order)
        )

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:
        """Ask about a certificate's renewal."""
        return await self._timed("renewal-info", None, lambda: self._inner.renewal_info(cert_id))

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """Revoke."""
        await self._timed("revoke", None, lambda: self._inner.revoke(certificate_der, reason))

    async def _timed(self, call: str, about: str | None, do: Callable[[], Awaitable[T]]) -> T:
        started = time.perf_counter()
        # What no port may raise is a fault of ours, and no success either.
        error: str | None = "other"
        reason: str | None = None
        try:
            answer = await do()
            error = None
            return answer
        except Refused as refusal:
            error, reason = "refused", str(refusal.problem)
            raise
        except Unreachable as outcome:
            error, reason = "unreachable", outcome.reason
            raise
        except Broken as outcome:
            error, reason = "broken", outcome.reason
            raise
        finally:
            seconds = time.perf_counter() - started
            self._telemetry.upstream_called(
                upstream=self._name, call=call, seconds=seconds, error=error
            )
            if reason is not None:
                self._tell(call, about, error, reason)

    def _tell(self, call: str, about: str | None, error: str | None, reason: str) -> None:
        log.warning(
            "upstream call failed",
            upstream=self._name,
            call=call,
            about=about,
            error=error,
            reason=printable(reason, MAX_REASON_CHARS),
        )
