"""``penstock policy diff`` and ``impact`` over a desk that only remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.commands.conftest import FakeOperations, Run
from tests.unit.commands.test_replaying import ASKER, row

RULES = """apiVersion: penstock.dev/v1
kind: SharedRules
communities: all
rules:
  - name: short
    because: it is tried
    {MORE}
    cap: 7d
"""


SHIPPED = Path(__file__).parents[3] / "policies" / "default.yaml"


@pytest.fixture
def asked(operations: FakeOperations) -> FakeOperations:
    """One order was made, and the shipped policy is in force."""
    operations.answers["policy_status"] = {"in_force": {"sha256": "ab" * 32}}
    operations.answers["policy_set"] = {"texts": {"default.yaml": SHIPPED.read_text("utf-8")}}
    operations.answers["policy_asked_counts"] = {
        "at": "2026-11-23T12:00:00Z",
        "orders": 1,
        "certificates": 0,
    }
    operations.answers["policy_asked"] = {
        "rows": [row("www.app.internal")],
        "askers": {"a1": ASKER},
        "after": None,
    }
    return operations


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The shipped policies with one rule more."""
    made = tmp_path / "new"
    (made / "shared").mkdir(parents=True)
    (made / "default.yaml").write_text(SHIPPED.read_text("utf-8"))
    (made / "shared" / "rules.yaml").write_text(RULES.replace("{MORE}", "renewals: enforce"))
    return made


def test_new_directory_is_compared_with_the_one_in_force(
    run: Run, asked: FakeOperations, new: Path
) -> None:
    """Who would be shortened, and by which line."""
    status, out, err = run("policy", "diff", str(new))
    assert (status, err) == (0, "")
    assert "shortened: 1 order," in out
    assert "by shared/rules.yaml:5" in out
    assert "at most 7d, was 47d" in out


def test_what_is_in_force_is_old_whatever_lies_in_the_directory(
    run: Run, asked: FakeOperations, new: Path
) -> None:
    """Files that the broker has refused, or not looked at yet, decide nothing."""
    text = SHIPPED.read_text("utf-8").replace("cap: 47d", "cap: 9d")
    asked.answers["policy_set"] = {"texts": {"default.yaml": text}}
    assert "at most 7d, was 9d" in run("policy", "diff", str(new))[1]
    assert next(one for one in asked.asked if one[0] == "policy_set")[1]["sha256"] == "ab" * 32


def test_two_directories_are_compared(run: Run, asked: FakeOperations, new: Path) -> None:
    """The same twice touches nobody."""
    status, out, _ = run("policy", "diff", str(new), str(new), "--strict")
    assert status == 0
    assert "nobody is touched" in out


def test_strict_fails_when_somebody_is_served_less(
    run: Run, asked: FakeOperations, new: Path
) -> None:
    """For a pipeline that asks a person first."""
    assert run("policy", "diff", str(new), "--strict")[0] == 3


def test_three_directories_are_too_many(run: Run, asked: FakeOperations, new: Path) -> None:
    """Told before anything is asked."""
    status, _, err = run("policy", "diff", *[str(new)] * 3)
    assert status == 2
    assert "expected [OLD] NEW" in err


def test_broken_directory_is_told(run: Run, asked: FakeOperations, new: Path) -> None:
    """With the whole path of its file."""
    (new / "shared" / "rules.yaml").write_text(RULES.replace("{MORE}", "capp: 1d"))
    status, _, err = run("policy", "diff", str(new))
    assert status == 2
    assert f"{new}/shared/rules.yaml:7" in err


def test_comparison_comes_as_json(run: Run, asked: FakeOperations, new: Path) -> None:
    """With the digest of both sets."""
    made = json.loads(run("policy", "diff", str(new), "--json")[1])
    assert made["old"] != made["new"]
    assert made["effects"] == {"shortened": {"order": 1, "certificate": 1, "refusal": 1}}


def test_known_day_is_told_with_whom_it_touches(run: Run, asked: FakeOperations, new: Path) -> None:
    """A rule that begins, and the orders that it would touch."""
    text = RULES.replace("{MORE}", "from: 2027-03-15")
    (new / "shared" / "rules.yaml").write_text(text)
    arguments = ("policy", "impact", "--on", "2027-03-15", "--policies", str(new))
    status, out, _ = run(*arguments)
    assert status == 0
    assert "2027-03-15: rule 'short' begins" in out
    assert "shortened: 1 order," in out
    made = json.loads(run(*arguments, "--json")[1])
    assert [one["kind"] for one in made["foreseen"]] == ["rule-begins"]
    assert run(*arguments, "--strict")[0] == 3


def test_day_before_it_touches_nobody(run: Run, asked: FakeOperations, new: Path) -> None:
    """The twin of the one above."""
    text = RULES.replace("{MORE}", "from: 2027-03-15")
    (new / "shared" / "rules.yaml").write_text(text)
    status, out, _ = run(
        "policy", "impact", "--on", "2027-03-14", "--policies", str(new), "--strict"
    )
    assert status == 0
    assert "nothing is known to change by 2027-03-14" in out
    assert "nobody is touched" in out


@pytest.mark.parametrize(
    ("day", "told"),
    [
        pytest.param("2026-11-23", "is not in the future", id="today"),
        pytest.param("15.3.2027", "is no date such as 2027-03-15", id="no-date"),
    ],
)
def test_day_that_cannot_be_asked_about_is_told(
    run: Run, asked: FakeOperations, day: str, told: str
) -> None:
    """By the broker's clock."""
    status, _, err = run("policy", "impact", "--on", day)
    assert status == 2
    assert told in err
