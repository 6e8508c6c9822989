"""Which configuration is in force since when, and why what lies in the file is not.

It outlives the turns of a broker: what one configuration was refused for is told while another
serves.  Nothing here reads the file, judges it or begins a turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog

from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.policy.yamlfile import Faults
from broker.protocol.encoding import format_timestamp

__all__ = ["ConfigKeeper", "ConfigOutcome", "ConfigRefusal", "ReadConfig", "sentences"]

TOLD_FAULTS: Final = 20
"""Faults that are kept of a refused configuration; ``penstock check`` has them all."""

log = structlog.get_logger("penstock")


class ConfigOutcome(StrEnum):
    """What became of a changed file."""

    TAKEN = "taken"
    REFUSED = "refused"
    """It was judged unfit; nothing was ended for it."""
    FAILED = "failed"
    """It was judged good and did not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConfig:
    """A configuration with the text that it was read from."""

    config: Config
    text: str = ""

    @property
    def sha256(self) -> str:
        """Return the digest of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def is_like(self, other: Config) -> bool:
        """Return whether a broker would serve alike by *other*; people are looked up anew."""
        nobody = {"operators": None}
        return self.config.model_copy(update=nobody) == other.model_copy(update=nobody)

    def with_people_of(self, other: ReadConfig) -> ReadConfig:
        """Return this configuration with the people who operate as *other* has them."""
        people = {"operators": other.config.operators}
        return replace(self, config=self.config.model_copy(update=people))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRefusal:
    """Why the file is not in force."""

    since: datetime
    faults: tuple[str, ...]
    sha256: str | None = None
    """Of its text; None where it could not be read."""
    is_final: bool = True
    """Whether the same text would be refused again; otherwise it is tried again."""


class ConfigKeeper:
    """Knows what is in force, whose people count, and what is refused."""

    def __init__(self, first: ReadConfig, clock: Clock) -> None:
        """Begin with *first*, which is about to serve."""
        self._clock = clock
        self.in_force = first
        self.people = first
        """The last reading whose people could be taken in."""
        self.since = clock.now()
        self.refusal: ConfigRefusal | None = None
        self.is_last_good = False
        """Whether the kept one serves because the file was no use at the start."""
        self.counts = dict.fromkeys(ConfigOutcome, 0)

    def take(self, reading: ReadConfig) -> None:
        """Note that *reading* is in force from now on; whose people count is told apart."""
        before = self.in_force.sha256
        self.in_force = reading
        self.since = self._clock.now()
        self.refusal = None
        self.is_last_good = False
        self.counts[ConfigOutcome.TAKEN] += 1
        log.info("configuration in force", sha256=reading.sha256, before=before)

    def resume(self, kept: ReadConfig) -> None:
        """Note that *kept* serves, for the file is no use at this start."""
        self.in_force = kept
        self.is_last_good = True

    def refuse(
        self,
        outcome: ConfigOutcome,
        faults: tuple[str, ...],
        sha256: str | None,
        *,
        is_final: bool = True,
    ) -> None:
        """Note why the file is not in force, and tell it once for each content and reason."""
        told, was = faults[:TOLD_FAULTS], self.refusal
        is_known = was is not None and (was.sha256, was.faults) == (sha256, told)
        if was is not None and is_known:
            self.refusal = replace(was, is_final=is_final)
            return
        self.refusal = ConfigRefusal(
            since=self._clock.now(), faults=told, sha256=sha256, is_final=is_final
        )
        self.counts[outcome] += 1
        log.error(
            "configuration refused",
            outcome=outcome.value,
            sha256=sha256,
            in_force=self.in_force.sha256,
            in_force_since=self.since.isoformat(),
            faults=list(told),
            more_faults=max(0, len(faults) - TOLD_FAULTS),
        )

    def agree(self) -> None:
        """Note that the file is what is in force."""
        if self.refusal is not None:
            log.info("configuration file is the one in force again", sha256=self.in_force.sha256)
        self.refusal = None
        self.is_last_good = False

    def warning(self) -> str | None:
        """Return why the file is not in force, None while it is."""
        refusal = self.refusal
        if refusal is None:
            return None
        more = f" and {len(refusal.faults) - 1} more" if len(refusal.faults) > 1 else ""
        return (
            f"file is refused since {format_timestamp(refusal.since)} and that of "
            f"{format_timestamp(self.since)} stays in force: {refusal.faults[0]}{more}"
        )

    def view(self) -> Mapping[str, object]:
        """Return what an operator is told."""
        refusal = self.refusal
        return {
            "sha256": self.in_force.sha256,
            "since": format_timestamp(self.since),
            "is_kept_one": self.is_last_good,
            "refused": None
            if refusal is None
            else {
                "sha256": refusal.sha256,
                "since": format_timestamp(refusal.since),
                "is_tried_again": not refusal.is_final,
                "faults": list(refusal.faults),
            },
        }


def sentences(error: Faults | Broken | Unreachable) -> tuple[str, ...]:
    """Return what is wrong, a sentence for each fault."""
    if isinstance(error, Faults):
        return tuple(str(fault) for fault in error.faults)
    return (error.reason,)
