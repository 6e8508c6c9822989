"""What a delivery is made of, as ``renew`` asks for it: the steps, their values and their fault.

``agents.hands`` does them on the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agents.config import CertificateSection
from agents.records import Record

__all__ = ["Checked", "HandFault", "Hands", "Installation", "Made"]


class HandFault(Exception):
    """A step failed; ``is_final`` says that doing it again would not help."""

    def __init__(self, reason: str, *, is_final: bool = True) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Made:
    """A CSR and the key that it is for."""

    csr_der: bytes
    spki_sha256: str
    key: str
    """By which the key is found again; empty for a key that stays on a device."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that has passed the node's own checks."""

    fingerprint: str
    not_before: int
    not_after: int
    """Both in seconds since 1970."""
    spki_sha256: str
    key: str
    verified: Any
    """What the one who checked hands to the one who installs."""


class Installation(Protocol):
    """A pair that was put in place and can still be taken back."""

    def undo(self) -> None:
        """Put back what was there before."""

    def settle(self) -> None:
        """Give up what was there before."""


class Hands(Protocol):
    """What is done on the node.  Each raises HandFault."""

    def make_csr(self, section: CertificateSection, *, is_new_key: bool) -> Made:
        """Return a CSR by a new key, or by the one that there is."""

    def check(self, section: CertificateSection, body: dict[str, Any], record: Record) -> Checked:
        """Return the certificate of a message as one that may be installed."""

    def install(self, section: CertificateSection, checked: Checked, seconds: int) -> Installation:
        """Put it in place; previous keys are kept for at least so many seconds."""

    def unfinished(self, section: CertificateSection, fingerprint: str) -> Installation | None:
        """Return what was installed of it before the agent ended, neither undone nor settled."""

    def reload(self, sections: Sequence[CertificateSection]) -> None:
        """Reload what these share."""

    def look(self, section: CertificateSection, fingerprint: str) -> str | None:
        """See the certificate served; return a note for people."""

    def forget_key(self, section: CertificateSection, key: str) -> None:
        """Destroy a key that waited for a certificate which will not come."""
