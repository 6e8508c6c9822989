"""Whom a cluster's token or a client certificate lets a node be.

Both were made by somebody else for another purpose, so each is taken only where a rule of the
configuration says what follows from it: no rule, no node.  What the node says of itself grants
nothing.  Where revocation lists are configured, a client certificate has to be spoken for by them,
and so has each CA between it and its anchor; a rule that is taken out of the file ends what follows
from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from broker.issuance.cluster_rules import Cluster, grant_of
from broker.issuance.errors import Unreachable
from broker.issuance.joining_ports import Asking, Grant
from broker.issuance.ports import Clock
from broker.policy.names import PatternSet
from broker.protocol.certificates import (
    Chain,
    ChainError,
    ParsedCertificate,
    parse_certificate,
    verify_chain_anchored,
)
from broker.protocol.identifiers import IdentifierType
from broker.protocol.problems import Problem, ProblemType, printable
from broker.protocol.revocation_lists import (
    RevocationList,
    RevocationUnknown,
    verify_unrevoked,
)
from broker.protocol.service_account_token import TokenRejected, parse_token

__all__ = [
    "CertificateRule",
    "CertificateVoucher",
    "ClusterVoucher",
    "RevocationLists",
    "credential_refused",
]

_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
"""The extended key usage of TLS clients (RFC 5280 §4.2.1.12)."""

log = structlog.get_logger("penstock")


def credential_refused() -> Problem:
    """Return the one refusal, whatever is wrong: else the answer would tell which rules exist."""
    return Problem(
        ProblemType.UNAUTHORIZED, "the credential is refused: it proves no node that may enrol"
    )


# ------------------------------------------------------------------------------------ clusters


class ClusterVoucher:
    """Vouches by projected service-account tokens."""

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self._clusters = tuple(clusters)

    async def vouch(self, asking: Asking) -> Grant:
        """Return what the pod that shows the token may be.

        Raises:
            Problem: unauthorized, with the same words whatever is wrong.
            Unreachable: The cluster that the token says it is of cannot be asked now.
        """
        try:
            return await self._vouch(asking.credential or "")
        except TokenRejected as error:
            log.info("a service-account token is refused", reason=str(error), peer=asking.peer)
            raise credential_refused() from error

    async def _vouch(self, token: str) -> Grant:
        parsed = parse_token(token)
        issuer = parsed.claims.get("iss")
        # Many clusters call themselves alike; a token is shown to those of its issuer alone.
        named = [one for one in self._clusters if one.issuer == issuer]
        if not named:
            raise TokenRejected(f"no cluster has the issuer '{printable(str(issuer), 200)}'")
        rejected, unreachable = TokenRejected("no cluster"), None
        for cluster in named:
            try:
                account = await cluster.tokens.verify(parsed)
            except TokenRejected as error:
                rejected = error
            except Unreachable as error:
                unreachable = error
            else:
                services = await cluster.services_of(cluster.rule_for(account), account)
                return grant_of(cluster, account, services)
        if unreachable is not None:
            raise unreachable
        raise rejected


# ------------------------------------------------------------------------- client certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRule:
    """What holders of some client certificates may be."""

    names: tuple[str, ...]
    """Patterns of the certificate's DNS names; one that is covered is the node's name."""
    subjects: tuple[str, ...]
    """Whole subjects (RFC 4514), of which it has to have one; empty: any."""
    node: str | None
    """The node's name, where the certificate has none that can be one."""
    community: str
    may_have: tuple[str, ...]
    """Patterns of names that the node may have; empty: what policy says."""
    profiles: tuple[str, ...]
    owner: str
    contact: str

    def node_of(self, leaf: ParsedCertificate, asked: str) -> str | None:
        """Return the node that *leaf* may be when it calls itself *asked*; None: none."""
        if self.subjects and leaf.subject not in self.subjects:
            return None
        if self.node is not None:
            return self.node if asked in ("", self.node) else None
        covered = PatternSet.parse(self.names)
        own = {one.value for one in leaf.identifiers if one.type is IdentifierType.DNS}
        fit = {one for one in own if "*" not in one and covered.covering(one) is not None}
        if asked:
            return asked if asked in fit else None
        return fit.pop() if len(fit) == 1 else None


class RevocationLists(Protocol):
    """Lists of what other CAs have revoked."""

    async def current(self) -> Sequence[RevocationList]:
        """Return what is at hand now.

        Raises:
            RevocationUnknown: It cannot be had, so nobody knows what was revoked.
        """
        ...


class CertificateVoucher:
    """Vouches by the TLS client certificate of the request."""

    def __init__(
        self,
        anchors: Sequence[bytes],
        rules: Sequence[CertificateRule],
        clock: Clock,
        *,
        lists: RevocationLists | None = None,
    ) -> None:
        """Believe what leads to *anchors* and, with *lists*, is on none of them."""
        self._anchors = tuple(anchors)
        self._rules = tuple(rules)
        self._clock = clock
        self._lists = lists

    async def vouch(self, asking: Asking) -> Grant:
        """Return what the holder of the client certificate may be.

        Raises:
            Problem: unauthorized, with the same words whatever is wrong.
        """
        try:
            return await self._vouch(asking)
        except ChainError as error:
            is_ours = isinstance(error, RevocationUnknown)
            tell = log.error if is_ours else log.info
            tell("a client certificate is refused", reason=str(error), peer=asking.peer)
            raise credential_refused() from error

    async def _vouch(self, asking: Asking) -> Grant:
        if not asking.client_chain:
            raise ChainError("no client certificate was shown")
        leaf, *issuers = (parse_certificate(der) for der in asking.client_chain)
        # TLS let it through by any anchor of the listener; these alone count here.
        chain = Chain(leaf, tuple(issuers), b"")
        verify_chain_anchored(chain, self._anchors, self._clock.now())
        if self._lists is not None:
            lists = await self._lists.current()
            verify_unrevoked(chain, self._anchors, lists, self._clock.now())
        if leaf.is_ca:
            raise ChainError("certificate is a CA's")
        if leaf.extended_key_usages and _CLIENT_AUTH not in leaf.extended_key_usages:
            raise ChainError("certificate is not for TLS clients")
        for rule in self._rules:
            node = rule.node_of(leaf, asking.node)
            if node is not None:
                return Grant(
                    community=rule.community,
                    names=rule.may_have,
                    profiles=rule.profiles,
                    owner=rule.owner,
                    contact=rule.contact,
                    node=node,
                    is_for_node=True,
                )
        raise ChainError(f"no rule lets '{leaf.subject}' be '{printable(asking.node, 100)}'")
