"""Accounts as other ACME clients keep them on a disk: certbot, lego, or a file with a key.

A path comes in, the account's key and URL go out, with the certificates that it is known to have
ordered.  Only what is asked for is read; nothing is written, and nothing of a key is told.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.issuance.errors import Broken
from broker.keys.encryption import PrivateKey
from broker.keys.importing import MAX_FOREIGN_BYTES, parse_foreign_key

__all__ = ["ForeignAccount", "read_foreign_account"]

MAX_LINEAGES: Final = 10_000
"""Most renewal files of a certbot that are looked at; a host has a few, a hosting service more."""

_SETTING: Final = re.compile(r"^(account|cert)\s*=\s*(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAccount:
    """An account that another client registered."""

    key: PrivateKey = field(repr=False)
    key_file: Path
    """Where the key lies, and goes on lying: nothing of another client is changed."""
    url: str | None
    """The account's URL, where the other client has kept it."""
    kept_by: str
    """Whose way of keeping it is, such as ``certbot``."""
    certificates: tuple[Path, ...] = ()
    """The newest certificate of each that the other client ordered with it and would renew."""


def read_foreign_account(path: Path) -> ForeignAccount:
    """Return the account at *path*: a directory of certbot or lego, or a file with a key.

    Raises:
        Broken: There is none, or its key cannot be used.
    """
    try:
        is_directory = path.is_dir()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not is_directory:
        return ForeignAccount(key=_read_key(path), key_file=path, url=None, kept_by="a file")
    if (path / "private_key.json").exists():
        return _read_certbot(path)
    if (path / "account.json").exists():
        return _read_lego(path)
    raise Broken(f"{path} is no directory of one account{_candidates(path)}")


def _read_certbot(directory: Path) -> ForeignAccount:
    key_file = directory / "private_key.json"
    kept = _read_object(directory / "regr.json")
    return ForeignAccount(
        key=_read_key(key_file),
        key_file=key_file,
        url=_url(kept.get("uri")),
        kept_by="certbot",
        certificates=tuple(_certbot_certificates(directory)),
    )


def _certbot_certificates(directory: Path) -> Iterator[Path]:
    """Yield the newest certificate of each lineage that certbot renews with this account."""
    accounts = next((one for one in directory.parents if one.name == "accounts"), None)
    if accounts is None:
        return
    for number, file in enumerate(sorted(accounts.with_name("renewal").glob("*.conf"))):
        if number >= MAX_LINEAGES:
            return
        settings = dict(_SETTING.findall(_read(file).decode("utf-8", "replace")))
        if settings.get("account") == directory.name and "cert" in settings:
            yield Path(settings["cert"])


def _read_lego(directory: Path) -> ForeignAccount:
    registration = _read_object(directory / "account.json").get("registration")
    keys = sorted((directory / "keys").glob("*.key"))
    if len(keys) != 1:
        raise Broken(f"{directory}/keys has {len(keys)} keys, expected the account's alone")
    url = registration.get("uri") if isinstance(registration, Mapping) else None
    return ForeignAccount(key=_read_key(keys[0]), key_file=keys[0], url=_url(url), kept_by="lego")


def _candidates(path: Path) -> str:
    """Return a hint at the accounts of the certbot that *path* belongs to, if it is one's."""
    base = path if "accounts" in path.parts else path / "accounts"
    found = sorted(file.parent for file in base.rglob("private_key.json"))
    if not found:
        return ", expected certbot's with private_key.json, lego's with account.json, or a file"
    return f", expected one such as {found[0]}" + (f" ({len(found)} found)" if found[1:] else "")


def _read_key(path: Path) -> PrivateKey:
    try:
        return parse_foreign_key(_read(path))
    except ValueError as error:
        raise Broken(f"{path} {error}") from error


def _read_object(path: Path) -> Mapping[str, Any]:
    """Return a JSON object, an empty one where there is none: the CA is asked then."""
    if not path.exists():
        return {}
    try:
        document = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise Broken(f"{path} is no JSON") from None
    return document if isinstance(document, Mapping) else {}


def _url(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Broken(f"{path} is not a regular file")
            return file.read(MAX_FOREIGN_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Broken:
    reason = (error.strerror or str(error)).lower()
    return Broken(f"{path} cannot be read: {reason}")
