"""Where the text of a configuration comes from: a file with those of the folder beside it, or one
variable of the environment, as ``env:NAME``.

A pod is given its configuration when it is made and keeps it; the variable needs no ConfigMap that
somebody else may change.  Imported when a configuration is read and not kept in use after it.
"""

from __future__ import annotations

import os
import tomllib
from typing import Any, Final

__all__ = ["ENVIRONMENT", "find_includes", "is_environment", "read_source"]

ENVIRONMENT: Final = "env:"
"""What a source begins with that is a variable and no file."""

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
"""Largest file that is read, in bytes: 5,000 certificates in one file measure 3 MiB."""

INCLUDES: Final = "agent.d"
"""Folder beside the file; each of its files may hold certificates and bundles."""


def is_environment(source: str) -> bool:
    """Tell whether *source* is a variable of the environment."""
    return source.startswith(ENVIRONMENT)


def read_source(source: str, faults: list[str]) -> dict[str, Any]:
    """Return what *source* says; what is wrong with it is added to *faults*."""
    try:
        return tomllib.loads(_text(source, faults))
    except OSError as error:
        faults.append(f"{source}: cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        faults.append(f"{source}: is not TOML: {error}")
    return {}


def find_includes(source: str) -> list[str]:
    """Return the files of the folder beside *source*, in order; a variable has none."""
    if is_environment(source):
        return []
    folder = os.path.join(os.path.dirname(source) or ".", INCLUDES)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in names if name.endswith(".toml")]


def _text(source: str, faults: list[str]) -> str:
    if is_environment(source):
        found = os.environ.get(source.removeprefix(ENVIRONMENT))
        if found is None:
            faults.append(f"{source}: is not set in the environment")
        return found or ""
    with open(source, "rb") as file:
        octets = file.read(MAX_FILE_BYTES + 1)
    if len(octets) > MAX_FILE_BYTES:
        faults.append(f"{source}: is past the limit of {MAX_FILE_BYTES} bytes")
        return ""
    return octets.decode("utf-8")
