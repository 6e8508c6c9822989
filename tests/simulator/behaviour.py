"""How simulated agents shall behave, and what they saw: both travel over a pipe as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from agents.sending import COMPANY_SECONDS, GATHER_SECONDS, KEEP_SECONDS, STAGES_SECONDS

__all__ = ["Behaviour", "Seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one agent shall behave; each default is that of a good one."""

    is_silent: bool = False
    """Takes messages in and never answers any."""
    is_deaf: bool = False
    """Neither answers nor acknowledges."""
    refuses: bool = False
    """Calls every certificate unfit."""
    reload_fails: bool = False
    """Installs, cannot reload, and puts the old certificate back."""
    look_fails: bool = False
    """Reloads, is not shown the new certificate, and puts the old one back."""
    last_stage: str | None = None
    """Tells no stage beyond this one."""
    reload_seconds: float = 0.05
    """How long a reload and a look take."""
    disconnects_after: float | None = None
    """Drops its connection so many seconds after each connect."""
    is_signing: bool = False
    """Signs its requests rather than showing a client certificate."""
    is_polling: bool = False
    """Polls rather than holding a stream."""
    keep_seconds: float = KEEP_SECONDS
    """How long an idle connection for requests is kept; 0: each has one of its own."""
    gather_seconds: float = GATHER_SECONDS
    """How long is waited for more to send together with the first."""
    stages_seconds: float = STAGES_SECONDS
    """How much longer a stage waits that others will follow."""
    company_seconds: float = COMPANY_SECONDS
    """How long an acknowledgement waits before that for a message."""


@dataclass(slots=True)
class Seen:
    """What the agents of one process saw."""

    counts: Counter[str] = field(default_factory=Counter)
    connected: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    times: list[tuple[str, str, str, float]] = field(default_factory=list)
    """(node, subject, what, when by the monotonic clock): when messages came and were answered."""

    def fault(self, text: str) -> None:
        """Keep what went wrong, the first hundred times."""
        self.counts["faults"] += 1
        if len(self.faults) < 100:
            self.faults.append(text)

    def document(self) -> dict[str, Any]:
        """Return the counts and the first faults."""
        return {
            "counts": dict(self.counts),
            "connected": len(self.connected),
            "faults": list(self.faults),
        }
