"""What was asked is fetched page by page, and asked of two worlds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from broker.commands import replaying
from broker.commands.replaying import replay_all
from broker.policy.replay import Effect
from broker.policy.replay_report import ReplayKind
from tests.unit.policy.builders import policy
from tests.unit.policy.test_replay import world

ASKER: dict[str, Any] = {
    "thumbprint": "t", "eab": None, "eab_names": [], "eab_profiles": [],
    "node": None, "node_names": [], "node_profiles": [], "attestation": None,
    "closed": False,
}  # fmt: skip


def row(name: str, **changes: Any) -> dict[str, Any]:
    """Return what was asked."""
    return {
        "reference": f"order of {name}",
        "community": "default",
        "account": "a1",
        "names": [["dns", name]],
        "profile": None,
        "start": False,
        "lifetime": None,
        "requester": {},
        "renewal": False,
        "until": None,
        **changes,
    }


class Desk:
    """Hands out pages of two rows."""

    def __init__(self, rows: Mapping[str, list[dict[str, Any]]], **asker: Any) -> None:
        self.rows = rows
        self.asker = {**ASKER, **asker}
        self.pages = 0

    def ask(self, command: str, given: Mapping[str, object]) -> Any:
        """Answer a command."""
        if command == "policy_asked_counts":
            return {"orders": 10, "certificates": 0}
        self.pages += 1
        found = self.rows.get(str(given["kind"]), [])
        begin = int(str(given["after"])) if given["after"] is not None else 0
        page = found[begin : begin + 2]
        after = begin + 2 if begin + 2 < len(found) else None
        return {"rows": page, "askers": {"a1": self.asker}, "after": after}


OLD, NEW = policy(), policy(names={"allow": ["one.a.example"], "wildcards": True})


def replayed(desk: Desk, **limits: Any) -> Any:
    """Replay everything."""
    return replay_all(desk.ask, world(OLD), world(NEW), days=30, limits=limits.get("limits", {}))


def test_every_page_is_asked() -> None:
    """Five orders come in three pages; refusals and certificates have pages of their own."""
    names = ["one.a.example", *(f"h{number}.a.example" for number in range(4))]
    desk = Desk({"order": [row(name) for name in names]})
    report = replayed(desk)
    assert desk.pages == 3 + 1 + 1
    assert report.replayed[ReplayKind.ORDER] == 5
    assert report.by_effect[Effect.REFUSED][ReplayKind.ORDER] == 4
    [group] = report.groups()
    assert group.requester == "account a1"


def test_live_certificates_are_asked_as_renewals() -> None:
    """A rule that spares renewals touches none of them."""
    sparing = policy(rules=[{"name": "n", "because": "x", "refuse": "no", "renewals": "exempt"}])
    desk = Desk(
        {
            "order": [row("one.a.example")],
            "certificate": [row("one.a.example", until="2027-01-01T00:00:00+00:00")],
        }
    )
    report = replay_all(desk.ask, world(OLD), world(sparing), days=30, limits={})
    assert report.by_effect[Effect.REFUSED] == {
        ReplayKind.ORDER: 1, ReplayKind.CERTIFICATE: 0, ReplayKind.REFUSAL: 0
    }  # fmt: skip


def test_closed_accounts_are_left_out_and_counted() -> None:
    """They order nothing any more, whatever a policy says."""
    report = replayed(Desk({"order": [row("two.a.example")]}, closed=True))
    assert (report.closed, report.replayed[ReplayKind.ORDER]) == (1, 0)


@pytest.mark.parametrize(
    ("asker", "limits", "touched"),
    [
        pytest.param({"eab": "k", "eab_names": ["**.a.example"]}, {}, 1, id="within"),
        pytest.param({"eab": "k", "eab_names": ["**.c.example"]}, {}, 0, id="outside"),
        pytest.param(
            {"eab": "k"}, {("default", "k"): (("**.c.example",), ())}, 0, id="declared"
        ),
        pytest.param({"node": "n", "node_names": ["**.c.example"]}, {}, 0, id="node"),
    ],
)  # fmt: skip
def test_limits_of_whoever_asked_hold(
    asker: dict[str, Any], limits: dict[Any, Any], touched: int
) -> None:
    """What both worlds refuse is no change; declared keys are limited by the configuration."""
    report = replayed(Desk({"order": [row("two.a.example")]}, **asker), limits=limits)
    assert report.touched[ReplayKind.ORDER] == touched


@pytest.mark.parametrize(
    ("kept", "now", "touched"),
    [
        pytest.param("token", "approval", 0, id="kept and let in so"),
        pytest.param("approval", "token", 1, id="kept and let in otherwise"),
        pytest.param(None, "token", 0, id="from before and let in so"),
        pytest.param(None, "approval", 1, id="from before and let in otherwise"),
    ],
)
def test_how_a_node_was_let_in_is_what_was_kept_with_the_order(
    kept: str | None, now: str, touched: int
) -> None:
    """Its record is asked only about orders from before that was kept."""
    asking = {} if kept is None else {"node": "n", "attestation": kept}
    desk = Desk(
        {"order": [row("one.a.example", requester=asking)]},
        node="n",
        node_names=["**.a.example"],
        attestation=now,
    )
    strict = policy(rules=[{"name": "n", "because": "x", "attestation": ["token"]}])
    report = replay_all(desk.ask, world(OLD), world(strict), days=30, limits={})
    assert report.touched[ReplayKind.ORDER] == touched


def test_many_are_asked_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same outcome, and no process is left behind."""
    names = [f"h{number}.a.example" for number in range(7)]
    desk = Desk({"order": [row(name) for name in names]})
    alone = replayed(desk)
    monkeypatch.setattr(replaying, "MANY", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    together = replayed(desk)
    assert together.by_effect == alone.by_effect
    assert [one.names for one in together.groups()] == [one.names for one in alone.groups()]


def test_progress_is_told_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many, of how many."""
    monkeypatch.setattr(replaying, "PROGRESS_SECONDS", 0)
    desk = Desk({"order": [row("one.a.example")]})
    replay_all(desk.ask, world(OLD), world(NEW), days=1, limits={}, is_shown=True)
    assert "1 of 10 requests (10 %)" in capsys.readouterr().err


def test_expressions_are_evaluated_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their engine survives that this process was forked."""
    monkeypatch.setattr(replaying, "MANY", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    rule = {"name": "n", "because": "x", "when": "size(names) == 1", "refuse": "no"}
    desk = Desk({"order": [row(f"h{number}.a.example") for number in range(5)]})
    strict = policy(rules=[rule])
    report = replay_all(desk.ask, world(OLD), world(strict), days=30, limits={})
    assert report.by_effect[Effect.REFUSED][ReplayKind.ORDER] == 5
