"""Clears away what installs that were cut off have left, and previous keys whose time is over.

Nothing that is read by a server is touched: the pair in place, one that waits to be taken back, and
previous ones that have to be kept are known by their names and by what is written down.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from agents.install import Section, journals, read_journal
from agents.layouts import place_of
from agents.paths import TEMPORARY, PathFault, link_text, open_folder, remove
from agents.state import StateFault
from agents.switching import PREVIOUS, before_name

__all__ = ["clear_previous", "recover"]

_DOTS: Final = (".", "..")

_ALL: Final = "*"
"""Stands for every name, where a journal cannot be read."""


def recover(
    sections: Iterable[Section], *, allowed: Sequence[str], state_dir: str, now: datetime
) -> list[str]:
    """Clear away what installs that were cut off have left, and previous keys that are over.

    To be called while nothing is being installed.  Returns what could not be done, for people: one
    folder that cannot be read stops no other.
    """
    wanted: dict[str, set[str]] = {}
    faults = []
    for section in sections:
        if section.files is None:
            continue
        folder, link, _ = place_of(section.files)
        keep = wanted.setdefault(folder, set())
        if link is not None:
            keep.add(link)
        try:
            journal = read_journal(section.name, state_dir)
            if journal is None and journals(state_dir).get(section.name) is not None:
                keep.add(_ALL)  # what it was about cannot be read, so nothing is taken for debris
        except StateFault as fault:
            faults.append(str(fault))
            keep.add(_ALL)
            continue
        if journal is not None:
            keep |= {journal.old, journal.new} | {before_name(one) for one in journal.names}
    for path, keep in wanted.items():
        faults += _clear(path, keep, allowed, now, is_start=True)
    return faults


def clear_previous(
    sections: Iterable[Section], *, allowed: Sequence[str], now: datetime
) -> list[str]:
    """Take away previous keys whose time is over; returns what could not be done."""
    folders = {place_of(one.files)[0] for one in sections if one.files is not None}
    return [
        fault
        for path in sorted(folders)
        for fault in _clear(path, set(), allowed, now, is_start=False)
    ]


def _clear(
    path: str, keep: set[str], allowed: Sequence[str], now: datetime, *, is_start: bool
) -> list[str]:
    faults = []
    try:
        with open_folder(path, allowed) as folder:
            kept = keep | {link_text(folder, one) or "" for one in ("current", "..data")}
            for name in os.listdir(folder):
                is_debris = is_start and _ALL not in keep and _is_debris(name, kept)
                if is_debris or _is_over(name, now):
                    try:
                        remove(folder, name)
                    except OSError as error:
                        faults.append(f"{path}/{name}: {error.strerror}")
    except FileNotFoundError:
        return []
    except PathFault as fault:
        return [] if not os.path.lexists(path) else [str(fault)]
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    return faults


def _is_debris(name: str, kept: set[str]) -> bool:
    return name not in kept and any(name.startswith(f"{dots}{TEMPORARY}") for dots in _DOTS)


def _is_over(name: str, now: datetime) -> bool:
    until = _kept_until(name)
    return until is not None and until <= now.timestamp()


def _kept_until(name: str) -> int | None:
    for dots in _DOTS:
        if name.startswith(f"{dots}{PREVIOUS}"):
            text = name.removeprefix(f"{dots}{PREVIOUS}").partition("-")[0]
            with contextlib.suppress(ValueError):
                return int(text)
    return None
