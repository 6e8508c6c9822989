"""Reads secrets by reference: ``file:PATH`` or ``env:NAME``, never a value in a configuration.

Read each time it is needed: a projected token is replaced in its file every hour.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["ReferenceFault", "read_reference"]

MAX_SECRET_BYTES: Final = 64 * 1024
"""Largest secret that is read, in bytes: the token of a service account measures 2 KiB."""


class ReferenceFault(Exception):
    """A secret cannot be read; says which reference and why, never what was in it."""


def read_reference(reference: str) -> str:
    """Return the text that *reference* names, without white space around it.

    A path that is not absolute lies in ``$CREDENTIALS_DIRECTORY``, where systemd puts credentials.

    Raises:
        ReferenceFault: It is not there, cannot be read, is empty or no text.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        found = os.environ.get(name, "")
    elif kind == "file":
        found = _read(name)
    else:
        raise ReferenceFault("a reference begins neither with 'file:' nor with 'env:'")
    if not found.strip():
        raise ReferenceFault(f"{kind}:{name} is empty or not there")
    return found.strip()


def _read(name: str) -> str:
    path = name
    if not name.startswith("/"):
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ReferenceFault(f"file:{name} is no absolute path, and no CREDENTIALS_DIRECTORY")
        path = os.path.join(folder, name)
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ReferenceFault(f"file:{name} cannot be read: {error.strerror}") from None
    if len(octets) > MAX_SECRET_BYTES:
        raise ReferenceFault(f"file:{name} is past the limit of {MAX_SECRET_BYTES} bytes")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ReferenceFault(f"file:{name} is no text") from None
