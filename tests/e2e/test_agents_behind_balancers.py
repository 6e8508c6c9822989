"""Real load balancers between agents and broker: they end TLS, and one holds streams back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers import authority, process
from tests.peers.haproxy import HAProxy
from tests.peers.nginx import Nginx
from tests.peers.tls_server import TlsServer

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

SECONDS: Final = 60.0
"""Longest wait for a certificate, in seconds; half of it goes by before a stream is given up."""

FRONT: Final = "front.example.test"

NGINX: Final = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass https://127.0.0.1:{behind};
            {more}
        }}
    }}
}}
"""

HAPROXY: Final = """\
global
    maxconn 64
    log stderr local0 warning
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend agents
    bind 127.0.0.1:{port} ssl crt {certificate}
    default_backend broker
backend broker
    server one 127.0.0.1:{behind} ssl verify none
"""


class NginxFront(Nginx):
    """An nginx that hands all requests on, as its defaults have it."""

    behind = 0
    """Port of the broker's listener."""

    def write(self) -> None:
        """Write nginx.conf."""
        text = NGINX.format(
            directory=self.directory,
            port=self.port,
            certificate=self.certificate,
            key=self.key,
            behind=self.behind,
            more=self.more,
        )
        (self.directory / "nginx.conf").write_text(text, "utf-8")


class HoldingFront(NginxFront):
    """One that holds answers back until a buffer is full, whatever they say of themselves."""

    def write(self) -> None:
        """Write nginx.conf."""
        self.more = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on;"
        super().write()


class HAProxyFront(HAProxy):
    """An HAProxy that hands all requests on."""

    behind = 0
    """Port of the broker's listener."""

    def write(self) -> None:
        """Write haproxy.cfg."""
        text = HAPROXY.format(port=self.port, certificate=self.certificate, behind=self.behind)
        (self.directory / "haproxy.cfg").write_text(text, "utf-8")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustingPenstock]:
    """A broker with agents."""
    with TrustingPenstock(tmp_path_factory.mktemp("broker")) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        pytest.param(NginxFront, "stream", id="nginx"),
        pytest.param(HAProxyFront, "stream", id="haproxy"),
        pytest.param(HoldingFront, "poll", id="nginx-that-holds-back"),
    ],
)
def test_agent_works_behind_a_load_balancer(
    broker: TrustingPenstock, tmp_path: Path, kind: type[TlsServer], by: str
) -> None:
    """It signs its requests, and polls where a stream does not come through."""
    root = authority.make_root("front")
    made = authority.make_server(root, [FRONT, "127.0.0.1"])
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "fullchain.pem").write_bytes(made.certificate_pem)
    (pair / "privkey.pem").write_bytes(made.key_pem())
    (pair / "server.pem").write_bytes(made.key_pem() + made.certificate_pem)
    anchors = tmp_path / "front.pem"
    anchors.write_bytes(root.certificate_pem)
    node = f"{by}-{kind.__name__.lower()}.example.test"
    with ExitStack() as stack:
        front = kind(tmp_path / "front", pair)
        front.behind = broker.agents_port  # type: ignore[attr-defined]
        stack.enter_context(front)
        agent = NodeAgent(
            tmp_path / "agent",
            node,
            url=f"https://127.0.0.1:{front.port}",
            anchors=anchors,
            token=broker.mint([node])[node],
            authentication="signed",
            wanted=[
                Wanted(
                    name="own", names=[node], directory=tmp_path / "tls", expects=broker.ca_bundle
                )
            ],
        )
        stack.enter_context(agent)
        process.wait_until(
            lambda: "penstock_agent_ready 1" in agent.metrics(), SECONDS, "its certificate"
        )
        assert (tmp_path / "tls" / "fullchain.pem").exists()
        assert f'"by": "{by}"' in agent.log_text() or f'"by":"{by}"' in agent.log_text()
