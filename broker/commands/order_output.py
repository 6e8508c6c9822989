"""An order as people read it: the decision once, and each event in a line of its own.

``--json`` has all of it, the names of the checks and what each event repeats included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.commands.output import print_pairs, print_rows, shown

__all__ = ["print_order"]

BUILT_IN: Final = "builtin:"
"""What URLs of the built-in CA begin with: they hold the request itself, and lead nowhere."""

_TOLD: Final = {
    "identifiers": "names",
    "csr": "csr_sha256",
    "certificate_id": "certificate",
}
"""Member of an event's data → member of the order that tells the same."""


def print_order(found: Mapping[str, Any]) -> None:
    """Print an order: what became of it, what was decided, and what happened when."""
    told = {name: held for name, held in found.items() if name != "events"}
    told["decision"] = _decision(found.get("decision"))
    told["upstream_order"] = _upstream_order(found.get("upstream_order"))
    print_pairs({name: held for name, held in told.items() if name in found})
    if found.get("events"):
        print_rows("events", [_event(each, found) for each in found["events"]])


def _decision(decision: Any) -> Any:
    if not isinstance(decision, Mapping) or not isinstance(decision.get("checks"), list):
        return decision
    return {**decision, "checks": f"{len(decision['checks'])} passed, --json names them"}


def _upstream_order(work: Any) -> Any:
    if not isinstance(work, Mapping) or not str(work.get("url")).startswith(BUILT_IN):
        return work
    return {name: held for name, held in work.items() if name != "url"}


def _event(event: Mapping[str, Any], order: Mapping[str, Any]) -> list[str]:
    """Return when, what, who, and what the order does not tell already."""
    actor = str(event.get("actor"))
    own = {
        name: held
        for name, held in dict(event.get("data") or {}).items()
        if name != "decision" and (name not in _TOLD or held != order.get(_TOLD[name]))
    }
    own |= _otherwise(event, order)
    if event.get("reason"):
        own["reason"] = event["reason"]
    is_requester = actor == f"account:{order.get('account')}"
    return [
        shown(event.get("at")),
        shown(event.get("kind")),
        "account" if is_requester else shown(actor),
        ", ".join(f"{name.replace('_', ' ')}: {shown(held)}" for name, held in own.items()),
    ]


def _otherwise(event: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event tells of a decision that is not the one that holds now."""
    now = order.get("decision")
    then = dict(event.get("data") or {}).get("decision")
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return {}
    return {
        f"decided {name}": held
        for name, held in then.items()
        if name not in ("at", "checks") and held != now.get(name)
    }
