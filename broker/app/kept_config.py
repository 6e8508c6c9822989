"""The last configuration that served, kept in a file for a start at which the real one is no use.

It holds what the configuration file held, references to secrets and no secret.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from broker.app.config_keeping import ReadConfig
from broker.app.own_files import write_whole
from broker.config.load import parse_config, read_text
from broker.issuance.errors import Broken
from broker.policy.yamlfile import MAX_TEXT_BYTES, Faults

__all__ = ["Beginning", "KeptConfig", "KeptReading", "begin_with"]

MODE: Final = 0o600
"""Mode of the file: where secrets lie is nobody else's business."""

MAX_KEPT_BYTES: Final = 4 * MAX_TEXT_BYTES + 1024
"""Largest such file that is read, in bytes: two texts, each character of which is escaped."""

FORM: Final = 1
"""Number of the form that the file has."""

log = structlog.get_logger("penstock")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReading:
    """What served last."""

    reading: ReadConfig
    """With the people of the other."""
    people: ReadConfig
    """The last reading whose people could be taken in; it may be one that was refused else."""


class KeptConfig:
    """The file that keeps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()

    def read(self) -> KeptReading | None:
        """Return what is kept; None where there is nothing, or nothing of use to this version."""
        if not self.path.exists():
            return None
        try:
            found = json.loads(self._octets())
            if found["form"] != FORM:
                raise ValueError(f"it has form {found['form']}, expected {FORM}")
            reading = self._parsed(found["configuration"])
            people = reading if found["people"] is None else self._parsed(found["people"])
        except (OSError, Faults, ValueError, KeyError, TypeError) as error:
            log.error("the kept configuration is no use", path=str(self.path), reason=str(error))
            return None
        return KeptReading(reading=reading.with_people_of(people), people=people)

    def write(self, reading: ReadConfig, people: ReadConfig) -> None:
        """Keep *reading*, with *people* where they were read later; failing changes nothing."""
        document = {
            "form": FORM,
            "configuration": reading.text,
            "people": None if people.text == reading.text else people.text,
        }
        octets = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        try:
            with self._writing:  # both would write beside it under one name
                if not self.path.exists() or self.path.read_bytes() != octets:
                    write_whole(self.path, octets, MODE)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            log.warning("configuration cannot be kept", path=str(self.path), reason=reason)

    def _octets(self) -> bytes:
        with self.path.open("rb") as file:
            octets = file.read(MAX_KEPT_BYTES + 1)
        if len(octets) > MAX_KEPT_BYTES:
            raise ValueError(f"it is larger than the limit of {MAX_KEPT_BYTES} bytes")
        return octets

    def _parsed(self, text: str) -> ReadConfig:
        return ReadConfig(config=parse_config(text, str(self.path)), text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a broker begins with, and what becomes of later changes of its file."""

    reading: ReadConfig
    path: Path | None = None
    """Where it is read again; None: nowhere."""
    is_following: bool = False
    """Whether changes of the file are taken up as they are made, not on SIGHUP alone."""
    kept: KeptConfig | None = None
    """Where the one that serves is kept."""
    error: Faults | Broken | None = None
    """Why `reading` is the kept one and not the file."""
    people: ReadConfig | None = None
    """Whose people count, where that is another reading."""
    linger: timedelta = timedelta(0)
    """How long it serves on after it was told to end, and tells probes so."""


def begin_with(
    path: Path, *, is_following: bool = False, last_good: Path | None = None
) -> Beginning:
    """Return what the file at *path* says, or else what served last.

    Raises:
        Broken, Faults: The file is no use, and nothing is kept.
    """
    kept = None if last_good is None else KeptConfig(last_good)
    try:
        text = read_text(path)
        reading = ReadConfig(config=parse_config(text, str(path)), text=text)
    except (Broken, Faults) as error:
        found = None if kept is None else kept.read()
        if found is None:
            raise
        return Beginning(
            reading=found.reading,
            path=path,
            is_following=is_following,
            kept=kept,
            error=error,
            people=found.people,
        )
    return Beginning(reading=reading, path=path, is_following=is_following, kept=kept)
