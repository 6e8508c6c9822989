"""The node's certificate keys: made here, kept here, asked certificates for.

Each key of a certificate lies in the node's state under the SHA-256 of its public half: a private
key in PEM, or the URI of one on a token.  A new key waits there beside the serving one until its
certificate is installed; ``settle_keys`` then takes away what is older.  The child makes and uses
keys; nothing here reads one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agents.child import ChildFault, run_child
from agents.wire import decode_bytes

__all__ = [
    "LEFT",
    "KeyFault",
    "MadeCsr",
    "adopt_key",
    "find_key",
    "forget_key",
    "key_folder",
    "make_csr",
    "serving_key",
    "settle_keys",
]

MAX_WAITING: Final = 4
"""Most keys of one certificate that wait; a broker that asks again and again fills no disk."""

LEFT: Final = "left-"
"""What the name begins with under which a key on a token is written down that has left service;
then come the second since 1970 until which it is kept, and its digest."""

_SERVING: Final = "serving"


class KeyFault(Exception):
    """A key cannot be made, found or used; what is served stays as it is."""


class _Key(Protocol):
    @property
    def kind(self) -> Any: ...
    @property
    def store(self) -> str: ...


class Section(Protocol):
    """What is read of a certificate's section of the configuration."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> _Key: ...


@dataclass(frozen=True, slots=True)
class MadeCsr:
    """A request, and the key that signed it."""

    csr_der: bytes
    spki_sha256: str
    key_reference: str
    """Path of the key in the node's state, or its URI on a token."""


def key_folder(name: str, state_dir: str) -> str:
    """Return where the keys of a certificate lie."""
    return os.path.join(state_dir, "keys", name)


def make_csr(
    section: Section,
    *,
    names: Sequence[str],
    is_new_key: bool,
    state_dir: str,
    kind: str | None = None,
) -> MadeCsr:
    """Return a request for *names*, by a new key or by the one that serves.

    A key that serves and is of another kind than is asked for is not used again.  *kind* is what
    the broker asks; without it, or with another than the node's own configuration has, the node's
    own stands.

    Raises:
        KeyFault: The key cannot be made or used; nothing has changed.
    """
    wanted = str(section.key.kind)
    if kind not in (None, wanted):
        raise KeyFault(f"a key of kind {str(kind)[:20]!r} is asked for, and the node has {wanted}")
    folder = key_folder(section.name, state_dir)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not is_new_key:
            again = _request_again(section, names, wanted, state_dir)
            if again is not None:
                return again
        return _request_anew(section, names, wanted, folder)
    except ChildFault as fault:
        raise KeyFault(fault.reason) from None
    except OSError as error:
        raise KeyFault(f"{folder}: {error.strerror}") from None


def _request_again(
    section: Section, names: Sequence[str], kind: str, state_dir: str
) -> MadeCsr | None:
    reference = serving_key(section.name, state_dir)
    if reference is None:
        return None
    answer = run_child({"do": "csr", "key": reference, "names": list(names)})
    if answer["key_kind"] != kind:
        return None
    return _made(answer, reference)


def _request_anew(section: Section, names: Sequence[str], kind: str, folder: str) -> MadeCsr:
    is_file = section.key.store == "file"
    place = os.path.join(folder, "making.pem") if is_file else section.key.store
    _forget_waiting(folder)
    answer = run_child({"do": "key-and-csr", "kind": kind, "path": place, "names": list(names)})
    spki = _checked_spki(answer)
    if is_file:
        reference = os.path.join(folder, f"{spki}.pem")
        os.rename(place, reference)
    else:
        reference = str(answer["key"])
        _write(os.path.join(folder, f"{spki}.uri"), reference)
    _sync(folder)
    return _made(answer, reference)


def _made(answer: dict[str, Any], reference: str) -> MadeCsr:
    csr_der = decode_bytes(str(answer["csr_der"]), "csr_der")
    return MadeCsr(csr_der, _checked_spki(answer), reference)


def _checked_spki(answer: dict[str, Any]) -> str:
    spki = str(answer.get("spki_sha256"))
    if len(spki) != 64 or not set(spki) <= set("0123456789abcdef"):
        raise KeyFault("the crafting child told no digest of the key")
    return spki


def adopt_key(name: str, key_path: str, state_dir: str) -> MadeCsr:
    """Take the private key at *key_path* into the node's state as the one that serves.

    It is moved there, so it has to be a file of ours beside the keys; raises KeyFault.
    """
    folder = key_folder(name, state_dir)
    try:
        answer = run_child({"do": "public", "key": key_path})
        spki = _checked_spki(answer)
        os.rename(key_path, os.path.join(folder, f"{spki}.pem"))
        _write(os.path.join(folder, _SERVING), spki)
        _sync(folder)
    except ChildFault as fault:
        raise KeyFault(fault.reason) from None
    except OSError as error:
        raise KeyFault(f"{folder}: {error.strerror}") from None
    return MadeCsr(b"", spki, os.path.join(folder, f"{spki}.pem"))


