"""The stages of a delivery: nothing else changes one.

The table knows neither the time nor who asks.  A receipt may be lost or come late, so each may
leap over those before it; one that tells of what is past already is no event at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from broker.issuance.node_ports import DeliveryStage

__all__ = [
    "AT_NODE",
    "DELIVERY_TABLE",
    "OPEN",
    "DeliveryEvent",
    "IllegalStage",
    "advance_delivery",
    "event_of_receipt",
    "first_stage",
    "is_news",
    "render_diagram",
]


class DeliveryEvent(Enum):
    """What can happen to a delivery."""

    CSR_OFFERED = "the node sent its CSR"
    NODE_UNABLE = "the node cannot make one"
    ISSUED = "the order is valid"
    ORDER_FAILED = "there will be no certificate"
    LOST = "it has less than what it replaces"
    RELEASED = "a person lets it go on"
    ADMITTED = "its rollout lets it go"
    SPENT = "the certificate ended or was revoked on the way"
    CHECKED = "the node found it right"
    INSTALLED = "it lies in its place"
    RELOADED = "the server was told"
    SEEN = "the server was seen to serve it"
    REFUSED = "the node's own checks refused it"
    FAILED = "it could not be installed"
    RESTORED = "the one before was put back"
    WITHDRAWN = "a person took it back, or the node has gone"
    SUPERSEDED = "a newer one was begun"


class IllegalStage(Exception):
    """An event that the table does not allow in this stage."""

    def __init__(self, stage: DeliveryStage, event: DeliveryEvent) -> None:
        super().__init__(f"delivery that is '{stage}' does not allow '{event.name}'")
        self.stage = stage
        self.event = event


_S, _E = DeliveryStage, DeliveryEvent

AT_NODE: Final = (_S.PUSHED, _S.CHECKED, _S.INSTALLED, _S.RELOADED)
"""Stages in which the node is at work, in their order."""

OPEN: Final = (_S.ASKED, _S.ORDERED, _S.ISSUED, _S.HELD, *AT_NODE)
"""Every stage that is no end, in their order."""

_REACHED: Final[Mapping[DeliveryEvent, DeliveryStage]] = {
    _E.CHECKED: _S.CHECKED,
    _E.INSTALLED: _S.INSTALLED,
    _E.RELOADED: _S.RELOADED,
    _E.SEEN: _S.SEEN,
}
_ENDED: Final[Mapping[DeliveryEvent, DeliveryStage]] = {
    _E.REFUSED: _S.REFUSED,
    _E.FAILED: _S.FAILED,
    _E.RESTORED: _S.RESTORED,
    _E.SPENT: _S.FAILED,
}
_ORDER: Final = {stage: place for place, stage in enumerate((*AT_NODE, _S.SEEN))}

DELIVERY_TABLE: Final[Mapping[tuple[DeliveryStage, DeliveryEvent], DeliveryStage]] = {
    (_S.ASKED, _E.CSR_OFFERED): _S.ORDERED,
    (_S.ASKED, _E.NODE_UNABLE): _S.FAILED,
    (_S.ORDERED, _E.ISSUED): _S.ISSUED,
    (_S.ORDERED, _E.ORDER_FAILED): _S.FAILED,
    (_S.ISSUED, _E.LOST): _S.HELD,
    (_S.ISSUED, _E.ADMITTED): _S.PUSHED,
    (_S.ISSUED, _E.SPENT): _S.FAILED,
    (_S.HELD, _E.RELEASED): _S.ISSUED,
    (_S.HELD, _E.SPENT): _S.FAILED,
    **{
        (stage, event): reached
        for stage in AT_NODE
        for event, reached in _REACHED.items()
        if _ORDER[reached] > _ORDER[stage]
    },
    **{(stage, event): end for stage in AT_NODE for event, end in _ENDED.items()},
    # What has begun at the node cannot be called back; until then it can.
    **{
        (stage, _E.WITHDRAWN): _S.WITHDRAWN
        for stage in (_S.ASKED, _S.ORDERED, _S.ISSUED, _S.HELD, *AT_NODE)
    },
    **{(stage, _E.SUPERSEDED): _S.SUPERSEDED for stage in OPEN},
}
"""Stage and event → the stage that follows."""

_RECEIPTS: Final[Mapping[DeliveryStage, DeliveryEvent]] = {
    **{stage: event for event, stage in _REACHED.items()},
    _S.REFUSED: _E.REFUSED,
    _S.FAILED: _E.FAILED,
    _S.RESTORED: _E.RESTORED,
}


def first_stage(*, has_csr: bool) -> DeliveryStage:
    """Return where a delivery begins: with a question to its node, unless its CSR is there."""
    return DeliveryStage.ORDERED if has_csr else DeliveryStage.ASKED


def advance_delivery(stage: DeliveryStage, event: DeliveryEvent) -> DeliveryStage:
    """Return the stage that *event* leads to.

    Raises:
        IllegalStage: It does not follow; from a node this is its fault, else ours.
    """
    try:
        return DELIVERY_TABLE[stage, event]
    except KeyError:
        raise IllegalStage(stage, event) from None


def event_of_receipt(told: DeliveryStage) -> DeliveryEvent | None:
    """Return what a receipt for *told* tells; None for a stage that no node reaches."""
    return _RECEIPTS.get(told)


def is_news(stage: DeliveryStage, told: DeliveryStage) -> bool:
    """Return whether a receipt for *told* says more than is known at *stage*."""
    if stage.is_end:
        return False
    return told not in _ORDER or stage not in _ORDER or _ORDER[told] > _ORDER[stage]


def render_diagram() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> asked"]
    for (stage, event), after in DELIVERY_TABLE.items():
        if event is not DeliveryEvent.SUPERSEDED:
            lines.append(f"    {stage} --> {after}: {event.value}")
    lines += [f"    {stage} --> [*]" for stage in DeliveryStage if stage.is_end]
    return "\n".join([*lines, "```", ""])
