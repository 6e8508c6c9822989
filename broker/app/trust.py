"""Trust anchors for pods of a cluster: what they are, and having them kept in its ConfigMap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, Gauge

from broker.app.outside import VERSION
from broker.config.publishing import TrustConfigMap
from broker.issuance.errors import Broken, Unreachable
from broker.publishing.config_maps import ConfigMapPlace, KeptConfigMap

if TYPE_CHECKING:
    from broker.app.outside import Outside

__all__ = ["TrustPublishing", "make_trust_publishing"]

AGAIN: Final = timedelta(minutes=5)
"""How often it is looked whether the ConfigMap still holds what it should: somebody may have
changed it."""

RETRY: Final = timedelta(seconds=30)
"""Pause after an API server that could not be asked."""

log = structlog.get_logger("penstock")


class TrustMetrics:
    """Whether the anchors are where pods find them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._kept = Gauge(
            "penstock_trust_published",
            "Whether the trust anchors are in the ConfigMap that they are published in.",
            registry=registry,
        )

    def show(self, *, is_kept: bool) -> None:
        """Show how the last look ended."""
        self._kept.set(is_kept)


class TrustPublishing:
    """Keeps the ConfigMap; issuance goes on without its API server."""

    def __init__(
        self, section: TrustConfigMap, outside: Outside, kept: KeptConfigMap, metrics: TrustMetrics
    ) -> None:
        self._section = section
        self._outside = outside
        self._kept = kept
        self._metrics = metrics
        self._text = ""
        self._look_at: datetime | None = None
        self._fault: str | None = None

    async def take_turn(self) -> None:
        """Have the ConfigMap hold the anchors, if they changed or it is time to look."""
        now = self._outside.clock.now()
        try:
            text = await self._contents()
            if self._look_at is not None and now < self._look_at and text == self._text:
                return
            if not text:
                raise Broken("there are no trust anchors yet")
            before = await self._kept.keep(text)
        except (Unreachable, Broken) as error:
            self._look_at = now + RETRY
            self._failed(error.reason)
            return
        self._text, self._look_at, self._fault = text, now + AGAIN, None
        self._metrics.show(is_kept=True)
        if before != text:
            log.info("trust anchors were published", config_map=self._section.name)

    def _failed(self, reason: str) -> None:
        self._metrics.show(is_kept=False)
        if reason != self._fault:
            log.warning("trust anchors are not published", reason=reason)
        self._fault = reason

    async def _contents(self) -> str:
        """Return every anchor that a pod needs, each once and in one order."""
        found: set[bytes] = set()
        for community in self._section.communities or tuple(self._outside.config.communities):
            for upstream in sorted(self._upstreams_of(community)):
                found.update(self._outside.upstreams.of(upstream, community) or ())
        for path in self._section.also:
            found.update(await asyncio.to_thread(_read_roots, path))
        return "".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")
            for der in sorted(found)
        )

    def _upstreams_of(self, community: str) -> frozenset[str]:
        """Return who issues for the community by its policy, and whoever issued our own
        certificate."""
        config = self._outside.config
        own = config.listen.acme.issued_by
        chosen = self._outside.policies.current(community).upstreams
        return frozenset(config.upstreams) & (chosen | ({own} if own is not None else set()))


def make_trust_publishing(outside: Outside) -> TrustPublishing | None:
    """Return what keeps the ConfigMap, None where the configuration has none."""
    if outside.config.publishing is None:
        return None
    section = outside.config.publishing.trust
    place = ConfigMapPlace(
        server=section.server, namespace=section.namespace, name=section.name, key=section.key
    )
    kept = KeptConfigMap(
        place,
        section.token.resolve,
        ca_bundle=section.ca_bundle,
        user_agent=f"penstock/{VERSION}",
    )
    return TrustPublishing(section, outside, kept, TrustMetrics(outside.telemetry.registry))


def _read_roots(path: Path) -> Sequence[bytes]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"roots {path} cannot be read: {reason}") from error
    except ValueError:
        raise Broken(f"roots {path} are no PEM certificates") from None
    return [one.public_bytes(Encoding.DER) for one in found]
