"""The judge of a soak: what it calls unexplained; and what its report tells."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.soak.deliveries import Delivery
from tests.soak.judging import Judged
from tests.soak.reloads import square
from tests.soak.report import Soaked, render
from tests.soak.trails import faults_of_trail, lost_receipts

START = 1_790_000_000.0
FINGERPRINT = "ab" * 32
NODE = "nginx-1.soak.example.test"
SEEN = Delivery(
    "delivery", NODE, 3, "seen", "due", None, "certificate", "order",
    *(START + number for number in range(7)),
)  # fmt: skip
RESTORED = replace(SEEN, stage="restored", reloaded_at=None)


def told(at: float | None) -> str | None:
    """Return a moment as the command tells it."""
    return None if at is None else datetime.fromtimestamp(int(at), UTC).isoformat()


def trace_of(delivery: Delivery) -> dict[str, Any]:
    """Return what the command tells of a delivery, whole."""
    ids = {"delivery": "delivery", "certificate_id": "certificate", "node": NODE, "generation": 3}
    moved = [
        ("issued", delivery.issued_at), ("pushed", delivery.pushed_at),
        ("checked", delivery.checked_at), ("installed", delivery.installed_at),
        ("reloaded", delivery.reloaded_at),
    ]  # fmt: skip
    found: list[tuple[str, dict[str, Any], float]] = [
        (kind, {}, delivery.begun_at) for kind in ("order-created", "order-finalized")
    ]
    issued = {"certificate_id": "certificate", "fingerprint": FINGERPRINT}
    found.append(("certificate-issued", issued, delivery.issued_at or 0.0))
    found += [
        ("delivery-moved", {"stage": name, **ids}, at) for name, at in moved if at is not None
    ]
    end = "delivery-seen" if delivery.stage == "seen" else "delivery-failed"
    found.append((end, {"stage": delivery.stage, **ids}, delivery.ended_at or 0.0))
    return {
        **ids,
        "stage": delivery.stage,
        "names": [NODE],
        "order": "order",
        "fingerprint": FINGERPRINT,
        "stages": {
            "asked": told(delivery.begun_at),
            **{name: told(at) for name, at in moved},
            delivery.stage: told(delivery.ended_at),
        },
        "events": [
            {"number": 10 + number, "kind": kind, "at": told(at), "data": data}
            for number, (kind, data, at) in enumerate(found)
        ],
    }


def faults(trace: dict[str, Any], delivery: Delivery = SEEN, *kills: float) -> list[str]:
    """Return what the judge says of a trail."""
    return faults_of_trail(trace, delivery, FINGERPRINT, kills)


# ---------------------------------------------------------------------------------------- trails


def test_whole_trail_has_no_fault() -> None:
    """One that was seen, and one whose old certificate was put back."""
    assert faults(trace_of(SEEN)) == []
    assert faults(trace_of(RESTORED), RESTORED) == []


@pytest.mark.parametrize(
    "name", ["delivery", "stage", "node", "names", "generation", "order", "certificate_id",
             "fingerprint"],
)  # fmt: skip
def test_trail_with_a_foreign_id_is_told(name: str) -> None:
    """Each of the ids is compared, and none may be missing."""
    trace = trace_of(SEEN)
    for other in ("another", None):
        (fault,) = faults({**trace, name: other})
        assert f"says {name} {other!r}" in fault


@pytest.mark.parametrize("name", ["asked", "issued", "pushed", "checked", "installed", "reloaded"])
def test_trail_that_keeps_a_time_of_the_store_back_is_told(name: str) -> None:
    """Also where something was killed: the store has it."""
    trace = trace_of(SEEN)
    trace["stages"][name] = None
    (fault,) = faults(trace, SEEN, START + 3)
    assert f"of stage '{name}'" in fault


def test_trail_that_tells_another_time_is_told() -> None:
    """By more than the rounding."""
    trace = trace_of(SEEN)
    trace["stages"]["installed"] = told(START + 40)
    (fault,) = faults(trace)
    assert "of stage 'installed'" in fault


def test_stages_out_of_order_are_told() -> None:
    """In the store as well as by the command."""
    wrong = replace(SEEN, installed_at=SEEN.begun_at - 5)
    (fault,) = faults({**trace_of(wrong), "events": trace_of(SEEN)["events"]}, wrong)
    assert "stages out of order" in fault


@pytest.mark.parametrize("kill", [SEEN.pushed_at, SEEN.ended_at])
def test_lost_receipt_is_explained_by_a_kill_in_its_time_alone(kill: float) -> None:
    """A kill before the push or after the end explains nothing."""
    lossy = replace(SEEN, checked_at=None, installed_at=None)
    trace = trace_of(lossy)
    assert lost_receipts(trace) == ["checked", "installed"]
    assert faults(trace, lossy, kill) == []
    for other in (START - 30, START + 30):
        (fault,) = faults(trace, lossy, other)
        assert "no time of checked, installed" in fault


@pytest.mark.parametrize("index", range(9))
def test_trail_without_one_of_its_events_is_told(index: int) -> None:
    """From the order to the end."""
    trace = trace_of(SEEN)
    del trace["events"][index]
    (fault,) = faults(trace)
    assert "has no event" in fault


def test_events_out_of_order_or_of_another_delivery_are_told() -> None:
    """The numbers, the moments, the sequence of kinds, and the ids in each."""
    trace = trace_of(SEEN)
    turned = {**trace, "events": trace["events"][::-1]}
    assert any("events out of order" in fault for fault in faults(turned))
    foreign = copy.deepcopy(trace)
    foreign["events"][4]["data"]["delivery"] = "another"
    (fault,) = faults(foreign)
    assert "of another delivery" in fault


# --------------------------------------------------------------------------------------- reloads


def test_reload_is_squared_with_its_delivery() -> None:
    """One line, one receipt."""
    made = square(NODE, [START + 5], [SEEN], [])
    assert (made.told, made.again, made.faults) == (1, 0, [])


def test_reload_that_is_in_no_log_is_told() -> None:
    """The receipt alone proves nothing."""
    (fault,) = square(NODE, [], [SEEN], []).faults
    assert "its log does not" in fault


def test_reload_that_no_delivery_explains_is_told() -> None:
    """Before the push, and of a delivery that was never pushed."""
    assert len(square(NODE, [START - 60, START + 5], [SEEN], []).faults) == 1
    unpushed = replace(SEEN, stage="failed", pushed_at=None, reloaded_at=None)
    assert len(square(NODE, [START + 5], [unpushed], []).faults) == 1


@pytest.mark.parametrize(
    ("delivery", "kills", "lines", "unexplained"),
    [
        (SEEN, [], 2, 1),
        (SEEN, [4.5], 2, 0),
        (SEEN, [4.5], 3, 1),
        (SEEN, [4.4, 4.9], 3, 0),
        (SEEN, [-60.0, 60.0], 2, 1),
        (RESTORED, [], 2, 0),
        (RESTORED, [], 3, 1),
        (RESTORED, [4.5], 3, 0),
        (RESTORED, [4.5], 5, 2),
    ],
)
def test_kill_and_put_back_explain_one_reload_each(
    delivery: Delivery, kills: list[float], lines: int, unexplained: int
) -> None:
    """However many there are: each beyond is nobody's."""
    at = [START + 4 + number / 2 for number in range(lines)]
    made = square(NODE, at, [delivery], [START + one for one in kills])
    assert len(made.faults) == unexplained
    assert made.again == lines - unexplained - 1


