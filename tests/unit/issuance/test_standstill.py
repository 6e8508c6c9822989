"""Whether the broker may change anything."""

from datetime import UTC, datetime

from broker.issuance.records import RestorationRecord
from broker.issuance.standstill import Standstill
from broker.policy.decisions import RETRY_WHEN_UNSERVED, UNSERVED_STATUS
from broker.protocol.problems import ProblemType

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESTORED = RestorationRecord(
    restoration_id="r",
    backup_id="b",
    backup_at=AT,
    restored_at=AT,
    reconciled_at=None,
    report={},
)


def test_broker_that_was_not_restored_goes_on() -> None:
    """There is no reason not to."""
    assert Standstill(None).reason() is None


def test_restored_broker_stands_still_until_it_is_lifted() -> None:
    """The reason names the moment that it knows up to."""
    standstill = Standstill(RESTORED)
    assert standstill.reason() == "restored from the backup of 2026-03-01T12:00:00Z, not reconciled"
    standstill.lift()
    assert standstill.reason() is None


def test_client_is_told_to_come_again() -> None:
    """As it is by a broker that no upstream can be ordered from: what reads well in clients."""
    problem = Standstill(RESTORED).problem()
    assert problem.type is ProblemType.SERVER_INTERNAL
    assert (problem.status, problem.retry_after) == (UNSERVED_STATUS, RETRY_WHEN_UNSERVED)
    assert "restored from a backup" in problem.detail
