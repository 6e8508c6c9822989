"""Policies as they come into force and go: what lay in the directories, what was made of it, what
is kept of it, and the ports that these go through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from broker.issuance.events import Event
from broker.policy.decisions import UpstreamFacts
from broker.policy.document import PolicyDocument
from broker.policy.manifest import Seal, set_digest
from broker.policy.policy_set import PolicySet

__all__ = [
    "KeptPolicySet",
    "LoadedPolicies",
    "PolicyChange",
    "PolicyHistory",
    "PolicyMaker",
    "PolicyOutcome",
    "PolicySource",
    "PolicyTexts",
]


class PolicyOutcome(StrEnum):
    """What became of a set of policy files."""

    ACTIVATED = "activated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTexts:
    """What lay in the policy directories at one moment; nothing of it has been parsed."""

    files: Mapping[str, bytes]
    """By name within the directory, such as ``communities/web.yaml``."""
    bundle: Mapping[str, bytes] = field(default_factory=dict)
    """The manifest and its signatures, by name."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each file lies, for whoever has to open it; one that is not named was kept."""
    digests: Mapping[str, str] = field(init=False)
    """SHA-256 of each file in lower case hex."""
    sha256: str = field(init=False)
    """Of all files that say what is decided."""
    set_id: str = field(init=False)
    """Of the manifest and its signatures as well: what is new here is a new set."""

    def __post_init__(self) -> None:
        digests = {name: _sha256(octets) for name, octets in self.files.items()}
        sealed = {name: _sha256(octets) for name, octets in self.bundle.items()}
        object.__setattr__(self, "digests", digests)
        object.__setattr__(self, "sha256", set_digest(digests))
        object.__setattr__(self, "set_id", set_digest({**digests, **sealed}))


def _sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicies:
    """Every policy of one set of files, and what is known of the ACME upstreams."""

    documents: Mapping[str, PolicyDocument]
    """By community."""
    facts: Mapping[str, UpstreamFacts]
    """By upstream; of a built-in CA the CA itself knows best."""
    unused: tuple[Path, ...] = ()
    """Files in configured directories whose community is not configured."""
    texts: PolicyTexts = PolicyTexts(files={})
    seal: Seal | None = None
    """What signatures have proved; None where no signed bundles are demanded."""
    whole: PolicySet | None = field(default=None, repr=False)
    """Everything the set says; a file of it that stays is not parsed again."""
    cases: int = 0
    """How many cases it has passed."""
    rules: int = 0
    """How many rules there are, beside what the policies themselves say."""

    def current(self, community: str) -> PolicyDocument:
        """Return the community's document; raises KeyError for an unknown community."""
        return self.documents[community]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One set that was taken into force or refused."""

    outcome: PolicyOutcome
    set_id: str
    sha256: str
    at: datetime
    actor: str
    reason: str | None = None
    version: int | None = None
    """The bundle's; None without one."""
    signers: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Why it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPolicySet:
    """A set that was in force, octet for octet."""

    change: PolicyChange
    texts: PolicyTexts


class PolicySource(Protocol):
    """Where policy files lie."""

    async def look(self) -> object:
        """Return what is to be seen without reading any file; equal: nothing has changed."""
        ...

    async def read(self) -> PolicyTexts:
        """Return all files as they were at one moment.

        Raises:
            Unreachable: They are being changed: try again soon.
            Faults: One of them cannot be read, and that will stay so.
        """
        ...


class PolicyMaker(Protocol):
    """Makes policies of texts without holding up anything else."""

    async def make(self, texts: PolicyTexts, earlier: LoadedPolicies) -> LoadedPolicies:
        """Return the policies; what is unchanged since *earlier* is not parsed again.

        Raises:
            Faults: All that is wrong with them.
            Unreachable: It could not be done now; the files may be well.
        """
        ...

    async def let_go(self, former: list[LoadedPolicies]) -> None:
        """Free the one set in *former*, which decides no more, without holding up anything."""
        ...


class PolicyHistory(Protocol):
    """Which policies were in force when."""

    async def keep_policy_change(
        self, change: PolicyChange, texts: PolicyTexts | None, event: Event
    ) -> None:
        """Keep what became of a set, durably; *texts* are kept of those that were activated."""
        ...

    async def policy_changes(self, *, limit: int) -> Sequence[PolicyChange]:
        """Return what became of sets, the latest first."""
        ...

    async def policy_set_in_force(self) -> KeptPolicySet | None:
        """Return the set that was activated last, None where there was none."""
        ...

    async def find_policy_set(self, prefix: str) -> KeptPolicySet | None:
        """Return the latest activated set whose SHA-256 begins with *prefix*, None where it is
        not kept."""
        ...

    async def newest_policy_version(self) -> PolicyChange | None:
        """Return the activation of the highest version of a bundle there ever was."""
        ...
