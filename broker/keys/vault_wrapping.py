"""Secret ids that come wrapped: each wrapping token is opened once, and remembered.

A wrapping token that cannot be opened, though nobody here has opened it, may have been opened by
somebody else (developer.hashicorp.com/vault/docs/concepts/response-wrapping, "Response wrapping
token validation").  So that our own restart is no such case, the hash of each one is on the disk
before it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import hvac

from broker.issuance.errors import Broken

__all__ = ["Intercepted", "OpenedTokens", "UsedUp", "open_secret_id"]

MAX_REMEMBERED: Final = 200
"""Most wrapping tokens that are remembered; Vault forgets one within days."""

_GONE: Final = "not valid or does not exist"


class Intercepted(Exception):
    """A wrapping token is not what it should be: somebody else may have the secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UsedUp(Exception):
    """The wrapping token was opened by us before, and what was in it is gone with that process."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OpenedTokens:
    """The SHA-256 of the wrapping tokens that were opened here, one a line, in one small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, token: str) -> bool:
        """Return whether we opened it, or began to."""
        return _hash(token) in self._read()

    def add(self, token: str) -> None:
        """Remember it, on the disk, before it is opened.

        Raises:
            Broken: The file cannot be written; a token that is opened would be lost unnoticed.
        """
        lines = [*self._read(), _hash(token)][-MAX_REMEMBERED:]
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(draft, flags, 0o600), "w", encoding="ascii") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise Broken(f"{self._path} cannot be written: {error.strerror}") from None

    def _read(self) -> list[str]:
        try:
            return self._path.read_text("ascii").split()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is no text"
            raise Broken(f"{self._path} cannot be read: {reason}") from None


def open_secret_id(
    client: hvac.Client, token: str, *, mount: str, place: str, opened: OpenedTokens
) -> str:
    """Return the secret id that *token* was wrapped around; it can be had once.

    Raises:
        UsedUp: We opened it ourselves before.
        Intercepted: It is not there any more, or was made for something else.
        Away, Denied: Vault cannot answer now, or does not let us.
        Broken: What was in it is no secret id, or nothing can be remembered.
    """
    was_opened = opened.has(token)
    try:
        found = client.adapter.post(url="/v1/sys/wrapping/lookup", json={"token": token})
    except Broken as error:
        if _GONE in error.reason and was_opened:
            raise UsedUp(
                f"the wrapping token in {place} was opened before; deliver a new one there"
            ) from None
        raise _gone(place, error) from None
    _check_origin(_data(found), mount, place)
    opened.add(token)
    try:
        answer = client.adapter.post(
            # As the token itself: whoever has not logged in may not open another.
            url="/v1/sys/wrapping/unwrap",
            json={},
            headers={"X-Vault-Token": token},
        )
    except Broken as error:
        raise _gone(place, error) from None
    secret_id = _data(answer).get("secret_id")
    if not isinstance(secret_id, str) or not secret_id:
        raise Broken(f"the wrapping token in {place} held no secret id")
    return secret_id


def _data(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found = answer.get("data")
    return found if isinstance(found, dict) else {}


def _check_origin(found: Mapping[str, Any], mount: str, place: str) -> None:
    """See that the token was made by asking for a secret id, and not by someone to lay it there."""
    path = found.get("creation_path")
    expected = rf"(?:.+/)?auth/{re.escape(mount)}/role/[^/]+/secret-id/?"
    if not isinstance(path, str) or re.fullmatch(expected, path) is None:
        raise Intercepted(
            f"the wrapping token in {place} was made by {str(path)[:128]!r}, expected "
            f"'auth/{mount}/role/…/secret-id': somebody may have put it there; it was not opened"
        )


def _gone(place: str, error: Broken) -> Broken | Intercepted:
    if _GONE not in error.reason:
        return Broken(f"the wrapping token in {place} cannot be opened: {error.reason}")
    return Intercepted(
        f"the wrapping token in {place} is gone and was not opened here: it has expired, or "
        "somebody else opened it and has the secret id; destroy that secret id, look into Vault's "
        "audit log for sys/wrapping/unwrap, and deliver a new one"
    )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
