"""What known days will do to the policies in force, told on the health port before they come."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from broker.config import Config
from broker.config.policy_review import foreseen_by
from broker.issuance.policy_keeping import PolicyKeeper
from broker.issuance.ports import Clock
from broker.policy.forecast import FORESIGHT, Foreseen

__all__ = ["PolicyForesight"]

READY_WITHIN: Final = timedelta(days=60)
"""How far ahead ``/readyz`` tells it; ``penstock check`` and the metric see half a year."""


class PolicyForesight:
    """Looks ahead once a day, and whenever other policies have come into force."""

    def __init__(
        self, config: Config, policies: PolicyKeeper, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._config = config
        self._policies = policies
        self._clock = clock
        self._seen: tuple[Foreseen, ...] = ()
        self._seen_for: tuple[object, ...] = ()
        self._stops = Gauge(
            "penstock_policy_foreseen_timestamp_seconds",
            "When a rule stops working or loses something, as far as half a year ahead.",
            ("community", "profile", "upstream", "kind"),
            registry=registry,
        )

    def warning(self) -> str | None:
        """Return what comes soonest, or None when nothing does within two months."""
        limit = (self._clock.now() + READY_WITHIN).date()
        near = [one for one in self._look() if one.on <= limit]
        if not near:
            return None
        more = f"; and {len(near) - 1} more, see penstock check" if len(near) > 1 else ""
        return f"{near[0]}{more}"

    def show(self) -> None:
        """Show the first day of each kind on the metrics page."""
        self._stops.clear()
        # The soonest last, so that it is the one that stays.
        for one in reversed(self._look()):
            at = datetime.combine(one.on, time(), UTC).timestamp()
            labels = (one.community, one.profile or "", one.upstream or "", str(one.kind))
            self._stops.labels(*labels).set(at)

    def _look(self) -> tuple[Foreseen, ...]:
        today = self._clock.now().astimezone(UTC).date()
        loaded = self._policies.loaded
        seen_for = (today, loaded.texts.set_id)
        if seen_for != self._seen_for:
            found = foreseen_by(self._config, loaded, after=today, until=today + FORESIGHT)
            self._seen = tuple(one for one in found if one.kind.is_warned_of)
            self._seen_for = seen_for
        return self._seen
