"""Whom a cluster's token or a client certificate lets a node be.

Both were made by somebody else for another purpose, so each is taken only where a rule of the
configuration says what follows from it: no rule, no node.  What the node says of itself grants
nothing.  Revocation of client certificates is not looked at; a rule that is taken out of the file
ends what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

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
from broker.protocol.identifiers import IdentifierType, canonical_dns_name
from broker.protocol.problems import Problem, ProblemType, printable
from broker.protocol.service_account_token import (
    ParsedToken,
    ServiceAccount,
    TokenRejected,
    parse_token,
)

__all__ = [
    "PLACEHOLDERS",
    "CertificateRule",
    "CertificateVoucher",
    "Cluster",
    "ClusterRule",
    "ClusterTokens",
    "ClusterVoucher",
    "credential_refused",
    "fill",
]

PLACEHOLDERS: Final = ("cluster", "namespace", "service_account", "pod")
"""What may stand in braces in a rule of a cluster."""

ANY: Final = "*"
"""Stands for every namespace, or every service account."""

_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
"""The extended key usage of TLS clients (RFC 5280 §4.2.1.12)."""

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")

log = structlog.get_logger("penstock")


def credential_refused() -> Problem:
    """Return the one refusal, whatever is wrong: else the answer would tell which rules exist."""
    return Problem(
        ProblemType.UNAUTHORIZED, "the credential is refused: it proves no node that may enrol"
    )


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return *template* with its words in braces replaced.

    Raises:
        KeyError: One of them has no value.
    """
    return _PLACE.sub(lambda match: values[match[1]], template)


# ------------------------------------------------------------------------------------ clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRule:
    """What the pods of some service accounts may be."""

    namespaces: tuple[str, ...]
    service_accounts: tuple[str, ...]
    node: str
    """The node's name, with words in braces; one that has ``{pod}`` needs a token of a pod."""
    community: str
    names: tuple[str, ...]
    """Patterns of names that it may have, with words in braces."""
    profiles: tuple[str, ...]
    owner: str
    contact: str

    def has(self, account: ServiceAccount) -> bool:
        """Return whether it speaks of *account*."""
        return _is_among(account.namespace, self.namespaces) and _is_among(
            account.name, self.service_accounts
        )


class ClusterTokens(Protocol):
    """Tells whose token of one cluster it is."""

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Return whose it is, proven.

        Raises:
            TokenRejected: It proves nothing.
            Unreachable: The cluster's keys, or its API server, cannot be had now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster whose service accounts may enrol."""

    name: str
    issuer: str
    tokens: ClusterTokens
    rules: tuple[ClusterRule, ...]


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
                return _grant(cluster, account)
        if unreachable is not None:
            raise unreachable
        raise rejected


def _grant(cluster: Cluster, account: ServiceAccount) -> Grant:
    rule = next((one for one in cluster.rules if one.has(account)), None)
    if rule is None:
        raise TokenRejected(f"no rule of cluster '{cluster.name}' speaks of {account}")
    values = {
        "cluster": cluster.name,
        "namespace": account.namespace,
        "service_account": account.name,
    }
    if account.pod is not None:
        values["pod"] = account.pod
    if any("." in one for name, one in values.items() if f"{{{name}}}" in _templates(rule)):
        # One name of two labels could be taken for two names of one.
        raise TokenRejected(f"{account} has a name with a dot, which no rule can use")
    try:
        node = canonical_dns_name(fill(rule.node, values))
        names = tuple(fill(name, values) for name in rule.names)
        PatternSet.parse(names)
    except KeyError as error:
        raise TokenRejected(f"token of {account} is bound to no {error.args[0]}") from None
    except Problem as problem:
        raise TokenRejected(f"node of {account}: {problem.detail}") from None
    except ValueError as error:
        raise TokenRejected(f"names of {account}: {error}") from None
    return Grant(
        community=rule.community,
        names=names,
        profiles=rule.profiles,
        owner=rule.owner,
        contact=rule.contact,
        node=node,
        namespace=account.namespace,
        service_account=account.name,
        # Kubernetes has one pod of a name at a time: its successor is the one that is there.
        takes_over="{pod}" in rule.node,
    )


def _templates(rule: ClusterRule) -> str:
    return " ".join((rule.node, *rule.names))


def _is_among(value: str, listed: Iterable[str]) -> bool:
    return any(one in (ANY, value) for one in listed)


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


class CertificateVoucher:
    """Vouches by the TLS client certificate of the request."""

    def __init__(
        self, anchors: Sequence[bytes], rules: Sequence[CertificateRule], clock: Clock
    ) -> None:
        self._anchors = tuple(anchors)
        self._rules = tuple(rules)
        self._clock = clock

    async def vouch(self, asking: Asking) -> Grant:
        """Return what the holder of the client certificate may be.

        Raises:
            Problem: unauthorized, with the same words whatever is wrong.
        """
        try:
            return self._vouch(asking)
        except ChainError as error:
            log.info("a client certificate is refused", reason=str(error), peer=asking.peer)
            raise credential_refused() from error

    def _vouch(self, asking: Asking) -> Grant:
        if not asking.client_chain:
            raise ChainError("no client certificate was shown")
        leaf, *issuers = (parse_certificate(der) for der in asking.client_chain)
        # TLS let it through by any anchor of the listener; these alone count here.
        chain = Chain(leaf, tuple(issuers), b"")
        verify_chain_anchored(chain, self._anchors, self._clock.now())
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
                )
        raise ChainError(f"no rule lets '{leaf.subject}' be '{printable(asking.node, 100)}'")
