"""Hands of an agent that keep what they were asked to do, and fail where a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.config import CertificateSection
from agents.records import Record
from agents.steps import Checked, HandFault, Installation, Made

__all__ = ["FakeHands", "FakeInstallation"]


@dataclass(slots=True)
class FakeInstallation:
    """A pair in its place."""

    hands: FakeHands
    name: str
    fingerprint: str

    def undo(self) -> None:
        """Put the old one back."""
        self.hands.did.append(f"undo {self.name}")
        self.hands.raise_if("undo", self.name)
        self.hands.placed.pop(self.name, None)

    def settle(self) -> None:
        """Give the old one up."""
        self.hands.did.append(f"settle {self.name}")
        self.hands.raise_if("settle", self.name)
        self.hands.placed.pop(self.name, None)


@dataclass(slots=True)
class FakeHands:
    """``agents.steps.Hands``."""

    did: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """``STEP NAME`` of what fails."""
    placed: dict[str, FakeInstallation] = field(default_factory=dict)
    """What is neither undone nor settled."""

    def raise_if(self, step: str, name: str) -> None:
        """Fail if the test says so."""
        if f"{step} {name}" in self.failing:
            raise HandFault(f"{step} of {name} fails")

    def make_csr(self, section: CertificateSection, *, is_new_key: bool) -> Made:
        """Make a CSR."""
        self.did.append(f"csr {section.name} {'new' if is_new_key else 'kept'}")
        self.raise_if("csr", section.name)
        return Made(b"csr of " + section.name.encode(), f"spki {len(self.did)}", "key")

    def check(self, section: CertificateSection, body: dict[str, Any], record: Record) -> Checked:
        """Check a certificate."""
        self.did.append(f"check {section.name}")
        self.raise_if("check", section.name)
        return Checked(f"fp {body['generation']}", 1, 2, str(body["spki_sha256"]), "key", None)

    def install(self, section: CertificateSection, checked: Checked, seconds: int) -> Installation:
        """Put it in place."""
        self.did.append(f"install {section.name}")
        self.raise_if("install", section.name)
        made = FakeInstallation(self, section.name, checked.fingerprint)
        self.placed[section.name] = made
        return made

    def unfinished(self, section: CertificateSection, fingerprint: str) -> Installation | None:
        """Return what lies there from before."""
        found = self.placed.get(section.name)
        return found if found is not None and found.fingerprint == fingerprint else None

    def reload(self, sections: Sequence[CertificateSection]) -> None:
        """Reload; it fails while one of these that is in its place spoils it."""
        names = [one.name for one in sections]
        self.did.append("reload " + " ".join(names))
        for name in names:
            if name in self.placed:
                self.raise_if("reload", name)

    def look(self, section: CertificateSection, fingerprint: str) -> str | None:
        """Look."""
        self.did.append(f"look {section.name}")
        self.raise_if("look", section.name)
        return None

    def forget_key(self, section: CertificateSection, key: str) -> None:
        """Forget a key."""
        self.did.append(f"forget {section.name} {key}")
