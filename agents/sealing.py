"""A copy of a decryption key for the organisation's own recovery, made before the key's first use.

It is enveloped (CMS, RFC 5652 §6) for the certificate whose path the node's configuration has, so
that neither the broker nor this host can open it.  A key that signs is never sealed: who has a copy
of it could sign as its owner.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

from agents.child import ChildFault, run_child
from agents.state import StateFault, write_durably
from agents.wire import decode_bytes

__all__ = ["SealFault", "seal_key", "sealed_path"]

SIGNING: Final = frozenset({"digitalSignature", "nonRepudiation", "keyCertSign", "cRLSign"})
"""Key usages that make a key one that signs (RFC 5280 §4.2.1.3)."""

DECRYPTING: Final = frozenset({"keyEncipherment", "dataEncipherment", "keyAgreement"})
"""Key usages of keys that decrypt."""

MAX_CERTIFICATE_BYTES: Final = 64 * 1024
"""Largest recovery certificate that is read, in bytes."""


class SealFault(Exception):
    """The key was not sealed, and is therefore not put to use."""


class _Key(Protocol):
    @property
    def seal_to(self) -> str | None: ...


class Section(Protocol):
    """What is read of a certificate's section."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> _Key: ...


class Pair(Protocol):
    """What is read of a verified certificate."""

    @property
    def spki_sha256(self) -> str: ...
    @property
    def key_usages(self) -> Sequence[str]: ...


def sealed_path(name: str, spki_sha256: str, state_dir: str) -> str:
    """Return where the sealed copy of a key lies."""
    return os.path.join(state_dir, "sealed", name, f"{spki_sha256}.p7m")


def seal_key(section: Section, pair: Pair, key_reference: str, *, state_dir: str) -> str | None:
    """Seal a certificate's key if the configuration wants it, and return where the copy lies.

    To be called when the certificate has been verified and before it is installed: its key usage
    says what the key is for, and one without a key usage is taken as one that signs.

    Raises:
        SealFault: The key signs, lies on a token, or cannot be sealed.
    """
    recipient = section.key.seal_to
    if recipient is None:
        return None
    usages = set(pair.key_usages)
    if usages & SIGNING or not usages & DECRYPTING:
        said = ", ".join(sorted(usages)) or "none stated"
        raise SealFault(f"a key that may sign is never sealed; its key usage: {said}")
    if not key_reference.startswith("/"):
        raise SealFault("a key on a token cannot be brought out to be sealed")
    path = sealed_path(section.name, pair.spki_sha256, state_dir)
    if os.path.exists(path):
        return path
    try:
        with open(recipient, "rb") as file:
            recipient_pem = file.read(MAX_CERTIFICATE_BYTES).decode("ascii", "replace")
        work: dict[str, Any] = {"do": "seal", "key": key_reference, "recipient_pem": recipient_pem}
        sealed = decode_bytes(str(run_child(work)["sealed"]), "the sealed key")
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_durably(path, sealed)
    except ChildFault as fault:
        raise SealFault(fault.reason) from None
    except StateFault as fault:
        raise SealFault(str(fault)) from None
    except OSError as error:
        raise SealFault(f"{error.filename}: {error.strerror}") from None
    return path
