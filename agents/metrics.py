"""Metrics and readiness on a local port: Prometheus' text format, written by hand.

A dozen series of fixed names; the only labels are the certificate's configured name, a stage and a
result.  The agent's main loop accepts, and a thread that ends with the answer speaks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Answers", "Figures", "LocalPort", "render"]

MAX_HEAD_BYTES: Final = 8 * 1024
"""Largest head of a request that is read, in bytes; Prometheus sends under 1 KiB."""

REQUEST_SECONDS: Final = 2.0
"""How long a request may take to come, in seconds; it comes from the same host."""

AT_ONCE: Final = 4
"""Most requests that are answered at once; others are closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the metrics are made of."""

    version: str
    is_connected: bool
    is_ready: bool
    is_config_good: bool
    connections: int
    waiting_out: int
    waiting_work: int
    identity_not_after: float | None
    deliveries: Mapping[str, int] = field(default_factory=dict)
    reloads: Mapping[str, int] = field(default_factory=dict)
    certificates: Iterable[tuple[str, int | None, int, bool]] = ()
    """Name, end, generation, whether it is seen."""


_HELP: Final = {
    "build_info": ("gauge", "Version of the agent."),
    "connected": ("gauge", "Whether the broker is reached, 1 or 0."),
    "ready": ("gauge", "Whether every certificate is in place, 1 or 0."),
    "config_last_reload_successful": ("gauge", "Whether the configuration file is in use."),
    "connections_total": ("counter", "Connections to the broker that came to be."),
    "outbox_messages": ("gauge", "Messages that the broker has not taken yet."),
    "work_waiting": ("gauge", "Deliveries that wait or are under way."),
    "identity_not_after_timestamp_seconds": ("gauge", "End of the identity."),
    "deliveries_total": ("counter", "Deliveries that ended, by how."),
    "reloads_total": ("counter", "Reloads of servers, by result."),
    "certificate_not_after_timestamp_seconds": ("gauge", "End of what is installed."),
    "certificate_generation": ("gauge", "Generation of what is installed."),
    "certificate_seen": ("gauge", "Whether the server was seen to serve it, 1 or 0."),
    "resident_memory_bytes": ("gauge", "Resident memory of the agent."),
}


def render(figures: Figures) -> str:
    """Return the metrics as text."""
    certificates = list(figures.certificates)
    values: dict[str, list[tuple[str, float]]] = {
        "build_info": [(_labels(version=figures.version), 1)],
        "connected": [("", figures.is_connected)],
        "ready": [("", figures.is_ready)],
        "config_last_reload_successful": [("", figures.is_config_good)],
        "connections_total": [("", figures.connections)],
        "outbox_messages": [("", figures.waiting_out)],
        "work_waiting": [("", figures.waiting_work)],
        "identity_not_after_timestamp_seconds": _maybe(figures.identity_not_after),
        "deliveries_total": [(_labels(stage=k), v) for k, v in sorted(figures.deliveries.items())],
        "reloads_total": [(_labels(result=k), v) for k, v in sorted(figures.reloads.items())],
        "certificate_not_after_timestamp_seconds": [
            (_labels(certificate=name), ends) for name, ends, _, _ in certificates if ends
        ],
        "certificate_generation": [(_labels(certificate=c[0]), c[2]) for c in certificates],
        "certificate_seen": [(_labels(certificate=c[0]), c[3]) for c in certificates],
        "resident_memory_bytes": _maybe(_resident_bytes()),
    }
    lines = []
    for name, (kind, text) in _HELP.items():
        lines.append(f"# HELP penstock_agent_{name} {text}")
        lines.append(f"# TYPE penstock_agent_{name} {kind}")
        lines += [f"penstock_agent_{name}{labels} {value:.15g}" for labels, value in values[name]]
    return "\n".join(lines) + "\n"


def _maybe(value: float | None) -> list[tuple[str, float]]:
    return [] if value is None else [("", value)]


def _labels(**labels: str) -> str:
    made = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{made}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _resident_bytes() -> float | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class Answers:
    """Answers ``/metrics``, ``/ready`` and ``/live``."""

    def __init__(self, metrics: Callable[[], str], findings: Callable[[], list[str]]) -> None:
        self._metrics = metrics
        self._findings = findings

    def answer(self, head: bytes) -> bytes:
        """Return the answer to a request with that head."""
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            return _answer("405 Method Not Allowed", "only GET\n")
        path = words[1].split(b"?")[0]
        is_head = words[0] == b"HEAD"
        if path == b"/metrics":
            return _answer("200 OK", self._metrics(), is_head=is_head)
        if path in (b"/ready", b"/readyz"):
            found = self._findings()
            status = "503 Service Unavailable" if found else "200 OK"
            return _answer(status, "\n".join(found or ["ready"]) + "\n", is_head=is_head)
        if path in (b"/live", b"/livez", b"/healthz"):
            return _answer("200 OK", "live\n", is_head=is_head)
        return _answer("404 Not Found", "nothing here\n", is_head=is_head)


class LocalPort:
    """Listens, and has each request answered."""

    def __init__(self, address: str, answers: Answers) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._answers = answers
        self._free = threading.Semaphore(AT_ONCE)
        self.listener = socket.create_server((host, int(port)), family=family, backlog=16)
        self.listener.settimeout(0.0)

    def close(self) -> None:
        """Answer nobody any more."""
        self.listener.close()

    def accept(self) -> None:
        """Take a request that waits, and have it answered."""
        try:
            caller, _ = self.listener.accept()
        except OSError:
            return
        if not self._free.acquire(blocking=False):
            caller.close()
            return
        threading.Thread(target=self._speak, args=(caller,), name="http", daemon=True).start()

    def _speak(self, caller: socket.socket) -> None:
        try:
            with caller, contextlib.suppress(OSError):
                caller.settimeout(REQUEST_SECONDS)
                caller.sendall(self._answers.answer(_head(caller)))
        finally:
            self._free.release()


def _head(caller: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
        part = caller.recv(4096)
        if not part:
            break
        head += part
    return head


def _answer(status: str, text: str, *, is_head: bool = False) -> bytes:
    body = text.encode("utf-8")
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if is_head else body)
