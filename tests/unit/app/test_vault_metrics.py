"""What is counted about Vault, and shown at each scrape."""

from datetime import timedelta

from prometheus_client import CollectorRegistry

from broker.app.vault_metrics import VaultMetrics
from broker.keys.vault_answers import VaultState
from broker.keys.vault_health import IdentityHealth, VaultHealth
from tests.fakes.clock import START

DEFAULT = {"identity": "default"}


def made() -> tuple[VaultMetrics, CollectorRegistry]:
    """Return the metrics of one identity, and where they are kept."""
    registry = CollectorRegistry()
    return VaultMetrics(registry, ["default"]), registry


def test_every_series_is_there_from_the_start() -> None:
    """The first alarm is an increase, and not the birth of a series."""
    _, registry = made()
    assert registry.get_sample_value("penstock_vault_interception_alarms_total", DEFAULT) == 0
    for outcome in ("ok", "denied", "alarm"):
        labels = {**DEFAULT, "outcome": outcome}
        assert registry.get_sample_value("penstock_vault_logins_total", labels) == 0
    assert registry.get_sample_value("penstock_vault_up", DEFAULT) == 1


def test_what_happens_is_counted() -> None:
    """By identity and outcome."""
    metrics, registry = made()
    metrics.vault_asked(identity="default", outcome="sealed", seconds=0.002)
    metrics.vault_login(identity="default", outcome="ok")
    metrics.vault_renewed(identity="default", outcome="ok")
    metrics.vault_alarm(identity="default", reason="gone")
    ok = {**DEFAULT, "outcome": "ok"}
    assert registry.get_sample_value("penstock_vault_logins_total", ok) == 1
    assert registry.get_sample_value("penstock_vault_renewals_total", ok) == 1
    assert registry.get_sample_value("penstock_vault_interception_alarms_total", DEFAULT) == 1
    sealed = {**DEFAULT, "outcome": "sealed"}
    assert registry.get_sample_value("penstock_vault_request_seconds_count", sealed) == 1


def test_state_and_since_are_shown() -> None:
    """Zero while nothing is wrong."""
    metrics, registry = made()
    down = IdentityHealth(
        identity="default", state=VaultState.SEALED, since=START + timedelta(minutes=1)
    )
    metrics.show(VaultHealth(identities=(down,)))
    name = "penstock_vault_down_since_timestamp_seconds"
    assert registry.get_sample_value("penstock_vault_up", DEFAULT) == 0
    assert registry.get_sample_value(name, DEFAULT) == (START + timedelta(minutes=1)).timestamp()
    state = {**DEFAULT, "state": "sealed"}
    assert registry.get_sample_value("penstock_vault_state", state) == 1
    up = IdentityHealth(identity="default", state=VaultState.OK, since=START)
    metrics.show(VaultHealth(identities=(up,)))
    assert registry.get_sample_value("penstock_vault_up", DEFAULT) == 1
    assert registry.get_sample_value(name, DEFAULT) == 0
    assert registry.get_sample_value("penstock_vault_state", state) == 0
