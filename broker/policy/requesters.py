"""Who asks: what was proved or seen of a requester, for rules to look at.

A value without behaviour.  Where each part comes from is ``issuance.planning``'s and the skin's
affair; which rule speaks of whom is told by ``rules``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NOBODY", "ClientCertificate", "Requester"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """The certificate that a client showed in TLS, verified against the listener's anchors."""

    fingerprint: str
    """SHA-256 of its DER, in lower case hex."""
    names: tuple[str, ...] = ()
    """Its subjectAltNames that are DNS names or URIs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks, as far as it was proved or seen.

    None means that there is none, except for *address*: there it means that nobody saw it.
    """

    account_id: str = ""
    thumbprint: str = ""
    """Of the account's key (RFC 7638)."""
    eab_key_id: str | None = None
    node: str | None = None
    cluster: str | None = None
    """What the configuration calls the Kubernetes cluster of the node's pod."""
    namespace: str | None = None
    """Kubernetes namespace of the node's pod, as its join token proved it."""
    service_account: str | None = None
    """Kubernetes service account of the node's pod."""
    attestation: str | None = None
    """How the node showed who it is when it was let in, one of ``words.Attestation``."""
    address: str | None = None
    """Where the request came from, as named proxies report it, or the connection's other end."""
    client_certificate: ClientCertificate | None = None
    owner: str | None = None
    """Who answers for the account, its EAB key or its node."""


NOBODY: Final = Requester()
"""A requester of whom nothing is known."""
