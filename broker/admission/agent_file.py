"""The agent's configuration for one pod, written as TOML.  Pure.

Whatever a value holds, it stands in one string of its own: everything but letters, digits and a few
signs is written as an escape, so that nothing of it is read as TOML, as a shell's word, or as a
``$(VARIABLE)`` of a container's environment.  tests/unit/admission reads it back with the agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.admission.annotations import Reload

__all__ = ["STATE", "TLS", "TOKEN", "TRUST", "AgentFile", "quote", "write_agent_file"]

TLS: Final = "/var/run/penstock/tls"
"""Where the agent writes what the application reads."""

STATE: Final = "/var/lib/penstock-agent"
"""Where it keeps its identity and its keys, for as long as the pod lives."""

TOKEN: Final = "/var/run/secrets/penstock/token"
"""Its service account's token, made for the broker alone."""

TRUST: Final = "/var/run/penstock/trust/ca.crt"
"""What the broker's certificate, and the pod's, have to chain to."""

CERTIFICATE: Final = "pod"
"""What the one certificate of a pod is called."""

_PLAIN: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_.:/*@+=,[]"
)
"""What stands for itself between quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFile:
    """What is particular to a pod."""

    broker_url: str
    names: Sequence[str]
    profile: str
    key: str
    layout: str
    reload: Reload | None
    look: str
    metrics: str
    """Where the agent serves metrics; empty: nowhere."""


def write_agent_file(file: AgentFile) -> str:
    """Return the file's text."""
    lines = [
        "[node]",
        _pair("state", STATE),
        _pairs("allowed", [TLS]),
        _pair("metrics", file.metrics),
        "workers = 1",
        "[broker]",
        _pair("url", file.broker_url),
        _pair("anchors", TRUST),
        "[enrol]",
        _pair("method", "kubernetes"),
        _pair("credential", f"file:{TOKEN}"),
        "[[certificate]]",
        _pair("name", CERTIFICATE),
        _pairs("names", file.names),
    ]
    if file.profile:
        lines.append(_pair("profile", file.profile))
    lines += ["[certificate.key]", _pair("kind", file.key)]
    lines += ["[certificate.files]", _pair("layout", file.layout), _pair("directory", TLS)]
    lines += ["[certificate.expects]", _pair("anchors", TRUST)]
    if file.reload is not None:
        lines += [
            "[certificate.reload]",
            _pair("signal", file.reload.signal),
            _pair("process", file.reload.program),
            _pair("absent", "pass"),
        ]
    if file.look:
        lines += ["[certificate.look]", _pair("connect", file.look), _pair("first", "pass")]
    return "\n".join(lines) + "\n"


def _pair(key: str, value: str) -> str:
    return f"{key} = {quote(value)}"


def _pairs(key: str, values: Iterable[str]) -> str:
    return f"{key} = [{', '.join(map(quote, values))}]"


def quote(value: str) -> str:
    """Return *value* as a basic string of TOML (TOML 1.0, String)."""
    return '"' + "".join(one if one in _PLAIN else _escaped(one) for one in value) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04X}" if number <= 0xFFFF else f"\\U{number:08X}"
