"""The jobs of a broker at work; its listeners are tried in tests/contract/app."""

import pytest
from structlog.testing import capture_logs

from broker.app.serving import tolerant
from broker.issuance.errors import Broken, Unreachable


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
