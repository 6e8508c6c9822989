"""What can go wrong between agent and broker, cut by what the agent does next.

None of them touches what is being served: whatever the broker says or fails to say, certificates
that are in place stay in place.
"""

from __future__ import annotations

__all__ = ["ClocksDiffer", "Impostor", "NotKnown", "Refused", "Silent", "Unreachable"]


class Unreachable(Exception):
    """Try again later; after ``retry_seconds`` if the broker named a time."""

    def __init__(self, reason: str, retry_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.retry_seconds = retry_seconds


class Silent(Unreachable):
    """Somebody took the request and answered nothing in time: the broker hangs, or something in
    between holds its answer back."""


class Impostor(Unreachable):
    """Who answers cannot show to be the broker: nothing was sent to it.

    It is tried again, for a certificate of the broker's that ended is replaced in time, and a clock
    is set; but it is told as what it is.
    """


class ClocksDiffer(Unreachable):
    """The broker refuses what was signed just now for its time: one of the two clocks is wrong.

    It says nothing of who asks, so it is no reason to ask to be let in anew.
    """


class Refused(Exception):
    """The broker has said no; the same request would be refused again.

    ``type`` is the last part of the problem document's type.
    """

    def __init__(self, status: int, type_: str, detail: str) -> None:
        super().__init__(f"refused with {status} {type_}: {detail}".rstrip(": "))
        self.status = status
        self.type = type_


class NotKnown(Refused):
    """The broker does not know this identity, or not any more: the node has to enrol again."""
