"""The jobs of a broker at work; its listeners are tried in tests/contract/app."""

from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from broker.app.serving import also_tell, tolerant
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from tests.fakes.clock import START


class Job:
    """Counts its runs, and fails as it is told."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.runs = 0

    async def run(self) -> None:
        """Count, and fail."""
        self.runs += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [None, Unreachable("the disk is full"), Broken("its key is gone")],
    ids=["fine", "unreachable", "broken"],
)
async def test_job_that_fails_in_a_known_way_comes_again(error: Exception | None) -> None:
    """The log says which one failed and why; the schedule goes on."""
    job = Job(error)
    attempt = tolerant("own-certificate", job.run)
    with capture_logs() as said:
        await attempt()
        await attempt()
    assert job.runs == 2
    expected = [] if error is None else [("own-certificate", str(error))] * 2
    assert [(line["job"], line["reason"]) for line in said] == expected


async def test_fault_of_ours_is_not_swallowed() -> None:
    """The scheduler reports it with its traceback."""
    with pytest.raises(RuntimeError, match="a bug"):
        await tolerant("due-jobs", Job(RuntimeError("a bug")).run)()


def test_what_the_store_commits_is_told_to_everyone() -> None:
    """The first listener is not replaced by the second; a store without one takes the second."""
    told: list[tuple[str, int]] = []

    class Committing:
        """As much of a store as is needed."""

        on_committed: Callable[[Sequence[Event]], None] | None = None

    store = Committing()
    for name in ("first", "second"):
        also_tell(store, lambda events, name=name: told.append((name, len(events))))  # type: ignore[misc]
    assert store.on_committed is not None
    store.on_committed([Event(kind=EventKind.ORDER_READY, at=START)])
    assert told == [("first", 1), ("second", 1)]
