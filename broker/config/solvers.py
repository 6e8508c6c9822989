"""Solvers: how the broker answers an upstream's challenges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from broker.config.section import NodePatternText, PatternText, Section
from broker.config.values import (
    AbsolutePath,
    EndpointText,
    HttpsUrl,
    HttpUrl,
    ResolverText,
    Secret,
)
from broker.policy.units import Duration

__all__ = [
    "DnsSolver",
    "Exec",
    "ExecSolver",
    "HttpSolver",
    "NodeSolver",
    "Provider",
    "ProviderSolver",
    "Rfc2136",
    "Rfc2136Solver",
    "SelfCheck",
    "Solver",
    "TlsAlpnSolver",
    "Tsig",
    "Webhook",
    "WebhookSolver",
]

_ZONE: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?", re.ASCII)
_OPTION: Final = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", re.ASCII)
_SECRET_OPTION: Final = re.compile(r"secret|token|passw|psw|pass_?phrase|private|key_content")
"""Options that hold a secret, whichever provider has them."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

WAYS: Final = ("rfc2136", "provider", "webhook", "exec")
"""How a TXT record is written; each is a key of a solver for dns-01."""

EVERYTHING: Final = ("**", "0.0.0.0/0", "::/0")
"""Every name and every address."""

_MEMBERS: Final = (*WAYS, "http-01", "tls-alpn-01")


def _check_zone(value: str) -> str:
    if _ZONE.fullmatch(value) is None or len(value) > 254:
        raise ValueError("expected the name of a zone such as 'acme.corp.example'")
    return value


def _check_option(value: str) -> str:
    if _OPTION.fullmatch(value) is None:
        raise ValueError("expected the name of an option such as 'auth_token'")
    return value


def _check_variable(value: str) -> str:
    if _VARIABLE.fullmatch(value) is None:
        raise ValueError("expected the name of an environment variable")
    return value


ZoneText = Annotated[str, AfterValidator(_check_zone)]
OptionName = Annotated[str, AfterValidator(_check_option)]
VariableName = Annotated[str, AfterValidator(_check_variable)]
Resolvers = tuple[ResolverText, ...]


class Tsig(Section):
    """The key that signs DNS updates (RFC 8945)."""

    name: str = Field(min_length=1, max_length=255, examples=["penstock-update"])
    """The key's name, as the name server knows it."""

    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    """MAC algorithm."""

    secret: Secret = Field(examples=["file:/etc/penstock/tsig.key"])
    """Where the secret lies, in base64 as `tsig-keygen` writes it."""


class Rfc2136(Section):
    """A name server that takes DNS updates."""

    server: EndpointText = Field(examples=["10.0.0.53:53"])
    """The primary of the zone."""

    zone: ZoneText | None = Field(default=None, examples=["acme.corp.example"])
    """The zone to update. Without it the zone is asked for."""

    resolvers: Resolvers = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask for CNAMEs and for the zone's own servers. An empty list means the
    system's."""

    tsig: Tsig
    """The key that signs the updates."""


class Provider(Section):
    """A DNS provider with an API, through the library that comes with `penstock[dns]`."""

    name: str = Field(min_length=1, max_length=40, examples=["powerdns"])
    """The library's name of the provider."""

    zone: ZoneText = Field(examples=["acme.corp.example"])
    """The zone as the provider has it. It is never guessed."""

    options: dict[OptionName, str] = Field(
        default_factory=dict, examples=[{"pdns_server": "http://10.0.0.53:8081"}]
    )
    """Options of the provider, as the library names them."""

    secrets: dict[OptionName, Secret] = Field(
        default_factory=dict, examples=[{"auth_token": "file:/etc/penstock/provider.key"}]
    )
    """Options of the provider that are secrets: where each lies."""

    files: tuple[AbsolutePath, ...] = Field(default=(), examples=[["/etc/penstock/account.json"]])
    """Files that an option names and the provider's code has to read; it can read no others."""

    proxy: HttpUrl | None = Field(default=None, examples=["http://proxy.corp.example:3128"])
    """Outbound HTTP proxy."""

    ca_bundle: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/dns-roots.pem"])
    """The only roots that the API's TLS certificate may lead to. Without it: the library's."""

    ttl: Duration = timedelta(seconds=120)
    """How long a record may be cached."""

    timeout: Duration = timedelta(seconds=60)
    """How long one change may take."""

    resolvers: Resolvers = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask for CNAMEs and for the zone's own servers. An empty list means the
    system's."""

    @model_validator(mode="after")
    def _check_options(self) -> Provider:
        for name in self.options:
            if _SECRET_OPTION.search(name):
                raise ValueError(f"option '{name}' is a secret, give a reference in secrets")
            if name in self.secrets:
                raise ValueError(f"option '{name}' stands in options and in secrets")
        return self


