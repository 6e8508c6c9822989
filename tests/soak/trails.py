"""Whether ``penstock cert trace`` tells the whole way of a certificate, and it hangs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tests.soak.deliveries import Delivery

__all__ = ["faults_of_trail", "lost_receipts"]

STAGES: Final = ("asked", "issued", "pushed", "checked", "installed", "reloaded")
"""Before the end, in the order in which they are reached; every host of a soak is reloaded."""

AT_NODE: Final = STAGES[3:]
"""Those that a receipt tells: one that a kill took is not told again once the next has come."""

TOLD_APART_SECONDS: Final = 1.0
"""The command tells whole seconds, the store has microseconds."""

CLOCK_SECONDS: Final = 2.0
"""How far before the push a kill is noted that took a receipt for it: the moment of a kill is the
one before the signal is sent."""

ENDS: Final = {
    "seen": "delivery-seen",
    "withdrawn": "delivery-withdrawn",
    "superseded": "delivery-superseded",
}
"""Kinds of events of the ends; all others are failures."""

EVENTS: Final = (
    ("order-created", None),
    ("order-finalized", None),
    ("certificate-issued", None),
    ("delivery-moved", "issued"),
)
"""Kinds of events, and the stage that each tells, which every certificate of a node has in its
trail in this order; the push, each stage at the node and the end come after them."""


def faults_of_trail(
    trace: Mapping[str, Any], delivery: Delivery, fingerprint: str, kills: Sequence[float]
) -> list[str]:
    """Return what a trail lacks or says otherwise than the store; empty where it is whole.

    *kills* are those of agent and broker, in seconds since 1970: a receipt may be lost with one.
    """
    return [
        *_wrong_ids(trace, delivery, fingerprint),
        *_wrong_stages(trace, delivery, kills),
        *_wrong_events(trace, delivery, fingerprint),
    ]


def lost_receipts(trace: Mapping[str, Any]) -> list[str]:
    """Return the stages at the node of which no receipt came although a later one did."""
    stages = trace["stages"]
    reached = [name for name in STAGES if stages.get(name) is not None]
    last = AT_NODE if trace["stage"] == "seen" else AT_NODE[: _count(reached)]
    return [name for name in last if stages.get(name) is None]


def _count(reached: Sequence[str]) -> int:
    return max((AT_NODE.index(one) + 1 for one in reached if one in AT_NODE), default=0)


def _wrong_ids(trace: Mapping[str, Any], delivery: Delivery, fingerprint: str) -> Iterator[str]:
    wanted = {
        "delivery": delivery.delivery_id,
        "stage": delivery.stage,
        "node": delivery.node,
        "names": [delivery.node],
        "generation": delivery.generation,
        "order": delivery.order_id,
        "certificate_id": delivery.certificate_id,
        "fingerprint": fingerprint,
    }
    for name, value in wanted.items():
        if value is None or trace.get(name) != value:
            yield f"says {name} {trace.get(name)!r} where the store has {value!r}"


def _wrong_stages(
    trace: Mapping[str, Any], delivery: Delivery, kills: Sequence[float]
) -> Iterator[str]:
    told, times = trace["stages"], _times(delivery)
    for name, at in times.items():
        said = told.get(name)
        if at is None and said is None:
            if name in _needed(delivery):
                yield f"does not say when stage '{name}' was reached"
        elif at is None or said is None or abs(_seconds(said) - at) > TOLD_APART_SECONDS:
            yield f"says {said} of stage '{name}' where the store has {at}"
    reached = [at for at in times.values() if at is not None]
    if reached != sorted(reached):
        yield f"has stages out of order: {told}"
    begin, end = (delivery.pushed_at or 0.0) - CLOCK_SECONDS, delivery.ended_at or float("inf")
    if (lost := lost_receipts(trace)) and not any(begin <= at <= end for at in kills):
        yield f"has no time of {', '.join(lost)} although nothing was killed meanwhile"


def _wrong_events(trace: Mapping[str, Any], delivery: Delivery, fingerprint: str) -> Iterator[str]:
    events = trace["events"]
    numbers, moments = [one["number"] for one in events], [_seconds(one["at"]) for one in events]
    if numbers != sorted(set(numbers)) or moments != sorted(moments):
        yield "has events out of order"
    found = [(one["kind"], one["data"].get("stage")) for one in events]
    place = -1
    for wanted in _events_of(delivery):
        if wanted not in found[place + 1 :]:
            yield f"has no event {wanted[0]} {wanted[1] or ''}".rstrip() + " in its place"
            continue
        place = found.index(wanted, place + 1)
    known = {
        "delivery": delivery.delivery_id,
        "certificate_id": delivery.certificate_id,
        "fingerprint": fingerprint,
        "node": delivery.node,
        "generation": delivery.generation,
    }
    for one in events:
        for name, value in known.items():
            said = one["data"].get(name)
            if said is not None and said != value:
                yield f"has event {one['number']} ({one['kind']}) of another {name}, {said}"


def _events_of(delivery: Delivery) -> Iterator[tuple[str, str | None]]:
    """Yield the events of a delivery, as its times in the store want them."""
    yield from EVENTS
    for name, at in _times(delivery).items():
        if name in ("pushed", *AT_NODE) and at is not None:
            yield ("delivery-moved", name)
    if delivery.ended_at is not None:
        yield (ENDS.get(delivery.stage, "delivery-failed"), delivery.stage)


def _needed(delivery: Delivery) -> Sequence[str]:
    return (
        ("asked", "issued", "pushed", "seen") if delivery.stage == "seen" else ("asked", "issued")
    )


def _times(delivery: Delivery) -> dict[str, float | None]:
    """Return when each stage was reached, in their order."""
    times = {
        "asked": delivery.begun_at,
        "issued": delivery.issued_at,
        "pushed": delivery.pushed_at,
        "checked": delivery.checked_at,
        "installed": delivery.installed_at,
        "reloaded": delivery.reloaded_at,
    }
    return times if delivery.stage in times else times | {delivery.stage: delivery.ended_at}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
