"""Making a server take its new certificate: a signal, a command, a systemd unit, or nothing.

What is done stands in the node's own configuration alone.  A check may come before it (``nginx
-t``), and if that fails nothing is reloaded.  Whether the server then really serves the new
certificate is for ``look`` to see: this module only knows that it was told to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from agents.config import Absent, ReloadSection
from agents.processes import (
    NoProcess,
    ProcessFault,
    find_process,
    read_pid_file,
    send_signal,
)
from agents.programs import ProgramFault, run

__all__ = ["SYSTEMCTL", "ReloadFault", "Renewed", "is_unit", "reload"]

SYSTEMCTL: Final = ("systemctl", "--no-ask-password", "reload-or-restart", "--")
"""How a unit is reloaded; its name follows."""

NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_:][A-Za-z0-9_:.@-]{0,252}")
"""What a name may be made of before it goes into an environment: DNS names, addresses of both
kinds and mail addresses.  Scripts put these values into command lines of their own."""

CERTIFICATE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")
"""What the configured name of a certificate may be made of there."""

FOLDER: Final = re.compile(r"/[A-Za-z0-9_./@:+=-]{0,1023}")
"""What a folder's path may be made of there: nothing that a shell takes for its own."""

MAX_VALUE_CHARS: Final = 64 * 1024
"""Longest value that a program is told, in characters: Linux starts none with one past 128 KiB, and
a host with 5,000 certificates that share a reload would come to it."""

UNIT: Final = re.compile(
    r"[A-Za-z0-9_.@:\\][A-Za-z0-9_.@:\\-]{0,200}\.(service|socket|target|mount|path|timer)"
)
"""What systemd calls a unit (systemd.unit: letters, digits and ``:-_.\\``); never an option."""


class ReloadFault(Exception):
    """The server was not told to reload, or answered that it could not.

    ``output`` is what the program said, for the node's own log alone: it may hold anything.
    """

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


@dataclass(frozen=True, slots=True)
class Renewed:
    """A certificate that was put in place, for programs that want to know which."""

    certificate: str
    names: tuple[str, ...]
    directory: Path


def is_unit(text: str) -> bool:
    """Say whether *text* can be the name of a systemd unit."""
    return UNIT.fullmatch(text) is not None


def reload(
    section: ReloadSection, renewed: Sequence[Renewed], *, systemctl: Sequence[str] = SYSTEMCTL
) -> None:
    """Do what *section* says; *renewed* are the certificates that it is done for.

    A section that says nothing does nothing: the server looks at its files by itself.

    Raises:
        ReloadFault: The check or the reload failed; what the server serves now has to be looked at.
    """
    is_told = bool(section.check or section.command)
    environment = make_environment(renewed) if is_told else {}
    if section.check:
        _run("check", section.check, section.timeout, environment)
    if section.signal is not None:
        _signal(section)
    elif section.command:
        _run("command", section.command, section.timeout, environment)
    elif section.systemd is not None:
        if not is_unit(section.systemd):
            raise ReloadFault(f"{section.systemd[:100]!r} is no name of a systemd unit")
        _run("unit", (*systemctl, section.systemd), section.timeout, {})


def make_environment(renewed: Sequence[Renewed]) -> Mapping[str, str]:
    """Return what a program is told about *renewed*, under names that never change.

    ``PENSTOCK_CERTIFICATE`` and, as certbot's hooks know them, ``RENEWED_LINEAGE`` and
    ``RENEWED_DOMAINS``.  Where one reload serves several certificates, each holds all of them with
    one space in between; what is too long for an environment is left empty.

    Raises:
        ReloadFault: Something in a value could be taken for more than a name by a script.
    """
    for one in renewed:
        _expect(CERTIFICATE, one.certificate, "certificate name")
        _expect(FOLDER, str(one.directory), "folder")
        for name in one.names:
            _expect(NAME, name, "name")
    return {
        "PENSTOCK_CERTIFICATE": _join(one.certificate for one in renewed),
        "RENEWED_LINEAGE": _join(str(one.directory) for one in renewed),
        "RENEWED_DOMAINS": _join(name for one in renewed for name in one.names),
    }


def _join(values: Iterable[str]) -> str:
    """Return *values*, each once, with spaces in between, if they are not too long together."""
    joined = " ".join(dict.fromkeys(values))
    return joined if len(joined) <= MAX_VALUE_CHARS else ""


def _expect(pattern: re.Pattern[str], text: str, what: str) -> None:
    if pattern.fullmatch(text) is None:
        raise ReloadFault(f"{what} {text[:60]!r} cannot be handed to a program")


def _signal(section: ReloadSection) -> None:
    name, user = section.signal or "", section.user
    if section.process is None:
        raise ReloadFault(f"signal {name} has no process that it is for: name its program")
    try:
        if section.pid_file is not None:
            pid = read_pid_file(Path(section.pid_file), user=user)
        else:
            pid = find_process(section.process, user=user)
        send_signal(pid, name, program=section.process, user=user)
    except NoProcess as error:
        # It is started later, and reads then what is in place.
        if section.absent is not Absent.PASS:
            raise ReloadFault(str(error)) from None
    except ProcessFault as error:
        raise ReloadFault(str(error)) from None


def _run(
    what: str, command: Sequence[str], limit: timedelta, environment: Mapping[str, str]
) -> None:
    try:
        finished = run(command, limit=limit, environment=environment)
    except ProgramFault as error:
        raise ReloadFault(f"{what} failed: {error}") from None
    if finished.status != 0:
        raise ReloadFault(f"{what} {command[0]!r} {finished.ending}", finished.complaint)
