"""Nodes with agents: their identities, how they come, when they may be reloaded."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from broker.config.section import ConfigName, NodePatternText, ProfileName, Section
from broker.config.values import AbsolutePath
from broker.config.vouching import ClientCertificateRule, ClusterSection
from broker.policy.node_names import node_patterns
from broker.policy.units import Duration
from broker.policy.windows import parse_window

__all__ = ["Agents", "NodeIdentity", "RolloutGroup"]

SHORTEST_KEPT: Final = timedelta(days=1)
"""Ended deliveries are kept for at least this: waves, incidents and people look back so far."""


def _check_window(value: str) -> str:
    parse_window(value)
    return value


WindowText = Annotated[str, AfterValidator(_check_window)]
"""Hours of some days of the week, in UTC."""


class NodeIdentity(Section):
    """The CA that certifies nodes to the broker; nobody else needs to trust it."""

    upstream: ConfigName = Field(examples=["local"])
    """The built-in CA that issues identities."""

    profile: ProfileName = Field(default="node", examples=["node"])
    """Its profile for them; it has to have the usage clientAuth, and its lifetime is theirs."""

    domain: str = Field(default="node.penstock.internal", examples=["node.penstock.internal"])
    """Domain in which each identity has a name; the CA has to be allowed to certify it."""

    return_within: Duration = timedelta(days=30)
    """How long after its identity has ended a node may come back by the same key. Past it a person,
    a join token for this very node or a client certificate with its name has to let it in again."""


class RolloutGroup(Section):
    """Nodes that are reloaded one after the other."""

    nodes: tuple[NodePatternText, ...] = Field(
        min_length=1, examples=[["*.web.corp.example", "web.corp.example"]]
    )
    """Patterns of the names of its nodes."""

    canaries: tuple[NodePatternText, ...] = Field(
        default=(), examples=[["web-01.web.corp.example"]]
    )
    """Those that go first. The others wait until each of them that has a new certificate was seen
    to serve it. An empty list: the first of the group by name."""

    at_once: int = Field(default=1, ge=1, le=100_000)
    """Most nodes that are being reloaded at once."""

    apart: tuple[tuple[NodePatternText, ...], ...] = Field(
        default=(), examples=[[["web-01.web.corp.example", "web-02.web.corp.example"]]]
    )
    """Sets of nodes of which never two are reloaded at once, whatever their groups."""

    halt_after: int = Field(default=1, ge=1, le=1_000)
    """How many roll-backs or failures halt the wave, until a person resumes it."""

    windows: tuple[WindowText, ...] = Field(default=(), examples=[["Mon-Fri 01:00-05:00"]])
    """When its nodes may be reloaded, in UTC. One such as `22:00-04:00` goes on over midnight. An
    empty list means always."""

    answer_within: Duration = Field(default=timedelta(minutes=15), ge=timedelta(minutes=1))
    """How long a node may take to say what became of its certificate before that counts as a
    failure, and how long the others wait for a canary that cannot be asked. At least a minute: the
    nodes of a large wave are told to take up to 20 seconds."""

    @model_validator(mode="after")
    def _check_canaries(self) -> RolloutGroup:
        nodes = node_patterns(self.nodes)
        for canary in self.canaries:
            if "*" not in canary and nodes.covering(canary) is None:
                raise ValueError(f"canary '{canary}' is none of its nodes")
        return self


class Agents(Section):
    """Nodes with agents."""

    identity: NodeIdentity
    """Who certifies nodes to the broker."""

    client_anchors: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/machine-anchors.pem"]
    )
    """PEM file of the roots of client certificates that a node may enrol by. Without it: none."""

    client_revocation_lists: tuple[AbsolutePath, ...] = Field(
        default=(), examples=[["/etc/penstock/machine-ca.crl"]]
    )
    """Files of the revocation lists of those roots and of the CAs below them, in PEM or DER. They
    are read anew when they change. With any, a certificate that no current list speaks for is
    refused; without, revocation is not looked at."""

    client_certificates: tuple[ClientCertificateRule, ...] = ()
    """Which of those certificates let a node be what; the first that fits counts."""

    clusters: dict[ConfigName, ClusterSection] = Field(default_factory=dict)
    """Kubernetes clusters whose service-account tokens a node may enrol by, by name."""

    connections: int = Field(default=20_000, ge=1, le=1_000_000)
    """Most agents that are connected at once; further ones are asked to come later."""

    keep_deliveries: Duration = timedelta(days=90)
    """How long a delivery that has ended is kept for `penstock cert trace`, after its certificate
    has ended as well. The newest of each certificate stays; events stay in any case."""

    groups: dict[ConfigName, RolloutGroup] = Field(default_factory=dict)
    """Rollout groups by name. A node in none is pushed to as soon as its certificate is there."""

    @field_validator("keep_deliveries")
    @classmethod
    def _check_kept(cls, value: timedelta) -> timedelta:
        if value < SHORTEST_KEPT:
            raise ValueError("expected at least 1d: waves and incidents look back that far")
        return value
