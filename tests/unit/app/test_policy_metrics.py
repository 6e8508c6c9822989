"""What the metrics page tells about policies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.app.policy_metrics import PolicyMetrics
from broker.storage.sqlite import SqliteStore
from tests.fakes.fresh_store import open_fresh
from tests.fakes.policy_folder import policy
from tests.unit.issuance.test_policy_keeping import Keeping


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open store."""
    made = await open_fresh(tmp_path / "store.db")
    yield made
    await made.close()


async def test_set_in_force_and_the_refused_one_are_told(store: SqliteStore) -> None:
    """One series names the set; counts only rise."""
    keeping = Keeping(store)
    registry = CollectorRegistry()
    metrics = PolicyMetrics(registry)

    def page() -> str:
        metrics.show(keeping.keeper)
        return generate_latest(registry).decode()

    first = keeping.keeper.loaded.texts.sha256
    assert f'penstock_policy_info{{sha256="{first}"}} 1.0' in page()
    assert "penstock_policy_refused 0.0" in page()
    keeping.folder.files["default.yaml"] = b""
    await keeping.settle()
    told = page()
    assert "penstock_policy_refused 1.0" in told
    assert f'penstock_policy_info{{sha256="{first}"}} 1.0' in told
    assert 'penstock_policy_sets_total{outcome="refused"} 1.0' in told
    keeping.folder.files["default.yaml"] = policy("30d")
    await keeping.settle()
    told = page()
    assert first not in told
    assert "penstock_policy_refused_timestamp_seconds 0.0" in told
    assert 'penstock_policy_sets_total{outcome="activated"} 1.0' in told
    assert "penstock_policy_files 1.0" in told
