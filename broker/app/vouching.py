"""Who vouches for nodes: the clusters and client certificates of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.outside import VERSION
from broker.app.revocation_files import RevocationFiles
from broker.channel.cluster_pods import ApiServerPods
from broker.channel.cluster_tokens import (
    ClusterHttp,
    KeyFile,
    KeySetTokens,
    KeySource,
    KeyUrl,
    ReviewedTokens,
)
from broker.config.agents import Agents
from broker.config.vouching import ClientCertificateRule, ClusterRuleSection, ClusterSection
from broker.issuance.cluster_rules import Cluster, ClusterRule, ClusterTokens
from broker.issuance.errors import Broken
from broker.issuance.joining_ports import Voucher
from broker.issuance.node_ports import EnrolmentMethod
from broker.issuance.ports import Clock
from broker.issuance.vouching import (
    CertificateRule,
    CertificateVoucher,
    ClusterVoucher,
)
from broker.protocol.service_account_token import TokenTerms

__all__ = ["Vouching"]

USER_AGENT: Final = f"penstock/{VERSION}"

BuiltIn = Callable[[str], tuple[str, ...]]
"""Tells which built-in CAs serve a community: they issue where a rule names no upstream."""


class Vouching:
    """The vouchers of the configuration, by method; close it in the end."""

    def __init__(
        self, agents: Agents, clock: Clock, *, built_in: BuiltIn = lambda _community: ()
    ) -> None:
        """Put them together; nothing is asked yet.

        Raises:
            Broken: The anchors of client certificates cannot be read.
        """
        self._clock = clock
        self._built_in = built_in
        self._connections: list[ClusterHttp] = []
        self.clusters = tuple(self._cluster(name, one) for name, one in agents.clusters.items())
        self.vouchers: Mapping[EnrolmentMethod, Voucher] = dict(self._make(agents))

    async def close(self) -> None:
        """Close the connections to clusters."""
        for one in self._connections:
            await one.close()

    def _make(self, agents: Agents) -> Sequence[tuple[EnrolmentMethod, Voucher]]:
        made: list[tuple[EnrolmentMethod, Voucher]] = []
        if self.clusters:
            made.append((EnrolmentMethod.KUBERNETES, ClusterVoucher(self.clusters)))
        if agents.client_certificates and agents.client_anchors is not None:
            anchors = _read_anchors(agents.client_anchors)
            rules = [_certificate_rule(one) for one in agents.client_certificates]
            paths = agents.client_revocation_lists
            lists = RevocationFiles(paths) if paths else None
            certificates = CertificateVoucher(anchors, rules, self._clock, lists=lists)
            made.append((EnrolmentMethod.CERTIFICATE, certificates))
        return made

    def _cluster(self, name: str, section: ClusterSection) -> Cluster:
        http = ClusterHttp(section.ca_bundle, USER_AGENT)
        self._connections.append(http)
        pods = section.pods
        return Cluster(
            name=name,
            issuer=section.issuer,
            tokens=self._tokens(http, section),
            rules=tuple(self._rule(one) for one in section.rules),
            pods=None
            if pods is None
            else ApiServerPods(http, pods.server, pods.token.resolve, self._clock),
        )

    def _rule(self, section: ClusterRuleSection) -> ClusterRule:
        upstreams = section.upstreams or self._built_in(section.community)
        return replace(_cluster_rule(section), upstreams=upstreams)

    def _tokens(self, http: ClusterHttp, section: ClusterSection) -> ClusterTokens:
        if section.review is not None:
            review = section.review
            return ReviewedTokens(http, review.server, section.audience, review.token.resolve)
        terms = TokenTerms(section.issuer, section.audience)
        return KeySetTokens(self._source(http, section), terms, self._clock)

    def _source(self, http: ClusterHttp, section: ClusterSection) -> KeySource:
        if section.keys_url is not None:
            token = section.keys_token
            return KeyUrl(http, section.keys_url, None if token is None else token.resolve)
        if section.keys is None:
            raise Broken(f"cluster of the issuer {section.issuer} has no keys")
        return KeyFile(section.keys)


def _cluster_rule(section: ClusterRuleSection) -> ClusterRule:
    return ClusterRule(
        namespaces=section.namespaces,
        service_accounts=section.service_accounts,
        node=section.node,
        community=section.community,
        names=section.names,
        profiles=section.profiles,
        owner=section.owner,
        contact=section.contact,
    )


def _certificate_rule(section: ClientCertificateRule) -> CertificateRule:
    return CertificateRule(
        names=section.names,
        subjects=section.subjects,
        node=section.node,
        community=section.community,
        may_have=section.may_have,
        profiles=section.profiles,
        owner=section.owner,
        contact=section.contact,
    )


def _read_anchors(path: Path) -> Sequence[bytes]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"anchors {path} cannot be read: {reason}") from error
    except ValueError:
        raise Broken(f"anchors {path} are no PEM certificates") from None
    return [one.public_bytes(Encoding.DER) for one in found]
