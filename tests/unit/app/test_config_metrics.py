"""What the metrics page tells about the configuration."""

from prometheus_client import CollectorRegistry, generate_latest

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome
from broker.app.config_metrics import ConfigMetrics
from tests.fakes.clock import FakeClock
from tests.unit.app.test_config_keeping import reading


def test_one_in_force_and_the_refused_one_are_told() -> None:
    """One series names it; counts outlive a turn and only rise."""
    keeper = ConfigKeeper(reading(), FakeClock())
    first = keeper.in_force.sha256

    def page() -> str:
        registry = CollectorRegistry()
        metrics = ConfigMetrics(registry)
        metrics.show(keeper)
        metrics.show(keeper)
        return generate_latest(registry).decode()

    assert f'penstock_config_info{{sha256="{first}"}} 1.0' in page()
    assert "penstock_config_refused 0.0" in page()
    assert "penstock_config_refused_timestamp_seconds 0.0" in page()
    keeper.refuse(ConfigOutcome.REFUSED, ("no",), "00")
    told = page()
    assert "penstock_config_refused 1.0" in told
    assert 'penstock_config_changes_total{outcome="refused"} 1.0' in told
    assert first in told
    keeper.take(reading(log__level="debug"))
    told = page()
    assert first not in told
    assert 'penstock_config_changes_total{outcome="taken"} 1.0' in told
    assert 'penstock_config_changes_total{outcome="failed"} 0.0' in told
    keeper.resume(reading())
    assert "penstock_config_last_good 1.0" in page()
