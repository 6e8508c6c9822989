"""The only reader of the clock.

Everything else is handed the time, or this clock behind ``issuance.ports.Clock``, so that a test
can say what time it is.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["SystemClock"]


class SystemClock:
    """The machine's own clock, in UTC."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)
