"""Commands about renewals at nodes: what they ask for, what they print, how they end."""

import json
from typing import Any

import pytest

from broker.commands import deliveries
from tests.unit.commands.conftest import FakeOperations, Run


def row(**changes: Any) -> dict[str, Any]:
    """Return a certificate as the broker answers `renew`."""
    return {
        "node": "web-01", "certificate": "www", "names": ["www.example.com"],
        "not_after": "2026-12-01T00:00:00Z", "delivery": "d1", "refused": None, **changes,
    }  # fmt: skip


def progress(stage: str, *, ended: bool, **changes: Any) -> dict[str, Any]:
    """Return how far it has come."""
    return {"delivery": "d1", "stage": stage, "ended": ended, "note": None, **changes}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait."""
    monkeypatch.setattr(deliveries, "LOOK_SECONDS", 0)


def test_renewal_is_followed_to_its_end(operations: FakeOperations, run: Run) -> None:
    """What was asked for goes along with the reason; the end is printed."""
    operations.answers["renew"] = {"dry_run": False, "certificates": [row()]}
    operations.answers["renew_progress"] = [progress("seen", ended=True)]
    status, out, err = run("renew", "web-01", "--reason", "ticket 7")
    assert status == 0, err
    assert "web-01" in out
    assert "seen" in out
    (name, given), (_, followed) = operations.asked
    assert (name, given["target"], given["actor"].reason) == ("renew", "web-01", "ticket 7")
    assert followed["deliveries"] == ["d1"]


def test_end_that_is_not_seen_is_a_failure(operations: FakeOperations, run: Run) -> None:
    """Its note is printed."""
    operations.answers["renew"] = {"certificates": [row(), row(delivery="d2")]}
    operations.answers["renew_progress"] = [
        progress("seen", ended=True),
        progress("restored", ended=True, delivery="d2", note="nginx: bad line 7"),
    ]
    status, out, err = run("renew", "--node", "**.example.com")
    assert status == 1
    assert "nginx: bad line 7" in out
    assert "of 2 certificates 1 not seen served" in err


def test_waiting_ends_in_time(operations: FakeOperations, run: Run) -> None:
    """What is still under way is told as it stands."""
    operations.answers["renew"] = {"certificates": [row()]}
    operations.answers["renew_progress"] = [progress("pushed", ended=False)]
    status, out, _ = run("renew", "www", "--wait", "0")
    assert status == 0
    assert len(operations.asked) == 1
    assert "web-01" in out


def test_dry_run_follows_nothing(operations: FakeOperations, run: Run) -> None:
    """It tells who would be refused, and that is a failure."""
    refused = row(delivery=None, refused="node 'web-01' is drained")
    operations.answers["renew"] = {"certificates": [row(delivery=None), refused]}
    status, out, err = run("renew", "--all-due", "--dry-run", "--json")
    assert status == 1
    assert [one["note"] for one in json.loads(out)] == [None, "node 'web-01' is drained"]
    assert "1 refused" in err
    assert [name for name, _ in operations.asked] == ["renew"]
    assert operations.asked[0][1]["all_due"] is True


@pytest.mark.parametrize("kind", list(deliveries.COLUMNS))
def test_lists_are_options_of_the_one_list(operations: FakeOperations, run: Run, kind: str) -> None:
    """Each prints columns of its own; without any it is the list of all."""
    operations.answers["cert_watch"] = [{"node": "web-01", "names": ["www.example.com"]}]
    status, out, err = run("cert", "list", f"--{kind}", "--limit", "5")
    assert status == 0, err
    assert "www.example.com" in out
    assert operations.asked[0][0] == "cert_watch"
    assert {key: operations.asked[0][1][key] for key in ("kind", "limit")} == {
        "kind": kind, "limit": 5,
    }  # fmt: skip
    status, _, _ = run("cert", "list")
    assert operations.asked[-1][0] == "cert_list"


@pytest.mark.parametrize("command", ["release", "withdraw"])
def test_decisions_carry_their_reason(operations: FakeOperations, run: Run, command: str) -> None:
    """The delivery is named, and who asked why."""
    operations.answers[f"cert_{command}"] = {"delivery": "d1", "stage": "issued"}
    status, out, err = run("cert", command, "d1", "--reason", "as planned")
    assert status == 0, err
    assert "issued" in out
    (name, given) = operations.asked[0]
    assert (name, given["delivery"], given["actor"].reason) == (
        f"cert_{command}", "d1", "as planned",
    )  # fmt: skip


def test_trace_is_printed(operations: FakeOperations, run: Run) -> None:
    """As pairs, or as JSON."""
    operations.answers["cert_trace"] = {"delivery": "d1", "stages": {"seen": "2026-01-01"}}
    status, out, _ = run("cert", "trace", "d1")
    assert status == 0
    assert "seen:" in out
    _, out, _ = run("cert", "trace", "d1", "--json")
    assert json.loads(out)["stages"] == {"seen": "2026-01-01"}
