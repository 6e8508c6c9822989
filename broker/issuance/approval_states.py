"""The states of an approval: nothing else changes one.

The table knows neither the time nor who asks.  What the clock does is an event as well, told by
whoever looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from broker.issuance.approval_ports import ApprovalStatus

__all__ = [
    "APPROVAL_TABLE",
    "OPENING",
    "ApprovalEvent",
    "IllegalAnswer",
    "advance_approval",
    "is_allowed",
    "render_diagram",
]


class ApprovalEvent(Enum):
    """What can happen to an approval."""

    APPROVED = "as many people as it takes said yes"
    DENIED = "a person said no"
    UNANSWERED = "nobody answered in time"
    SUSPENDED = "a person suspended it"
    RESUMED = "a person let it go on"
    PROOF_DUE = "its evidence is too old, or policy asks for more"
    RENEWED = "people said yes anew"
    ENDED = "the time it was good for is over"
    WITHDRAWN = "a person took it back"


class IllegalAnswer(Exception):
    """An event that the table does not allow in this state."""

    def __init__(self, status: ApprovalStatus, event: ApprovalEvent) -> None:
        super().__init__(f"approval that is '{status}' does not allow '{event.name}'")
        self.status = status
        self.event = event


_S, _E = ApprovalStatus, ApprovalEvent

OPENING: Final = (_S.APPROVED,)
"""The states in which an approval opens anything: there is one."""

APPROVAL_TABLE: Final[Mapping[tuple[ApprovalStatus, ApprovalEvent], ApprovalStatus]] = {
    (_S.WAITING, _E.APPROVED): _S.APPROVED,
    (_S.WAITING, _E.DENIED): _S.DENIED,
    (_S.WAITING, _E.UNANSWERED): _S.EXPIRED,
    (_S.WAITING, _E.WITHDRAWN): _S.WITHDRAWN,
    # People change their mind; they have to say yes as if nobody had said no.
    (_S.DENIED, _E.APPROVED): _S.APPROVED,
    (_S.APPROVED, _E.SUSPENDED): _S.SUSPENDED,
    (_S.APPROVED, _E.PROOF_DUE): _S.DUE,
    (_S.APPROVED, _E.RENEWED): _S.APPROVED,
    (_S.APPROVED, _E.ENDED): _S.EXPIRED,
    (_S.APPROVED, _E.WITHDRAWN): _S.WITHDRAWN,
    (_S.DUE, _E.SUSPENDED): _S.SUSPENDED,
    (_S.DUE, _E.RENEWED): _S.APPROVED,
    (_S.DUE, _E.ENDED): _S.EXPIRED,
    (_S.DUE, _E.WITHDRAWN): _S.WITHDRAWN,
    (_S.SUSPENDED, _E.RESUMED): _S.APPROVED,
    (_S.SUSPENDED, _E.ENDED): _S.EXPIRED,
    (_S.SUSPENDED, _E.WITHDRAWN): _S.WITHDRAWN,
    # Certificates that came of it may live on.
    (_S.EXPIRED, _E.WITHDRAWN): _S.WITHDRAWN,
}
"""State and event → the state that follows."""


def is_allowed(status: ApprovalStatus, event: ApprovalEvent) -> bool:
    """Return whether *event* can happen in this state."""
    return (status, event) in APPROVAL_TABLE


def advance_approval(status: ApprovalStatus, event: ApprovalEvent) -> ApprovalStatus:
    """Return the state that *event* leads to.

    Raises:
        IllegalAnswer: It does not follow; from a person this is told to them, else it is our bug.
    """
    try:
        return APPROVAL_TABLE[status, event]
    except KeyError:
        raise IllegalAnswer(status, event) from None


def render_diagram() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> waiting"]
    for (status, event), after in APPROVAL_TABLE.items():
        lines.append(f"    {status} --> {after}: {event.value}")
    left = {status for status, _ in APPROVAL_TABLE}
    lines += [f"    {status} --> [*]" for status in ApprovalStatus if status not in left]
    return "\n".join([*lines, "```", ""])
