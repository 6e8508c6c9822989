"""Policy files parsed by a child process: the same as here, and ended when it takes too long."""

import os
import sys
from pathlib import Path

import pytest

from broker.config import policy_child
from broker.config.policy_child import parse_apart
from broker.issuance.errors import Unreachable
from broker.policy.parsing import parse_files
from tests.fakes.policy_folder import cases, policy

FACTS = b"""\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  ca:
    as_of: 2026-11-01
    source: a test
    honours_not_after: true
    is_ct_logged: false
    profiles: {short: [{lifetime: 6d}]}
"""

SHARED = b"""\
apiVersion: penstock.dev/v1
kind: SharedRules
communities: all
rules:
  - name: no-payroll
    because: the personnel department asks elsewhere
    names: ["**.payroll.internal"]
    refuse: ask the personnel department
"""

GOOD = {
    "default.yaml": policy(),
    "cases/default.yaml": cases(),
    "upstreams.yaml": FACTS,
    "shared/payroll.yaml": SHARED,
}


def test_child_makes_what_would_be_made_here() -> None:
    """Of every kind of file; what is wrong with another comes along."""
    files = {**GOOD, "broken.yaml": b"kind: Policy\n", "odd.yaml": b"\xff"}
    here, there = parse_files(files), parse_apart(files)
    assert there.faults == here.faults
    assert len(policy_child._shared_out(files)) == 1
    assert list(there.made) == list(here.made) == sorted(GOOD)
    for name, file in here.made.items():
        assert (there.made[name].name, there.made[name].sha256) == (name, file.sha256)
    assert repr(there.made["upstreams.yaml"]) == repr(here.made["upstreams.yaml"])
    assert there.made["cases/default.yaml"] == here.made["cases/default.yaml"]


def test_much_is_shared_out_among_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each does its part, and nothing is lost or told twice."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(policy_child, "SHARE_BYTES", 100)
    files = {f"{number}.yaml": policy() for number in range(7)} | {"x.yaml": b"kind: Policy\n"}
    shares = policy_child._shared_out(files)
    assert sorted(len(share) for share in shares) == [2, 3, 3]
    here, there = parse_files(files), parse_apart(files)
    assert list(there.made) == list(here.made)
    assert there.faults == here.faults


def test_nothing_changed_starts_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was taken away leaves nothing to parse."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert parse_apart({}).made == {}
    with pytest.raises(Unreachable, match="no child process"):
        parse_apart(GOOD)


def test_child_that_takes_too_long_is_ended() -> None:
    """Whatever a file makes it do."""
    with pytest.raises(Unreachable, match=r"not parsed within 0\.001 s, the limit"):
        parse_apart(GOOD, limit_seconds=0.001)


def test_child_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be started as it should, or that ran out of memory."""
    monkeypatch.setattr(policy_child, "_WORKER", "/nowhere/at/all.py")
    with pytest.raises(Unreachable, match=r"the child process ended with 2: .*No such file"):
        parse_apart(GOOD)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("", id="nothing"),
        pytest.param("hello\\n", id="words"),
        pytest.param("Ix\\n.", id="a-number-that-is-none"),
        pytest.param("(.", id="an-odd-stack"),
        pytest.param("N.", id="another-thing"),
    ],
)
def test_child_that_answers_something_else_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    """Such as what a module that the interpreter loads at its start prints."""
    worker = tmp_path / "worker.py"
    worker.write_text(f"import sys\nsys.stdin.buffer.read()\nsys.stdout.write('{said}')\n")
    monkeypatch.setattr(policy_child, "_WORKER", str(worker))
    with pytest.raises(Unreachable, match="the child process answered with"):
        parse_apart(GOOD)
