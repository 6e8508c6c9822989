"""Where a request came from: what the skin saw of it, for policy to look at.

It says nothing of who asks, which a signature does.  A workflow that asks on its own account, or
for a node, has no origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.policy.decisions import ClientCertificate

__all__ = ["NOWHERE", "Origin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one request came from."""

    address: str | None = None
    """The client's IP address in its one spelling: the connection's other end, or what a named
    proxy there says; None: it is not known."""
    client_certificate: ClientCertificate | None = None
    """What the client showed in TLS, verified against the listener's anchors."""


NOWHERE: Final = Origin()
"""Of requests that nobody made over a network that we see."""
