"""What a replay found, for people and for programs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.commands import replay_output
from broker.commands.replay_output import report_view, tell_report
from broker.policy.decisions import RuleRef
from broker.policy.replay import Effect, WorldChange
from broker.policy.replay_report import ReplayKind, ReplayReport
from broker.policy.requesters import Requester
from tests.unit.policy.test_replay import asked

RULE = RuleRef("shared/a.yaml", 5, "rule 'new'")


@pytest.fixture
def report() -> ReplayReport:
    """One order and one certificate that would be refused."""
    made = ReplayReport()
    change = WorldChange(Effect.REFUSED, "no \x1b[31m", RULE)
    made.count(ReplayKind.ORDER, 1_200)
    renewed = asked("www.a.example", is_unchanged_renewal=True)
    made.add(ReplayKind.ORDER, renewed, [change], reference="o1")
    end = datetime(2026, 12, 1, tzinfo=UTC)
    made.add(ReplayKind.CERTIFICATE, asked("www.a.example"), [change], reference="c1", until=end)
    return made


def test_people_hear_who_is_touched_by_which_line(
    report: ReplayReport, capsys: pytest.CaptureFixture[str]
) -> None:
    """With names for an example, the first end, and nothing that steers a terminal."""
    report.closed = 3
    tell_report(report, 30)
    out = capsys.readouterr().out
    assert "replayed: 1,200 orders of 30 days, 0 live certificates, 0 refused requests" in out
    assert "3 of closed accounts left out" in out
    assert "newly refused: 1 order, 1 live certificate" in out
    assert "account a1 in community default: 1 order, 1 live certificate, 1 of them renewals" in out
    assert "by shared/a.yaml:5" in out
    assert "such as www.a.example" in out
    assert "the first of these certificates ends 2026-12-01T00:00:00Z" in out
    assert "\x1b" not in out


def test_nobody_touched_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Silence could mean anything."""
    tell_report(ReplayReport(), 30)
    assert "nobody is touched" in capsys.readouterr().out


def test_people_get_the_largest_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And hear how many more there are."""
    monkeypatch.setattr(replay_output, "MAX_TOLD", 1)
    made = ReplayReport()
    for number in range(3):
        request = asked(requester=Requester(account_id=f"a{number}"))
        made.add(ReplayKind.ORDER, request, [WorldChange(Effect.MOVED, "x", RULE)], reference="o")
    tell_report(made, 30)
    assert "and 2 more groups, see --json" in capsys.readouterr().out


def test_programs_get_every_group(report: ReplayReport) -> None:
    """Counts by kind, and the ids to look at."""
    made = report_view(report, 30)
    assert made["replayed"] == {"order": 1_200, "certificate": 0, "refusal": 0}
    assert made["effects"] == {"refused": {"order": 1, "certificate": 1, "refusal": 0}}
    [group] = made["groups"]
    assert group["rule"] == "shared/a.yaml:5 rule 'new'"
    assert group["references"] == ["o1", "c1"]
    assert group["first_end"] == "2026-12-01T00:00:00Z"
