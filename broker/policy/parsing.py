"""Many files parsed one by one, whatever is wrong with any of them.

This is what takes long of a set of policies, and what another process can do: contents go in, what
each file says comes out, and nothing of either needs this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from broker.policy.policy_set import PolicyFile, parse_policy_file
from broker.policy.yamlfile import Fault, Faults

__all__ = ["MAX_FAULTS", "ParsedFiles", "parse_files", "read_only"]

MAX_FAULTS: Final = 500
"""Most faults that are told of one set of files."""


@dataclass(frozen=True, slots=True)
class ParsedFiles:
    """What was made of files, and what is wrong with the others."""

    made: Mapping[str, PolicyFile] = field(default_factory=dict)
    """By name."""
    faults: tuple[Fault, ...] = ()


def parse_files(files: Mapping[str, bytes]) -> ParsedFiles:
    """Return what each file says by itself."""
    made: dict[str, PolicyFile] = {}
    faults: list[Fault] = []
    for name in sorted(files):
        try:
            # Rules are shown to clients as well: they name the file, not where it lies.
            made[name] = parse_policy_file(name, _text(name, files[name]))
        except Faults as found:
            faults += found.faults
    return ParsedFiles(made, tuple(faults[:MAX_FAULTS]))


def read_only(plain: dict[object, object]) -> Mapping[object, object]:
    """Return a read-only view of *plain*; pickles name this, since they cannot name the type."""
    return MappingProxyType(plain)


def _text(name: str, octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise Faults([Fault(name, line, "", "is not UTF-8")]) from None
