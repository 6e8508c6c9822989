"""The audit trail: how it is signed, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from broker.config.section import ConfigName, Section
from broker.config.values import AbsolutePath, EndpointText, KeyStoreText
from broker.policy.units import Duration, Size
from broker.policy.yamlfile import Fault, Lines

__all__ = [
    "Audit",
    "AuditFile",
    "AuditStdout",
    "AuditSyslog",
    "CheckpointSection",
    "SinkSection",
    "check_audit",
]


class CheckpointSection(Section):
    """Signed statements of how far the chain of records has come."""

    every: Duration = timedelta(minutes=1)
    """Longest time from a record to the checkpoint that covers it."""

    records: int = Field(default=1000, ge=1, le=1_000_000)
    """Most records that one checkpoint covers; with so many it is made sooner."""

    key_store: KeyStoreText = "file"
    """Where the key lies that signs them. In Vault the broker can use it and not read it: a key in
    a file is the lesser choice, for whoever has the host and the passphrase has that as well."""


class AuditFile(Section):
    """A file; whoever rotates it moves it away, and it is made anew."""

    kind: Literal["file"]
    """What the sink is."""

    path: AbsolutePath = Field(examples=["/var/log/penstock/audit.jsonl"])
    """The file. Its directory has to be there."""


class AuditStdout(Section):
    """Standard output, which nothing else is written to."""

    kind: Literal["stdout"]
    """What the sink is."""


class AuditSyslog(Section):
    """A syslog collector over TLS (RFC 5424, RFC 5425)."""

    kind: Literal["syslog"]
    """What the sink is."""

    address: EndpointText = Field(examples=["logs.corp.example:6514"])
    """Where the collector listens."""

    server_name: str | None = Field(
        default=None, min_length=1, max_length=253, examples=["logs.corp.example"]
    )
    """Name that its certificate has to bear. Without it: the host of its address."""

    ca_bundle: AbsolutePath = Field(examples=["/etc/penstock/logs-root.pem"])
    """PEM roots that its certificate has to lead to; no others are trusted."""

    certificate: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/logs-client.crt"]
    )
    """PEM chain of our own certificate, leaf first. Read again for every connection."""

    key: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/logs-client.key"])
    """PEM private key of that certificate."""

    facility: int = Field(default=13, ge=0, le=23)
    """Syslog facility; 13 is log audit."""

    enterprise: int = Field(default=32473, ge=1, le=4_294_967_295)
    """Private enterprise number in the name of the structured data. 32473 is the one for examples
    (RFC 5612): give that of your organisation."""

    strict_close: bool = False
    """Whether the collector has to end each connection with a close_notify of its own before
    anything counts as sent. rsyslog does so with its driver ossl, and not with gtls."""

    message: Size = 8 * 1024
    """Longest message that the collector takes; a record that is longer is named and left out."""

    @model_validator(mode="after")
    def _check_pair(self) -> AuditSyslog:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together, one of them is missing")
        return self


def _kind(value: object) -> str | None:
    word = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return word if isinstance(word, str) else None


SinkSection = Annotated[
    Annotated[AuditSyslog, Tag("syslog")]
    | Annotated[AuditFile, Tag("file")]
    | Annotated[AuditStdout, Tag("stdout")],
    Discriminator(
        _kind,
        custom_error_type="audit_sink",
        custom_error_message="expected kind 'syslog', 'file' or 'stdout'",
    ),
]
"""One place that the trail goes to."""


class Audit(Section):
    """The audit trail. Every event is a record of it, chained to the one before it."""

    checkpoints: CheckpointSection = Field(default_factory=CheckpointSection)
    """How it is signed."""

    sinks: dict[ConfigName, SinkSection] = Field(default_factory=dict, max_length=16)
    """Where it goes beside the store. Without one the owner of the store can write it anew, and
    nobody would know."""

    @model_validator(mode="after")
    def _check_stdout(self) -> Audit:
        if sum(isinstance(sink, AuditStdout) for sink in self.sinks.values()) > 1:
            raise ValueError("two sinks are standard output, expected at most one")
        return self


def check_audit(audit: Audit, state: Path, lines: Lines) -> Iterator[Fault]:
    """Find files that would lie in the state directory, where each backup would take them along."""
    for name, sink in audit.sinks.items():
        if isinstance(sink, AuditFile) and sink.path.is_relative_to(state):
            yield lines.fault(
                ("audit", "sinks", name, "path"),
                f"audit file {sink.path} lies in the state directory {state}",
                "give a path elsewhere, such as /var/log/penstock/audit.jsonl",
            )
