"""Metrics of account keys."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest

from broker.app.account_key_metrics import AccountKeyMetrics
from broker.issuance.key_rotation import AccountKeyView
from broker.issuance.upstream_key_ports import KeyRotationFailure
from tests.fakes.clock import START

YOUNG = AccountKeyView(
    upstream="ca",
    community="default",
    key_id="new",
    since=START,
    due_at=START + timedelta(days=90),
    failure=None,
    not_retired=None,
)
FAILED = AccountKeyView(
    upstream="ca",
    community="lab",
    key_id="old",
    since=START - timedelta(days=100),
    due_at=None,
    failure=KeyRotationFailure(
        upstream="ca",
        community="lab",
        key_id="old",
        failures=3,
        failed_at=START,
        reason="this CA changes no keys",
    ),
    not_retired="Vault is sealed",
)


def shown(*views: AccountKeyView) -> dict[str, float]:
    """Return the series of these accounts by name and community."""
    registry = CollectorRegistry()
    metrics = AccountKeyMetrics(registry)
    metrics.show([YOUNG])
    metrics.show(views)
    lines = [one for one in generate_latest(registry).decode().splitlines() if one[0] != "#"]
    return {
        line.split(" ")[0].replace('community="', "").replace('",upstream="ca"', ""): float(
            line.split(" ")[1]
        )
        for line in lines
    }


def test_age_and_failures_are_shown_for_each_account() -> None:
    """As moments, so that a rule compares them with the time of the scrape."""
    found = shown(YOUNG, FAILED)
    now = START.timestamp()
    day = timedelta(days=1).total_seconds()
    assert found == {
        "penstock_account_key_since_timestamp_seconds{default}": now,
        "penstock_account_key_since_timestamp_seconds{lab}": now - 100 * day,
        "penstock_account_key_rotation_due_timestamp_seconds{default}": now + 90 * day,
        "penstock_account_key_rotation_due_timestamp_seconds{lab}": 0,
        "penstock_account_key_rotation_failures{default}": 0,
        "penstock_account_key_rotation_failures{lab}": 3,
        "penstock_account_key_rotation_failed_timestamp_seconds{default}": 0,
        "penstock_account_key_rotation_failed_timestamp_seconds{lab}": now,
        "penstock_account_key_unretired{default}": 0,
        "penstock_account_key_unretired{lab}": 1,
    }


def test_account_that_is_gone_leaves_no_series() -> None:
    """A rule must not go on about it."""
    assert not [name for name in shown(FAILED) if "default" in name]
    assert shown() == {}
