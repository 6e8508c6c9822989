"""The shape of the configuration file.

Each key's docstring is its documentation: docs/configuration.md and the full sample are written
from here.  A key that is left out has a harmless default.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from broker.config.agents import Agents
from broker.config.audit import Audit
from broker.config.communities import Community, DeclaredKey
from broker.config.operators import Operators, OperatorsListener
from broker.config.policy import PolicySection
from broker.config.publishing import Publishing
from broker.config.section import ConfigName, Section
from broker.config.upgrade import Upgrade
from broker.config.upstreams import UpstreamSection
from broker.config.values import (
    AbsolutePath,
    Endpoint,
    EndpointText,
    ExternalUrl,
    Network,
    OwnName,
    Secret,
)
from broker.config.vault import Vault
from broker.policy.units import Duration, Rate, RateText, Size

__all__ = [
    "DATABASE",
    "AcmeListener",
    "AgentListener",
    "Config",
    "HealthListener",
    "Keys",
    "Limits",
    "Listen",
    "Log",
    "LogFormat",
    "LogLevel",
    "OperatorListener",
    "PlainListener",
    "Rates",
    "TlsAlpnListener",
    "WeakKeys",
]

DATABASE: Final = "penstock.db"
"""Name of the store in the state directory."""

OPERATOR_SOCKET = "operator.sock"
"""Name of the operator socket in the state directory, where no other path is configured."""


_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - serving a network is what these listeners are for


class LogFormat(StrEnum):
    """How log lines are written; auto is text for a terminal and JSON for anything else."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AcmeListener(Section):
    """The HTTPS listener that ACME clients speak to."""

    address: EndpointText = Endpoint(_EVERYWHERE, 8443)
    """Where to listen."""

    certificate: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/tls.crt"])
    """PEM chain of the listener's own certificate, leaf first."""

    key: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/tls.key"])
    """PEM private key of that certificate."""

    issued_by: ConfigName | None = Field(
        default=None, alias="from", examples=["local"], json_schema_extra={"instead": True}
    )
    """Upstream that issues the listener's certificate and renews it; instead of files."""

    names: tuple[OwnName, ...] = Field(
        default=(), examples=[["agents.corp.example"]], json_schema_extra={"instead": True}
    )
    """Further names and addresses by which the broker is reached, such as those of its other
    listeners: the certificate that it has issued to itself bears them beside the host of
    `external_url`."""

    proxies: tuple[Network, ...] = Field(default=(), examples=[["10.0.7.0/24"]])
    """Networks of the reverse proxies in front of this listener. Their header alone is believed
    about where a client is, and nobody else's."""

    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The header in which those proxies write it: the usual one, or that of RFC 7239. They have to
    add to it or to replace it, and may not pass on what clients wrote as their own."""

    client_anchors: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/client-ca.crt"]
    )
    """PEM of the CAs whose client certificates are believed here; rules of a policy may speak of
    them. A client may show none."""

    @model_validator(mode="after")
    def _check_source(self) -> AcmeListener:
        has_files = self.certificate is not None and self.key is not None
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together, one of them is missing")
        if has_files == (self.issued_by is not None):
            raise ValueError("expected either certificate and key, or from, for its TLS")
        if self.names and has_files:
            raise ValueError("names go with from: what a file certifies is up to whoever made it")
        return self


class PlainListener(Section):
    """The plain HTTP listener: answers to http-01, issuer certificates, CRLs."""

    address: EndpointText = Endpoint(_EVERYWHERE, 8080)
    """Where to listen."""


class TlsAlpnListener(Section):
    """The listener for CAs that validate by tls-alpn-01; port 443 of the names has to lead here."""

    address: EndpointText = Endpoint(_EVERYWHERE, 8444)
    """Where to listen."""


class AgentListener(Section):
    """The HTTPS listener that agents connect to; its certificate is the ACME listener's."""

    address: EndpointText = Endpoint(_EVERYWHERE, 8445)
    """Where to listen."""

    proxies: tuple[Network, ...] = Field(default=(), examples=[["10.0.7.0/24"]])
    """Networks of the load balancers in front of this listener that end TLS. Their header alone is
    believed about where an agent is, and nobody else's."""

    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The header in which those write it: the usual one, or that of RFC 7239. They have to add to
    it or to replace it, and may not pass on what agents wrote as their own."""


class HealthListener(Section):
    """The listener for probes and metrics; it tells more than clients should learn."""

    address: EndpointText = Endpoint("127.0.0.1", 8081)
    """Where to listen."""


class OperatorListener(Section):
    """The local socket that operator commands reach a running broker by."""

    socket: AbsolutePath | None = Field(default=None, examples=["/run/penstock/operator.sock"])
    """Path of the socket. Without it: operator.sock in the state directory."""


class Listen(Section):
    """Where the broker listens."""

    acme: AcmeListener
    """For ACME clients."""

    agents: AgentListener | None = Field(default=None, json_schema_extra={"instead": True})
    """For agents. Without it no node can enrol."""

    plain: PlainListener | None = None
    """For CAs that validate and parties that verify. Without it that is not served."""

    tls_alpn: TlsAlpnListener | None = None
    """For CAs that validate by tls-alpn-01. Without it that is not served."""

    health: HealthListener = Field(default_factory=HealthListener)
    """For probes and metrics."""

    operator: OperatorListener = Field(default_factory=OperatorListener)
    """For operator commands."""

    operators: OperatorsListener | None = Field(default=None, json_schema_extra={"instead": True})
    """For operator commands from elsewhere. Without it there is the socket alone."""


class Rates(Section):
    """How often clients may ask: `600/1m` is 600 at once and 600 a minute, `off` is no limit.

    An address is an IPv4 address or an IPv6 /64.
    """

    address: RateText = Rate(12_000, timedelta(minutes=1))
    """Requests of one address that no account has signed, bad signatures included."""

    new_accounts: RateText = Rate(1_000, timedelta(hours=1))
    """New accounts of one address."""

    account: RateText = Rate(6_000, timedelta(minutes=1))
    """Requests that one account has signed, polling included."""

    new_orders: RateText = Rate(1_200, timedelta(minutes=1))
    """New orders and pre-authorizations of one account."""

    failed_validations: RateText = Rate(60, timedelta(hours=1))
    """Failed validations of one account for one name, before it may order that name again."""

    agents: RateText = Rate(12_000, timedelta(minutes=1))
    """Requests of one address at the agents' listener behind which no node was found, enrolments
    included. What nodes ask that are known costs their address nothing."""

    nodes: RateText = Rate(6_000, timedelta(minutes=1))
    """Requests of one node."""

    operators: RateText = Rate(600, timedelta(minutes=1))
    """Commands of one person at the operator API."""

    operator_refusals: RateText = Rate(60, timedelta(minutes=1))
    """Requests of one address at the operator API that nobody known has sent."""


class Limits(Section):
    """How much and how long."""

    body: Size = 64 * 1024
    """Largest ACME request body."""

    body_timeout: Duration = timedelta(seconds=10)
    """How long a body may take to arrive."""

    idle_timeout: Duration = timedelta(seconds=75)
    """How long a connection may stay without a complete set of headers."""

    handshake_timeout: Duration = timedelta(seconds=10)
    """How long a TLS handshake at the ACME listener may take."""

    connections_per_address: int = Field(default=512, ge=1, le=1_000_000)
    """Most connections at the ACME listener from one address; further ones are closed at once."""

    rates: Rates = Field(default_factory=Rates)
    """How often clients may ask."""

    finalize_wait: Duration = timedelta(seconds=5)
    """How long the answer to finalize is held back for a fast CA, before it says `processing`."""

    order_lifetime: Duration = timedelta(hours=8)
    """How long an order may stay pending or ready; its authorizations end with it."""

    poll_deadline: Duration = timedelta(seconds=60)
    """How long one run waits for an upstream order before it makes room and is tried again."""


class Keys(Section):
    """The private keys that the broker keeps in its state directory."""

    passphrase: Secret = Field(examples=["file:/etc/penstock/key.pass"])
    """Where the passphrase lies that encrypts account keys and CA keys."""


class WeakKeys(Section):
    """Keys that are refused beyond those that are known to be weak."""

    blocklists: tuple[AbsolutePath, ...] = Field(
        default=(), examples=[["/etc/penstock/blocked-keys.txt"]]
    )
    """Files of further public keys, one SHA-256 of a SubjectPublicKeyInfo in hex a line."""


class Log(Section):
    """What is written to standard error."""

    format: LogFormat = LogFormat.AUTO
    """auto, json or text."""

    level: LogLevel = LogLevel.INFO
    """debug, info, warning or error."""


class Config(Section):
    """The whole configuration."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    """Version of this file's form."""

    kind: Literal["Broker"]
    """What the file describes."""

    external_url: ExternalUrl = Field(examples=["https://acme.corp.example:8443"])
    """URL under which clients reach the ACME listener; every URL they are given begins with it."""

    state: AbsolutePath = Path("/var/lib/penstock")
    """Directory of the store and the keys."""

    upgrade: Upgrade = Field(default_factory=Upgrade)
    """What precedes a change of the store's form."""

    policies: tuple[AbsolutePath, ...] | None = Field(
        default=None, min_length=1, examples=[["/etc/penstock/policies"]]
    )
    """Directories of policy files. Without it: the defaults that came with the broker."""

    policy: PolicySection = Field(default_factory=PolicySection)
    """How policies come into force."""

    listen: Listen
    """Where the broker listens."""

    limits: Limits = Field(default_factory=Limits)
    """How much and how long."""

    keys: Keys
    """How private keys are kept."""

    vault: Vault | None = None
    """HashiCorp Vault. Without it keys lie in encrypted files, which is the lesser choice."""

    communities: dict[ConfigName, Community] = Field(
        default_factory=lambda: {"default": Community()}, min_length=1
    )
    """The communities by name."""

    upstreams: dict[ConfigName, UpstreamSection] = Field(min_length=1)
    """The CAs by name."""

    external_account_bindings: tuple[DeclaredKey, ...] = ()
    """External account binding keys that stand here instead of being minted."""

    agents: Agents | None = Field(default=None, json_schema_extra={"instead": True})
    """Nodes with agents. Without it there are none."""

    operators: Operators | None = Field(default=None, json_schema_extra={"instead": True})
    """The people who operate the broker. Without it: its own user and root, at the socket."""

    publishing: Publishing | None = Field(default=None, json_schema_extra={"instead": True})
    """What is made findable for others. Without it: nothing."""

    audit: Audit = Field(default_factory=Audit)
    """The audit trail: how it is signed, and where it goes."""

    weak_keys: WeakKeys = Field(default_factory=WeakKeys)
    """Which public keys are refused."""

    log: Log = Field(default_factory=Log)
    """What is logged."""

    @property
    def operator_socket(self) -> Path:
        """Return the path of the operator socket."""
        return self.listen.operator.socket or self.state / OPERATOR_SOCKET
