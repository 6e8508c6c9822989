"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""When every test begins, unless it says otherwise."""


class FakeClock:
    """``issuance.ports.Clock``, moved by hand."""

    def __init__(self, at: datetime = START) -> None:
        self._at = at

    def now(self) -> datetime:
        """Return the time it was set to."""
        return self._at

    def advance(self, by: timedelta) -> None:
        """Move on."""
        self._at += by
