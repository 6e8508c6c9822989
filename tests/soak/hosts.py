"""The hosts of a soak: each has one server, as packaged, and one agent, each a real process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers import authority
from tests.peers.haproxy import HAProxy
from tests.peers.httpd import Httpd
from tests.peers.nginx import Nginx
from tests.peers.postfix import Postfix
from tests.peers.tls_server import TlsServer

__all__ = ["RELOADED", "ZONE", "Host", "LogWatch", "make_hosts"]

ZONE: Final = "soak.example.test"

WATCH_SECONDS: Final = 0.1
"""How often logs are looked at: what is read was written so long before at most."""


class LoudNginx(Nginx):
    """An nginx that logs each signal that it gets."""

    def write(self) -> None:
        """Write nginx.conf."""
        super().write()
        config = self.directory / "nginx.conf"
        text = config.read_text("utf-8")
        config.write_text(text.replace("error_log stderr warn", "error_log stderr notice"), "utf-8")


RELOADED: Final = {
    LoudNginx: re.compile(rb"signal 1 \(SIGHUP\) received.*reconfiguring"),
    Httpd: re.compile(rb"AH00493: SIGUSR1 received"),
    HAProxy: re.compile(rb"\(\d+\) : Reloading HAProxy"),
    Postfix: re.compile(rb"postfix/master\[\d+\]: reload -- version"),
}
"""What each server writes when it has been told to reload."""


@dataclass(slots=True)
class Host:
    """One host."""

    node: str
    server: TlsServer
    agent: NodeAgent
    snakeoil: str
    """SHA-256 of the certificate that was there before the agent came, in lower case hex."""
    reloads: list[float] = field(default_factory=list)
    """When its server said that it reloads, in seconds since 1970."""
    kills: list[float] = field(default_factory=list)
    """When its agent was killed, in seconds since 1970."""

    @property
    def kind(self) -> str:
        """Which program serves."""
        return self.server.name

    def target(self) -> dict[str, object]:
        """Return what the prober has to know."""
        starttls = None if self.server.starttls is None else str(self.server.starttls)
        return {
            "node": self.node,
            "port": self.server.port,
            "starttls": starttls,
            "snakeoil": self.snakeoil,
        }


def make_hosts(
    home: Path, broker: TrustingPenstock, trust: Path, each: int, *, url: str
) -> list[Host]:
    """Return *each* hosts of every kind, with a certificate of nobody's in place; none is started.

    *trust* is the PEM file that each node holds its certificates to.
    """
    kinds: Sequence[type[TlsServer]] = (LoudNginx, Httpd, HAProxy, Postfix)
    nodes = [f"{kind.name}-{number}.{ZONE}" for kind in kinds for number in range(1, each + 1)]
    tokens = broker.mint(nodes)
    hosts = []
    for node in nodes:
        kind = next(one for one in kinds if node.startswith(one.name))
        pair = home / node / "pair"
        server = kind(home / node / "server", pair)
        snakeoil = _place_snakeoil(server, node)
        wanted = Wanted(
            name="site",
            names=[node],
            directory=pair,
            layout="combined" if server.is_combined else "pem",
            file="server" if server.is_combined else None,
            expects=trust,
            more=server.toml(node),
        )
        agent = NodeAgent(
            home / node / "agent",
            node,
            url=url,
            anchors=broker.ca_bundle,
            token=tokens[node],
            wanted=[wanted],
        )
        hosts.append(Host(node, server, agent, snakeoil))
    return hosts


def _place_snakeoil(server: TlsServer, node: str) -> str:
    """Put a pair there that nobody trusts, so that the server can start before its agent."""
    server.pair.mkdir(parents=True)
    made = authority.make_server(authority.make_root("snakeoil"), [node])
    for path, content in (
        (server.certificate, made.certificate_pem),
        (server.key, made.key_pem()),
    ):
        path.touch(mode=0o600)
        with path.open("ab") as file:
            file.write(content)
    return made.certificate.fingerprint(hashes.SHA256()).hex()


class LogWatch:
    """Reads the logs of all servers while they are written, and notes when each reloaded."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._read = {host.node: 0 for host in hosts}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Read what is left and end."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            is_last = self._is_over.is_set()
            for host in self._hosts:
                self._look(host)
            if is_last:
                return
            self._is_over.wait(WATCH_SECONDS)

    def _look(self, host: Host) -> None:
        now = time.time()  # noqa: TID251  the wall clock, as receipts have it
        with host.server.log_file.open("rb") as log:
            log.seek(self._read[host.node])
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read[host.node] += len(whole) + len(newline)
        pattern = RELOADED[type(host.server)]
        host.reloads += [now for line in whole.splitlines() if pattern.search(line)]
