"""Outcomes that a port may raise, cut by what the caller does next.

Every adapter translates its library's exceptions into one of these four; nothing else may leave
it.  A refusal towards one of our own clients is a :class:`broker.protocol.problems.Problem`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.protocol.problems import Problem

__all__ = [
    "AlreadyReplaced",
    "Broken",
    "Conflict",
    "KeyArchived",
    "NoKeyStore",
    "OverLimit",
    "Refused",
    "Unreachable",
]


class Refused(Exception):
    """The peer looked at what we asked and said no: asking again changes nothing.

    ``problem`` is the peer's own document (or one made in its place); what of it a client may
    see is decided by the workflow, never by the adapter.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Unreachable(Exception):
    """No usable answer came: try later.  The state of the peer is unknown until it is read.

    ``retry_at`` is the earliest time the peer named (Retry-After), aware UTC, or None.
    ``left_nothing`` is True only when the request certainly changed nothing at the peer: no
    connection was made, or the peer answered that it is over a limit (429).  ``is_fault`` says that
    the peer answered, of this very request, that it has a fault of its own (500).
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_at: datetime | None = None,
        left_nothing: bool = False,
        is_fault: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_at = retry_at
        self.left_nothing = left_nothing
        self.is_fault = is_fault
        self.hint = hint
        """What a person can do about it, where it does not end by itself."""


class Broken(Exception):
    """Stop and fetch a person: the peer breaks its protocol, or our own set-up is wrong.

    Trying again at once is useless; the workflow backs off as for :class:`Unreachable` and
    shows the reason to the operator.

    ``left_nothing`` is True only when the request certainly changed nothing at the peer: it was
    not sent, or the peer refused it for our own sake.
    """

    def __init__(self, reason: str, *, left_nothing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.left_nothing = left_nothing


class NoKeyStore(Broken):
    """Where a key should lie there is nothing that could keep one, such as a mount that is gone."""


class KeyArchived(Broken):
    """The key is there and may not be used until somebody who may do so allows it again."""


class Conflict(Exception):
    """A compare-and-set lost: somebody else was first.  Read again and decide anew."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AlreadyReplaced(Conflict):
    """Another order of the account replaces the same certificate (RFC 9773 §5): tell the client."""


class OverLimit(Conflict):
    """A bucket of tokens has too few left, so the change was not made: come again later.

    ``bucket`` names it and ``limit`` is its rate in words; ``wait`` is how long until it has
    enough; ``floor`` is what is kept in it for others, zero where nothing is left at all.
    """

    def __init__(
        self, reason: str, *, bucket: str, limit: str, wait: timedelta, floor: float
    ) -> None:
        super().__init__(reason)
        self.limit = limit
        self.bucket = bucket
        self.wait = wait
        self.floor = floor
