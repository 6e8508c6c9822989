"""What is kept of bundles; under the rules of ``ports`` and beside ``node_ports``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from broker.issuance.node_ports import NodeMessage

__all__ = ["BUNDLE_NAMES", "BundleContents", "BundleRecord", "BundleStore", "NodeBundle"]


BUNDLE_NAMES: Final = ("anchors", "crls")
"""What bundles there are, which is also what they hold; nodes ask for them by these names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContents:
    """What is in a bundle now."""

    content: str
    """``anchors`` or ``crls``, as the channel says it."""
    pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecord:
    """A bundle of a community."""

    community: str
    bundle: str
    version: int
    sha256: str
    """Of what it held when it changed last."""
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBundle:
    """A bundle that a node wants."""

    node_id: str
    bundle: str
    community: str
    sent_version: int
    """0: none."""
    installed_version: int


class BundleSource(Protocol):
    """Says what bundles hold."""

    async def contents(self, community: str) -> Mapping[str, BundleContents]:
        """Return the bundles of a community by name; one that is empty is left out.

        Raises:
            Unreachable: A revocation list cannot be had now.
            Broken: The same, and trying again is useless.
        """
        ...


class BundleStore(Protocol):
    """Bundles, and who wants them."""

    async def bundles_of(self, node_id: str) -> Sequence[NodeBundle]: ...

    async def keep_wanted(
        self, node_id: str, wanted: Sequence[NodeBundle], dropped: Sequence[str]
    ) -> None:
        """Keep what a node wants from now on, and forget what it no longer does."""
        ...

    async def find_bundle(self, community: str, bundle: str) -> BundleRecord | None: ...
    async def keep_bundle(self, record: BundleRecord) -> None: ...

    async def nodes_behind(
        self, community: str, bundle: str, version: int, limit: int
    ) -> Sequence[str]:
        """Return ids of active nodes that want the bundle and were sent no such version yet; costs
        what is behind."""
        ...

    async def send_bundle(self, bundle: str, version: int, messages: Sequence[NodeMessage]) -> None:
        """Queue a version for these nodes, and note that it was sent."""
        ...

    async def note_installed(self, node_id: str, bundle: str, version: int) -> None: ...
