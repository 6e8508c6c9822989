"""The directory that an older version kept a built-in CA in: read once, to take it over.

``root.pem``, ``issuing-<n>.pem`` and ``meta.json`` there say what the register
(``ports.CaRegister``) says now.  Nothing is written here any more, and nothing is removed: whoever
looks finds the files as they were left.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken
from broker.issuance.records import CaMember, CaRole

__all__ = ["read_directory"]

FORMAT_VERSION: Final = 1
"""Version of ``meta.json``; a file of another version is refused rather than guessed at."""

_ISSUING_FILE: Final = re.compile(r"issuing-[1-9][0-9]{0,5}\.pem", re.ASCII)


def read_directory(path: Path, ca: str, since: datetime) -> tuple[CaMember, ...]:
    """Return the members of the CA that lies in *path*, none where nothing ever did.

    Raises:
        Broken: A file is missing, unreadable or not what it should be.
    """
    try:
        text = (path / "meta.json").read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"{path}/meta.json cannot be read: {reason}") from error
    try:
        return tuple(_members(path, ca, since, json.loads(text)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"{path}/meta.json is not what was written: {error}") from None


def _members(path: Path, ca: str, since: datetime, meta: dict[str, object]) -> list[CaMember]:
    if meta["version"] != FORMAT_VERSION:
        raise ValueError(f"version {meta['version']}, expected {FORMAT_VERSION}")
    found = []
    root, issuers, pending = meta["root"], meta["issuers"], meta["pending"]
    if isinstance(root, dict):
        key_id = None if root["key_id"] is None else _text(root["key_id"])
        found.append(_member(ca, CaRole.ROOT, key_id, _read(path / "root.pem"), since))
    if not isinstance(issuers, list):
        raise TypeError("issuers is no list")
    for entry in issuers:
        name = _text(entry["file"])
        if _ISSUING_FILE.fullmatch(name) is None:
            raise ValueError(f"'{name}' is no issuing-<n>.pem")
        certificate = _read(path / name)
        role = CaRole(_text(entry["role"]))
        found.append(_member(ca, role, _text(entry["key_id"]), certificate, since))
    if isinstance(pending, dict):
        found.append(
            CaMember(
                ca=ca,
                role=CaRole.REQUESTED,
                key_id=_text(pending["key_id"]),
                subject=_text(pending["subject"]),
                certificate_der=None,
                since=since,
            )
        )
    return found


def _member(
    ca: str, role: CaRole, key_id: str | None, certificate: x509.Certificate, since: datetime
) -> CaMember:
    return CaMember(
        ca=ca,
        role=role,
        key_id=key_id,
        subject=certificate.subject.rfc4514_string(),
        certificate_der=certificate.public_bytes(Encoding.DER),
        since=since,
    )


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"{path} cannot be read: {reason}") from error
    except ValueError:
        raise Broken(f"{path} is not a PEM certificate") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r}")
    return value
