"""Whether the certificates of the node are in place, and how each of them stands.

Of records alone: the same answer for the running agent, for ``penstock-agent ready`` in a probe and
for ``penstock-agent status``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agents.config import AgentConfig
from agents.records import Record

__all__ = ["NEEDS_RENEWAL_AT", "Standing", "check_ready", "is_due", "standings", "statement"]

NEEDS_RENEWAL_AT: Final = 2 / 3
"""Where in its life a certificate counts as due for renewal, as ``needs-renewal`` tells."""

ASKED: Final = "the broker has its CSR and has not sent the certificate yet"
"""Why a certificate is missing whose key has been made."""

CONNECTED: Final = "the broker is reached and has not asked for a CSR yet"
"""Why one is missing that nothing has been done for."""

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

Find = Callable[[str], Record]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one certificate stands."""

    name: str
    names: tuple[str, ...]
    state: str
    """``missing``, ``ended``, ``installed`` or ``seen``."""
    not_after: datetime | None
    generation: int
    fingerprint: str | None
    fault: str | None
    is_held_to_anchors: bool
    """Whether the configuration names the CAs that it may come from."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.name,
            "names": list(self.names),
            "state": self.state,
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "fault": self.fault,
            "is_held_to_anchors": self.is_held_to_anchors,
        }


def standings(config: AgentConfig, find: Find, now: datetime) -> list[Standing]:
    """Return how each certificate that the configuration wants stands."""
    found = []
    for section in config.certificates:
        record = find(section.name)
        ends = None if record.not_after is None else _time(record.not_after)
        state = "missing"
        if record.fingerprint is not None and ends is not None:
            state = "ended" if ends <= now else "seen" if record.is_seen else "installed"
        found.append(
            Standing(
                name=section.name,
                names=section.names,
                state=state,
                not_after=ends,
                generation=record.generation,
                fingerprint=record.fingerprint,
                fault=record.fault,
                is_held_to_anchors=section.expects.anchors is not None,
            )
        )
    return found


def check_ready(
    config: AgentConfig, find: Find, now: datetime, waits: str | None = None
) -> list[str]:
    """Return what keeps the node from being ready; nothing: every certificate is in place.

    With *waits*, what the agent waits for at the broker (empty: it is reached), each tells why.
    """
    found = []
    for one in standings(config, find, now):
        if one.state in {"missing", "ended"}:
            why = one.fault or waits
            if why == "":
                why = ASKED if find(one.name).asked_csr else CONNECTED
            found.append(f"certificate {one.name!r} is {one.state}" + (f": {why}" if why else ""))
    return found


def is_due(record: Record, now: datetime) -> bool | None:
    """Tell whether a certificate is due for renewal; None: there is none."""
    if record.fingerprint is None or record.not_after is None:
        return None
    ends = _time(record.not_after)
    begins = _time(record.not_before) if record.not_before is not None else ends
    return now >= begins + (ends - begins) * NEEDS_RENEWAL_AT


def statement(
    config: AgentConfig, find: Find, versions: Callable[[str], int], *, instance: str, agent: str
) -> dict[str, Any]:
    """Return the body of ``stated``: what the node serves and wants."""
    certificates = []
    for section in config.certificates:
        record = find(section.name)
        told = {
            "name": section.name,
            "names": list(section.names),
            "key_kind": str(section.key.kind),
            "profile": section.profile,
            "fingerprint": record.fingerprint,
            "not_after": record.not_after,
            "generation": record.generation,
            "is_seen": record.is_seen,
            "fault": record.fault,
        }
        certificates.append({name: value for name, value in told.items() if value is not None})
    return {
        "instance": instance,
        "agent": agent,
        "certificates": certificates,
        "bundles": [{"name": one.name, "version": versions(one.name)} for one in config.bundles],
    }


def _time(seconds: int) -> datetime:
    return _BEGINNING + timedelta(seconds=seconds)
