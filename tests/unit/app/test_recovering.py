"""What goes on by itself after a start."""

from pathlib import Path
from typing import Any

from broker.app.recovering import make_recovery, own_certificates
from broker.issuance.own_certificate import OwnCertificates
from broker.issuance.records import RestorationRecord
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.given import NOW, event
from tests.fakes.world import World
from tests.unit.config.conftest import parsed

RECORD = RestorationRecord(
    restoration_id="r",
    backup_id="b",
    backup_at=NOW,
    restored_at=NOW,
    reconciled_at=None,
    report={},
)


async def test_only_a_restored_store_stands_still(tmp_path: Path) -> None:
    """It says so itself, whoever starts over it."""
    store = await SqliteStore.open(tmp_path / "store.db")
    nobody: Any = None
    try:
        before = await make_recovery(store, nobody, nobody, nobody)
        await store.begin_restoration(RECORD, crl_numbers=1, event=event())
        after = await make_recovery(store, nobody, nobody, nobody)
    finally:
        await store.close()
    assert before.standstill.reason() is None
    assert after.standstill.restoration == RECORD


async def test_own_certificate_is_ordered_from_acme_upstreams_alone(tmp_path: Path) -> None:
    """The built-in CA has a shorter way, and files need none."""
    acme = {"kind": "acme", "directory": "https://ca.example/directory"}
    async with World(tmp_path) as world:

        def made(**changes: Any) -> OwnCertificates | None:
            return own_certificates(
                parsed(changes),
                world.store,
                policies=world.policies,
                planner=world.planner,
                dispatcher=world.dispatcher,
                clock=world.clock,
            )

        assert made() is None
        assert made(**{"upstreams.ca": acme, "listen.acme": {"from": "ca"}}) is not None
