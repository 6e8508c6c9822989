"""What commands about renewals at nodes answer, as types (see ``web.answers``)."""

# No deferred annotations: whether a member may be left out would not be seen through them.
from typing import TypedDict

from broker.web.answers import EventRow, Time

__all__ = ["Delivery", "DeliveryTrace"]


class Delivery(TypedDict):
    """One certificate on its way to one node."""

    delivery: str
    stage: str
    node: str
    community: str
    certificate: str
    names: list[str]
    generation: int
    reason: str
    group: str | None
    incident: str | None
    order: str | None
    certificate_id: str | None
    note: str | None
    begun: Time
    pushed: Time
    ended: Time


class DeliveryTrace(Delivery):
    """The way of one certificate, from the order to the server that was seen to serve it."""

    fingerprint: str | None
    serial: str | None
    not_after: Time
    replaces: str | None
    stages: dict[str, Time]
    events: list[EventRow]
