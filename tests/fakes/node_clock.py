"""The agent's clocks, moved by hand."""

from datetime import timedelta

from tests.fakes.clock import FakeClock


class NodeClock(FakeClock):
    """``agents.clock.Clock``: both of its clocks move together, unless one is set."""

    def __init__(self) -> None:
        super().__init__()
        self._passed = 0.0

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._passed

    def advance(self, by: timedelta) -> None:
        """Move on."""
        super().advance(by)
        self._passed += by.total_seconds()

    def set_back(self, by: timedelta) -> None:
        """Set the wall clock back, as somebody's time service may."""
        super().advance(-by)