def test_kill_explains_one_reload_of_one_delivery() -> None:
    """It is used up, though a second delivery's time begins at once."""
    second = replace(SEEN, delivery_id="second", pushed_at=START + 6, ended_at=START + 9)
    lines = [START + 3, START + 4, START + 8.5, START + 9]
    assert len(square(NODE, lines, [SEEN, second], [START + 3.5]).faults) == 1


# ---------------------------------------------------------------------------------------- report


def rendered(*unseen: Delivery) -> list[str]:
    """Return the lines of a report on such deliveries."""
    judged = Judged(unseen=list(unseen))
    return render(
        Soaked(seed=1, minutes=1, hosts=1, lifetime_seconds=300, judged=judged)
    ).splitlines()


def test_each_delivery_that_was_not_seen_is_told_with_its_reason() -> None:
    """Whatever its note holds stays within its cell; where all were seen nothing is said."""
    failed = replace(SEEN, stage="failed", note="no room |\nleft", certificate_id=None)
    withdrawn = replace(SEEN, node="haproxy-2.soak.example.test", stage="withdrawn", reason="asked")
    lines = rendered(failed, withdrawn)
    begin = lines.index("| node | end | cause | note |")
    assert lines[begin + 2 : begin + 5] == [
        f"| {NODE} | failed | due | no room \\| left |",
        "| haproxy-2.soak.example.test | withdrawn | asked | none |",
        "",
    ]
    assert not [line for line in rendered() if "did not end" in line]