def find_key(name: str, spki_sha256: str, state_dir: str) -> str:
    """Return the reference of the key with that public half.

    Raises:
        KeyFault: The node has no such key: a certificate for it is another's.
    """
    if len(spki_sha256) == 64 and set(spki_sha256) <= set("0123456789abcdef"):
        stem = os.path.join(key_folder(name, state_dir), spki_sha256)
        if os.path.isfile(f"{stem}.pem"):
            return f"{stem}.pem"
        with contextlib.suppress(OSError):
            return _read(f"{stem}.uri")
    raise KeyFault(f"the node has no key {spki_sha256[:16]!r} for certificate {name!r}")


def serving_key(name: str, state_dir: str) -> str | None:
    """Return the reference of the key that serves; None: none of ours does."""
    try:
        spki = _read(os.path.join(key_folder(name, state_dir), _SERVING))
        return find_key(name, spki, state_dir)
    except (OSError, KeyFault):
        return None


def settle_keys(name: str, spki_sha256: str, state_dir: str, *, until: int = 0) -> None:
    """Note which key serves now, and take away those that are older than it.

    Previous keys that have to be kept lie where the server reads them, so the state's own copy is
    not needed.  One on a token is there alone, and what was encrypted to it can be read by nothing
    else: it is written down as one to destroy after *until*, in seconds since 1970.
    """
    folder = key_folder(name, state_dir)
    try:
        if not os.path.isdir(folder):
            return
        _take_back(folder, spki_sha256)
        _write(os.path.join(folder, _SERVING), spki_sha256)
        _sync(folder)
        made = _keys_by_age(folder)
        stems = [os.path.splitext(one)[0] for one in made]
        if spki_sha256 not in stems:
            return
        for one in made[: stems.index(spki_sha256)]:
            _let_go(folder, one, until)
    except OSError as error:
        raise KeyFault(f"{folder}: {error.strerror}") from None


def _take_back(folder: str, spki_sha256: str) -> None:
    """Have a key on a token be one of those in service again: many others were asked for while its
    certificate was on its way."""
    for name in os.listdir(folder):
        if name.startswith(LEFT) and name.endswith(f"-{spki_sha256}.uri"):
            os.rename(os.path.join(folder, name), os.path.join(folder, f"{spki_sha256}.uri"))


def _let_go(folder: str, name: str, until: int) -> None:
    """Take a key's file away; of one on a token it is kept in mind that it is still there."""
    path = os.path.join(folder, name)
    stem, ending = os.path.splitext(name)
    if ending == ".uri":
        os.rename(path, os.path.join(folder, f"{LEFT}{until}-{stem}.uri"))
    else:
        os.unlink(path)


def _forget_waiting(folder: str) -> None:
    """Take away the oldest of the keys that wait, so that a new one has room."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "making.pem"))
    try:
        serving = _read(os.path.join(folder, _SERVING))
    except OSError:
        serving = ""
    waiting = [one for one in _keys_by_age(folder) if os.path.splitext(one)[0] != serving]
    for one in waiting[: max(0, len(waiting) - MAX_WAITING + 1)]:
        _let_go(folder, one, 0)


def _keys_by_age(folder: str) -> list[str]:
    """Return the files of keys, oldest first."""
    found = [one for one in os.listdir(folder) if len(os.path.splitext(one)[0]) == 64]
    return sorted(found, key=lambda one: os.stat(os.path.join(folder, one)).st_mtime_ns)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(4096).strip()


def _write(path: str, text: str) -> None:
    beside = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600), "w", encoding="ascii") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_key(name: str, key_reference: str, state_dir: str) -> None:
    """Destroy a key that waits; the one that serves is never destroyed, and one that is not there
    is no error.  Raises KeyFault."""
    if key_reference == serving_key(name, state_dir):
        return
    folder = key_folder(name, state_dir)
    try:
        if key_reference.startswith("/"):
            if os.path.dirname(key_reference) == folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(key_reference)
            return
        run_child({"do": "forget-key", "key": key_reference})
        for one in os.listdir(folder):
            if one.endswith(".uri") and _read(os.path.join(folder, one)) == key_reference:
                os.unlink(os.path.join(folder, one))
    except ChildFault as fault:
        raise KeyFault(fault.reason) from None
    except OSError as error:
        raise KeyFault(f"{folder}: {error.strerror}") from None
