"""What a driver's program has in common: one JSON object in, one out, and its file of settings.

The two drivers that come with the agent stand on this, and others may.  Settings are the device's
own file in TOML; a secret is a reference to a file, never a value on a command line.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

__all__ = ["DeviceFault", "Question", "Settings", "answer_one", "read_settings"]

MAX_QUESTION_BYTES: Final = 1024 * 1024
"""Largest question that is read, in bytes; a chain measures under 30 KiB."""

MAX_SETTINGS_BYTES: Final = 64 * 1024
"""Largest file of settings, in bytes; a device has under 1,000."""

_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}")
_CERTIFICATE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
KEY_KINDS: Final = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")


class DeviceFault(Exception):
    """The device said no or could not be reached; ``is_final`` if trying again won't help."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Question:
    """What the agent asks; what could harm a device's command line was refused already."""

    operation: str
    certificate: str
    names: tuple[str, ...]
    key_kind: str = ""
    is_new_key: bool = True
    chain_pem: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """A device's file of settings."""

    members: Mapping[str, Any]
    path: str

    def text(self, key: str, default: str | None = None) -> str:
        """Return the text of *key*; raises DeviceFault."""
        found = self.members.get(key, default)
        if not isinstance(found, str) or not found:
            raise DeviceFault(f"{self.path}: {key} is missing or no text", is_final=True)
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of texts of *key*, empty if there is none; raises DeviceFault."""
        found = self.members.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise DeviceFault(f"{self.path}: {key} is no list of texts", is_final=True)
        return tuple(found)

    def number(self, key: str, default: int) -> int:
        """Return the number of *key*; raises DeviceFault."""
        found = self.members.get(key, default)
        if not isinstance(found, int) or isinstance(found, bool):
            raise DeviceFault(f"{self.path}: {key} is no number", is_final=True)
        return found

    def secret(self, key: str) -> str:
        """Return what the file that *key* refers to as ``file:PATH`` holds; raises DeviceFault."""
        kind, _, path = self.text(key).partition(":")
        if kind != "file":
            raise DeviceFault(f"{self.path}: {key} is no file:PATH", is_final=True)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read(MAX_SETTINGS_BYTES).strip()
        except (OSError, ValueError):
            raise DeviceFault(f"{self.path}: the file of {key} cannot be read") from None


def read_settings(path: str, known: Sequence[str]) -> Settings:
    """Return the settings in *path*; a key that is not *known* is refused.  Raises DeviceFault."""
    try:
        with open(path, "rb") as file:
            members = tomllib.loads(file.read(MAX_SETTINGS_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise DeviceFault(f"{path}: cannot be read: {type(error).__name__}") from None
    for key in members:
        if key not in known:
            raise DeviceFault(f"{path}: {key[:40]!r} is not known here", is_final=True)
    return Settings(members, path)


def answer_one(
    act: Callable[[Question], Mapping[str, Any]],
    *,
    asked: IO[bytes] | None = None,
    answered: IO[str] | None = None,
) -> int:
    """Read the question, have *act* answer it, write the answer, and return the exit status."""
    try:
        answer = dict(act(_parse((asked or sys.stdin.buffer).read(MAX_QUESTION_BYTES + 1))))
        status = 0
    except DeviceFault as error:
        answer = {"error": str(error), "is_final": error.is_final}
        status = 1
    json.dump(answer, answered or sys.stdout)
    return status


def _parse(octets: bytes) -> Question:
    try:
        members = json.loads(octets)
        question = Question(
            operation=str(members["operation"]),
            certificate=str(members["certificate"]),
            names=tuple(str(one) for one in members["names"]),
            key_kind=str(members.get("key_kind", "")),
            is_new_key=members.get("is_new_key") is not False,
            chain_pem=str(members.get("chain_pem", "")),
            fingerprint=str(members.get("fingerprint", "")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DeviceFault("the question cannot be read", is_final=True) from None
    _check(question)
    return question


def _check(question: Question) -> None:
    """Refuse what could be more than a word on a device's command line."""
    for name in question.names:
        if _NAME.fullmatch(name) is None:
            raise DeviceFault(f"{name[:60]!r} is no name that a device is given", is_final=True)
    if not question.names or _CERTIFICATE.fullmatch(question.certificate) is None:
        raise DeviceFault("the question has no names or no certificate", is_final=True)
    if question.key_kind and question.key_kind not in KEY_KINDS:
        raise DeviceFault(f"key kind {question.key_kind[:20]!r} is not known", is_final=True)
    if question.fingerprint and _HEX.fullmatch(question.fingerprint) is None:
        raise DeviceFault("the fingerprint is not 64 hex digits", is_final=True)
