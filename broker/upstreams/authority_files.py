"""The state directory of the built-in CA: ``root.pem``, ``issuing-<n>.pem`` and ``meta.json``.

Only certificates lie here, never a private key.  Every file is written whole under another name
and then renamed, ``meta.json`` last: whoever reads sees the state before or the state after.
Files are read once, at the start, and by commands; nothing here belongs into the event loop.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken
from broker.upstreams.authority import Authority, IssuerSet

__all__ = ["CaDirectory", "CaState", "PendingIssuer"]

FORMAT_VERSION: Final = 1
"""Version of ``meta.json``; a file of another version is refused rather than guessed at."""

CERTIFICATE_MODE: Final = 0o644
"""Mode of the certificate files: they are public."""

META_MODE: Final = 0o600
"""Mode of ``meta.json``: it names keys, which are nobody else's business."""

_ISSUING_FILE: Final = re.compile(r"issuing-[1-9][0-9]{0,5}\.pem", re.ASCII)
_ROLES: Final = ("current", "next", "past")


@dataclass(frozen=True, slots=True)
class PendingIssuer:
    """An issuing CA whose request waits for the offline root."""

    key_id: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaState:
    """All that is kept of a built-in CA.

    Attributes:
        root: The trust anchor; None while the first request waits for an offline root.
        root_key_id: The root's key, None when the root is offline.
        issuers: The issuing CAs; None until there is one.
        pending: The request that an offline root has yet to answer.
    """

    root: x509.Certificate | None = None
    root_key_id: str | None = None
    issuers: IssuerSet | None = None
    pending: PendingIssuer | None = None

    @property
    def root_authority(self) -> Authority | None:
        """Return the root as one that can sign, None when it is offline."""
        if self.root is None or self.root_key_id is None:
            return None
        return Authority(self.root_key_id, self.root)


class CaDirectory:
    """Where the certificates of one built-in CA are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, state: CaState) -> None:
        """Replace what is kept by *state*; certificates that it no longer names stay as files.

        Raises:
            Broken: The directory cannot be written.
        """
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            meta = self._write_certificates(state)
            text = json.dumps(meta, indent=2, sort_keys=True) + "\n"
            self._write("meta.json", text.encode(), META_MODE)
        except OSError as error:
            raise Broken(f"{self._path} cannot be written: {error.strerror}") from error

    def load(self) -> CaState | None:
        """Return what is kept, or None when nothing ever was.

        Raises:
            Broken: A file is missing, unreadable or not what it should be.
        """
        try:
            text = (self._path / "meta.json").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Broken(f"{self._path}/meta.json cannot be read: {error.strerror}") from error
        try:
            return self._parse(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise Broken(f"{self._path}/meta.json is not what was written: {error}") from None

    def _write_certificates(self, state: CaState) -> dict[str, object]:
        root: dict[str, object] | None = None
        if state.root is not None:
            self._write("root.pem", state.root.public_bytes(Encoding.PEM), CERTIFICATE_MODE)
            root = {"key_id": state.root_key_id}
        issuers = []
        for role, issuer in _by_role(state.issuers):
            name = self._name_of(issuer)
            self._write(name, issuer.pem, CERTIFICATE_MODE)
            issuers.append({"file": name, "key_id": issuer.key_id, "role": role})
        pending = state.pending
        return {
            "version": FORMAT_VERSION,
            "root": root,
            "issuers": issuers,
            "pending": pending and {"key_id": pending.key_id, "subject": pending.subject},
        }

    def _name_of(self, issuer: Authority) -> str:
        # A certificate keeps its file for ever, so that the state before stays readable until
        # meta.json is replaced.
        for number in itertools.count(1):
            path = self._path / f"issuing-{number}.pem"
            if not path.exists() or path.read_bytes() == issuer.pem:
                break
        return path.name

    def _write(self, name: str, data: bytes, mode: int) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self._path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(self._path / name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _parse(self, meta: object) -> CaState:
        fields = _members(meta, "version", "root", "issuers", "pending")
        if fields["version"] != FORMAT_VERSION:
            raise ValueError(f"version {fields['version']}, expected {FORMAT_VERSION}")
        root, root_key_id = None, None
        if fields["root"] is not None:
            root = self._read("root.pem")
            root_key_id = _optional_text(_members(fields["root"], "key_id")["key_id"])
        by_role: dict[str, list[Authority]] = {role: [] for role in _ROLES}
        for entry in _entries(fields["issuers"]):
            member = _members(entry, "file", "key_id", "role")
            by_role[_text(member["role"])].append(
                Authority(_text(member["key_id"]), self._read(_issuing_file(member["file"])), root)
            )
        pending = None
        if fields["pending"] is not None:
            waiting = _members(fields["pending"], "key_id", "subject")
            pending = PendingIssuer(_text(waiting["key_id"]), _text(waiting["subject"]))
        return CaState(
            root=root, root_key_id=root_key_id, issuers=_issuer_set(by_role), pending=pending
        )

    def _read(self, name: str) -> x509.Certificate:
        path = self._path / name
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except OSError as error:
            raise Broken(f"{path} cannot be read: {error.strerror}") from error
        except ValueError:
            raise Broken(f"{path} is not a PEM certificate") from None


def _by_role(issuers: IssuerSet | None) -> list[tuple[str, Authority]]:
    if issuers is None:
        return []
    following = [("next", issuers.next)] if issuers.next is not None else []
    return [("current", issuers.current), *following, *(("past", past) for past in issuers.past)]


def _issuer_set(by_role: Mapping[str, list[Authority]]) -> IssuerSet | None:
    current, following, past = (by_role[role] for role in _ROLES)
    if not current and not following and not past:
        return None
    if len(current) != 1 or len(following) > 1:
        raise ValueError(f"{len(current)} current and {len(following)} next issuers")
    return IssuerSet(current[0], following[0] if following else None, tuple(past))


def _members(value: object, *names: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"expected an object of {', '.join(names)}")
    return value


def _entries(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("issuers is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r}")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _issuing_file(value: object) -> str:
    name = _text(value)
    if _ISSUING_FILE.fullmatch(name) is None:
        raise ValueError(f"'{name}' is no issuing-<n>.pem")
    return name
