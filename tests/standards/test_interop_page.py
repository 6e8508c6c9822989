"""docs/interop.md says what the last committed run of the matrix came to, and nothing else."""

import copy
import json
import re
from typing import Any

import pytest

from tests.interop.page import PAGE, REPORT, render
from tests.peers.installation import DEBIAN_PEERS, GO_PEERS, VENV_PEERS
from tests.standards.sources import read


@pytest.fixture
def report() -> Any:
    """The committed report."""
    return json.loads(REPORT.read_text("utf-8"))


def test_page_is_what_the_report_says(report: Any, update_golden: bool) -> None:
    """Nobody wrote on the page by hand."""
    if update_golden:
        PAGE.write_text(render(report), "utf-8")
    assert PAGE.read_text("utf-8") == render(report)


def test_report_is_of_the_versions_that_are_installed_now(report: Any) -> None:
    """A peer that was moved to another version asks for another run of `make interop`."""
    pinned = {peer.name: peer.version for peer in (*GO_PEERS, *VENV_PEERS)}
    played = {
        name: version for name, version in report["versions"].items() if name not in DEBIAN_PEERS
    }
    assert played.items() <= pinned.items()


def test_report_has_no_failure(report: Any) -> None:
    """What failed is mended, or stands with its reason among what is not offered."""
    assert [row for row in report["rows"] if row["outcome"] == "failed"] == []


def test_a_failure_would_be_shown(report: Any) -> None:
    """A row that failed is told on the page, in its cell and with its text."""
    amiss = copy.deepcopy(report)
    for place, challenge in ((0, "http-01"), (-1, None)):
        row = amiss["rows"][place]
        row |= {"outcome": "failed", "note": f"broken at {place}"}
        assert challenge is None or row["challenge"] == challenge
    page = render(amiss)
    assert page.count("failed**") == 2
    assert "broken at 0" in page
    assert "broken at -1" in page


def test_every_client_has_its_lines_for_operators(report: Any) -> None:
    """Whoever reads that a client works finds how to point it at Penstock."""
    headings = re.findall(r"^## (.+)$", read("docs/operations/clients.md"), re.MULTILINE)
    clients = {row["client"].partition(" of ")[0] for row in report["rows"]}
    assert [one for one in clients if not any(one in heading for heading in headings)] == []
