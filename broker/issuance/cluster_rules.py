"""What pods of a cluster's service accounts may be: a rule, filled with what a pod is proven to be.

No rule, no node.  What a rule gives narrows and grants nothing by itself: policy decides on every
order.  An empty list of names means "what policy says", so a rule whose words come to nothing
refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from broker.issuance.joining_ports import Grant
from broker.policy.names import PatternSet
from broker.protocol.identifiers import canonical_dns_name
from broker.protocol.problems import Problem
from broker.protocol.service_account_token import ParsedToken, ServiceAccount, TokenRejected

__all__ = [
    "PLACEHOLDERS",
    "Cluster",
    "ClusterPods",
    "ClusterRule",
    "ClusterTokens",
    "fill",
    "grant_of",
]

SERVICE: Final = "service"
"""The word that stands for each Service that selects the pod."""

PLACEHOLDERS: Final = ("cluster", "namespace", "service_account", "pod", SERVICE)
"""What may stand in braces in a rule of a cluster."""

ANY: Final = "*"
"""Stands for every namespace, or every service account."""

MAX_NAMES: Final = 100
"""Most patterns of names that a pod gets from its rule, as many as a token may grant."""

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")


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
    upstreams: tuple[str, ...] | None = None
    """The only upstreams that issue for it; None: those that policy has."""

    def has(self, account: ServiceAccount) -> bool:
        """Return whether it speaks of *account*."""
        return _is_among(account.namespace, self.namespaces) and _is_among(
            account.name, self.service_accounts
        )

    @property
    def has_service_names(self) -> bool:
        """Return whether its names depend on the Services that select a pod."""
        return any(f"{{{SERVICE}}}" in name for name in self.names)


class ClusterTokens(Protocol):
    """Tells whose token of one cluster it is."""

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Return whose it is, proven.

        Raises:
            TokenRejected: It proves nothing.
            Unreachable: The cluster's keys, or its API server, cannot be had now.
        """
        ...


class ClusterPods(Protocol):
    """Knows the pods of one cluster, and the Services that select them."""

    async def labels_of(self, namespace: str, pod: str, pod_uid: str | None) -> Mapping[str, str]:
        """Return the labels of the pod.

        Raises:
            TokenRejected: There is no such pod any more, or another has its name.
            Unreachable: The API server cannot be asked now.
        """
        ...

    async def services_for(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the names of the Services there that select pods with *labels*, sorted.

        Raises:
            Unreachable: The API server cannot be asked now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster whose service accounts may enrol."""

    name: str
    issuer: str
    tokens: ClusterTokens
    rules: tuple[ClusterRule, ...]
    pods: ClusterPods | None = field(default=None, repr=False)
    """None: its API server is not asked about pods."""

    @property
    def communities(self) -> frozenset[str]:
        """Return the communities that its pods can be of."""
        return frozenset(rule.community for rule in self.rules)

    def rule_for(self, account: ServiceAccount) -> ClusterRule:
        """Return the first rule that speaks of *account*; raises TokenRejected without one."""
        found = next((one for one in self.rules if one.has(account)), None)
        if found is None:
            raise TokenRejected(f"no rule of cluster '{self.name}' speaks of {account}")
        return found

    async def services_of(self, rule: ClusterRule, account: ServiceAccount) -> Sequence[str]:
        """Return the Services that select the pod of *account*, where *rule* wants them.

        A pod that the API server does not know is refused, whatever the rule wants.

        Raises:
            TokenRejected: The pod is gone, or the rule wants Services and nobody can tell them.
            Unreachable: The API server cannot be asked now.
        """
        if self.pods is None or account.pod is None:
            if rule.has_service_names:
                raise TokenRejected(f"nobody can tell which Services select {account}")
            return ()
        labels = await self.pods.labels_of(account.namespace, account.pod, account.pod_uid)
        if not rule.has_service_names:
            return ()
        return await self.pods.services_for(account.namespace, labels)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return *template* with its words in braces replaced.

    Raises:
        KeyError: One of them has no value.
    """
    return _PLACE.sub(lambda match: values[match[1]], template)


def grant_of(cluster: Cluster, account: ServiceAccount, services: Sequence[str]) -> Grant:
    """Return what a pod of *account* may be that *services* select.

    Raises:
        TokenRejected: Nothing: no rule speaks of it, or its words do not make names.
    """
    rule = cluster.rule_for(account)
    values = {
        "cluster": cluster.name,
        "namespace": account.namespace,
        "service_account": account.name,
    }
    if account.pod is not None:
        values["pod"] = account.pod
    _verify_labels(rule, account, values)
    try:
        node = canonical_dns_name(fill(rule.node, values))
        names = tuple(dict.fromkeys(_names(rule, values, services)))
        PatternSet.parse(names)
    except KeyError as error:
        raise TokenRejected(f"token of {account} is bound to no {error.args[0]}") from None
    except Problem as problem:
        raise TokenRejected(f"node of {account}: {problem.detail}") from None
    except ValueError as error:
        raise TokenRejected(f"names of {account}: {error}") from None
    if rule.names and not names:
        raise TokenRejected(f"no Service selects the pod of {account}, so its rule has no name")
    if len(names) > MAX_NAMES:
        raise TokenRejected(f"{account} has {len(names)} names by its rule, at most {MAX_NAMES}")
    return Grant(
        community=rule.community,
        names=names,
        profiles=rule.profiles,
        owner=rule.owner,
        contact=rule.contact,
        node=node,
        namespace=account.namespace,
        service_account=account.name,
        cluster=cluster.name,
        pod=account.pod if "{pod}" in rule.node else None,
        pod_uid=account.pod_uid if "{pod}" in rule.node else None,
        upstreams=rule.upstreams,
        # Kubernetes has one pod of a name at a time: its successor is the one that is there.
        takes_over="{pod}" in rule.node,
    )


def _verify_labels(rule: ClusterRule, account: ServiceAccount, values: Mapping[str, str]) -> None:
    templates = " ".join((rule.node, *rule.names))
    if any("." in one for name, one in values.items() if f"{{{name}}}" in templates):
        # One name of two labels could be taken for two names of one.
        raise TokenRejected(f"{account} has a name with a dot, which no rule can use")


def _names(rule: ClusterRule, values: Mapping[str, str], services: Sequence[str]) -> Iterator[str]:
    for template in rule.names:
        if f"{{{SERVICE}}}" not in template:
            yield fill(template, values)
            continue
        for service in services:
            yield fill(template, {**values, SERVICE: service})


def _is_among(value: str, listed: Iterable[str]) -> bool:
    return any(one in (ANY, value) for one in listed)