class Webhook(Section):
    """An HTTPS service of yours that writes the record; docs/operations/dns.md has the form."""

    url: HttpsUrl = Field(examples=["https://dns-hook.corp.example/acme"])
    """Where the wish is posted."""

    ca_bundle: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/hook-roots.pem"])
    """The only roots that its TLS certificate may lead to. Without it: the system's."""

    bearer: Secret | None = Field(default=None, examples=["file:/etc/penstock/hook.token"])
    """Where the token lies that is shown to it."""

    hmac: Secret | None = Field(default=None, examples=["file:/etc/penstock/hook.hmac"])
    """Where the key lies that the wish is signed with, as octets."""

    zone: ZoneText | None = Field(default=None, examples=["acme.corp.example"])
    """The zone that it may change. Without it: any."""

    timeout: Duration = timedelta(seconds=30)
    """How long one attempt may take."""

    attempts: int = Field(default=3, ge=1, le=10)
    """How often a wish is sent while it answers with 429 or 5xx, or not at all."""

    resolvers: Resolvers = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask for CNAMEs. An empty list means the system's."""

    @model_validator(mode="after")
    def _check_proof(self) -> Webhook:
        if self.bearer is None and self.hmac is None:
            raise ValueError("bearer and hmac are missing, expected at least one of them")
        return self


class Exec(Section):
    """A program of yours that writes the record, called as lego's `exec` provider calls it."""

    command: tuple[str, ...] = Field(min_length=1, examples=[["/usr/local/bin/dns-hook"]])
    """The program by its absolute path, and its first arguments. It never goes through a shell.
    After them come `present` or `cleanup`, the record's name and its value."""

    environment: dict[VariableName, str] = Field(default_factory=dict, examples=[{"REGION": "eu"}])
    """The environment that it gets besides PATH and LANG."""

    secrets: dict[VariableName, Secret] = Field(
        default_factory=dict, examples=[{"API_TOKEN": "file:/etc/penstock/hook.token"}]
    )
    """Environment variables that are secrets: where each lies."""

    zone: ZoneText | None = Field(default=None, examples=["acme.corp.example"])
    """The zone that it may change. Without it: any."""

    timeout: Duration = timedelta(seconds=60)
    """How long one run may take before it is killed."""

    resolvers: Resolvers = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask for CNAMEs. An empty list means the system's."""

    @model_validator(mode="after")
    def _check_command(self) -> Exec:
        if not self.command[0].startswith("/") or any("\0" in word for word in self.command):
            raise ValueError("command has no absolute path such as '/usr/local/bin/dns-hook'")
        for name in self.environment:
            if name in self.secrets:
                raise ValueError(f"variable '{name}' stands in environment and in secrets")
        return self


class SelfCheck(Section):
    """Looking whether the authoritative servers show a record, before the CA is told to look."""

    enabled: bool = True
    """Whether to look at all. It is advice and never a gate."""

    timeout: Duration = timedelta(seconds=60)
    """How long to look before the CA is told all the same."""

    servers: Resolvers = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to look at. An empty list means those that the zone itself names."""


class Rfc2136Solver(Section):
    """Answers dns-01 by DNS updates, following `_acme-challenge` CNAMEs."""

    challenge: Literal["dns-01"]
    """What it answers: TXT records."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""

    rfc2136: Rfc2136
    """Where the records are written."""

    self_check: SelfCheck = Field(default_factory=SelfCheck)
    """The look before the CA's."""


