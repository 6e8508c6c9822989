"""What known days will do to the policies in force is told on the health port."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from broker.app.foresight import PolicyForesight
from broker.config import load_config
from broker.config.policy_review import load_directory
from broker.issuance.policy_keeping import PolicyKeeper
from tests.fakes.clock import FakeClock

COMPANY = Path(__file__).parents[3] / "policies" / "examples" / "company"
DAY = datetime(2027, 3, 15, tzinfo=UTC)


def foresight(at: datetime) -> tuple[PolicyForesight, CollectorRegistry, FakeClock]:
    """Return what looks ahead for the company of the examples."""
    config = load_config(COMPANY / "penstock.yaml")
    loaded = load_directory(config, COMPANY / "policies")
    keeper = cast(PolicyKeeper, SimpleNamespace(loaded=loaded))
    registry, clock = CollectorRegistry(), FakeClock(at)
    return PolicyForesight(config, keeper, clock, registry), registry, clock


@pytest.mark.parametrize(
    ("days", "is_told"),
    [
        pytest.param(61, False, id="too-far"),
        pytest.param(60, True, id="near"),
        pytest.param(1, True, id="tomorrow"),
        pytest.param(0, False, id="it-has-come"),
    ],
)
def test_readiness_warns_two_months_ahead(days: int, is_told: bool) -> None:
    """And no more once the day has come: then orders tell it."""
    seen, _, _ = foresight(DAY - timedelta(days=days))
    warning = seen.warning()
    assert (warning is not None) is is_told
    if warning is not None:
        assert "come without client-auth, by programme 'chrome'" in warning
        assert "communities/web.yaml:" in warning


def test_metric_tells_the_day_half_a_year_ahead() -> None:
    """By community, profile and upstream, for an alert of one's own."""
    seen, registry, _ = foresight(DAY - timedelta(days=170))
    seen.show()
    assert (
        registry.get_sample_value(
            "penstock_policy_foreseen_timestamp_seconds",
            {"community": "web", "kind": "loses", "profile": "partner-api", "upstream": "google"},
        )
        == DAY.timestamp()
    )


def test_what_has_come_is_shown_no_more() -> None:
    """It is looked at once a day."""
    seen, registry, clock = foresight(DAY - timedelta(days=1))
    seen.show()
    clock.advance(timedelta(days=2))
    seen.show()
    wanted: dict[str, Any] = {
        "community": "web", "kind": "loses", "profile": "partner-api", "upstream": "google"
    }  # fmt: skip
    assert registry.get_sample_value("penstock_policy_foreseen_timestamp_seconds", wanted) is None