class ProviderSolver(Section):
    """Answers dns-01 through a DNS provider's API, following `_acme-challenge` CNAMEs."""

    challenge: Literal["dns-01"]
    """What it answers: TXT records."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""

    provider: Provider
    """Where the records are written."""

    self_check: SelfCheck = Field(default_factory=SelfCheck)
    """The look before the CA's."""


class WebhookSolver(Section):
    """Answers dns-01 through a web service of yours, following `_acme-challenge` CNAMEs."""

    challenge: Literal["dns-01"]
    """What it answers: TXT records."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""

    webhook: Webhook
    """Who writes the records."""

    self_check: SelfCheck = Field(default_factory=SelfCheck)
    """The look before the CA's."""


class ExecSolver(Section):
    """Answers dns-01 through a program of yours, following `_acme-challenge` CNAMEs."""

    challenge: Literal["dns-01"]
    """What it answers: TXT records."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""

    exec: Exec
    """Who writes the records."""

    self_check: SelfCheck = Field(default_factory=SelfCheck)
    """The look before the CA's."""


class HttpSolver(Section):
    """Answers http-01 from the plain listener, to which the names have to lead."""

    challenge: Literal["http-01"]
    """What it answers: a file at a well-known path."""

    names: tuple[PatternText, ...] = Field(default=EVERYTHING, min_length=1)
    """Name patterns, and networks of addresses, that it answers for; the first solver that fits
    is taken."""


class TlsAlpnSolver(Section):
    """Answers tls-alpn-01 from the listener `tls_alpn`, to which the names have to lead."""

    challenge: Literal["tls-alpn-01"]
    """What it answers: a certificate shown on port 443."""

    names: tuple[PatternText, ...] = Field(default=EVERYTHING, min_length=1)
    """Name patterns, and networks of addresses, that it answers for; the first solver that fits
    is taken."""


class NodeSolver(Section):
    """Answers http-01 or tls-alpn-01 on the nodes themselves, to which the names lead."""

    challenge: Literal["http-01", "tls-alpn-01"]
    """What it answers."""

    nodes: tuple[NodePatternText, ...] = Field(
        min_length=1, examples=[["*.web.corp.example", "web-01"]]
    )
    """Patterns of names of the nodes that may answer. Of these, the ones are asked that want a
    certificate for the name and are connected; their own configuration has to allow it too."""

    names: tuple[PatternText, ...] = Field(default=EVERYTHING, min_length=1)
    """Name patterns, and networks of addresses, that it answers for; the first solver that fits
    is taken."""


DnsSolver = Rfc2136Solver | ProviderSolver | WebhookSolver | ExecSolver
"""A solver for dns-01, whichever way it writes the record."""


def _member(value: object) -> str | None:
    """Return which solver is meant: by its challenge, and for dns-01 by its way to write."""
    if not isinstance(value, Mapping):
        tag = next((way for way in (*WAYS, "nodes") if hasattr(value, way)), None)
        tag = "node" if tag == "nodes" else tag
        return tag or getattr(value, "challenge", None)
    challenge = value.get("challenge")
    if "nodes" in value and challenge in ("http-01", "tls-alpn-01"):
        return "node"
    if challenge == "dns-01":
        return next((way for way in WAYS if way in value), None)
    return challenge if challenge in _MEMBERS else None


Solver = Annotated[
    Annotated[Rfc2136Solver, Tag("rfc2136")]
    | Annotated[ProviderSolver, Tag("provider")]
    | Annotated[WebhookSolver, Tag("webhook")]
    | Annotated[ExecSolver, Tag("exec")]
    | Annotated[HttpSolver, Tag("http-01")]
    | Annotated[TlsAlpnSolver, Tag("tls-alpn-01")]
    | Annotated[NodeSolver, Tag("node")],
    Discriminator(
        _member,
        custom_error_type="solver_challenge",
        custom_error_message="expected challenge 'http-01' or 'tls-alpn-01', or 'dns-01' with one "
        "of rfc2136, provider, webhook and exec",
    ),
]
"""One solver of any kind."""
