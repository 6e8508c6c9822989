"""Real load balancers and a real forward proxy between agents and broker.

Some balancers end TLS, and one of those holds streams back; another one and the proxy pass on
octets, so that agent and broker see each other's certificates.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.peers import authority, process
from tests.peers.apache import MODULES, UNPRIVILEGED
from tests.peers.haproxy import HAProxy
from tests.peers.installation import installed
from tests.peers.nginx import Nginx
from tests.peers.tls_server import TlsServer

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

SECONDS: Final = 120.0
"""Longest wait for a certificate, in seconds; half a minute goes by before a stream is given up."""

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

PASSING: Final = """\
global
    maxconn 64
    log stderr local0 info
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend agents
    bind 127.0.0.1:{port}
    default_backend broker
backend broker
    server one 127.0.0.1:{behind}
"""

FORWARD: Final = """\
ServerRoot "{directory}"
ServerName localhost
PidFile "{directory}/httpd.pid"
Mutex file:{directory} default
ErrorLog /dev/stderr
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authn_file_module {modules}/mod_authn_file.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_basic_module {modules}/mod_auth_basic.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_connect_module {modules}/mod_proxy_connect.so
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
LogFormat "%r %>s %u" tunnels
CustomLog "{directory}/tunnels" tunnels
ProxyRequests On
ProxyVia Off
AllowCONNECT {behind}
<Proxy "*">
    AuthType Basic
    AuthName "proxy"
    AuthUserFile "{directory}/users"
    Require user web
</Proxy>
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


class PassingFront(HAProxy):
    """An HAProxy that knows nothing of TLS and passes octets on."""

    def __init__(self, tmp: Path, behind: int) -> None:
        super().__init__(tmp, tmp)
        self._behind = behind

    def write(self) -> None:
        """Write haproxy.cfg."""
        text = PASSING.format(port=self.port, behind=self._behind)
        (self.directory / "haproxy.cfg").write_text(text, "utf-8")

    def passed(self) -> list[str]:
        """Return a line for each connection that went by and is over."""
        return [line for line in self.log_text().splitlines() if " agents broker/one " in line]


class ForwardProxy(process.Peer):
    """An Apache httpd, as packaged, that is asked to CONNECT, and only by whom it knows."""

    name = "httpd"

    def __init__(self, tmp: Path, behind: int) -> None:
        super().__init__(tmp)
        self.port = process.free_port()
        self._behind = behind

    def command(self) -> Sequence[str]:
        """Write httpd.conf and return the command line."""
        digest = base64.b64encode(hashlib.sha1(b"s3cret").digest()).decode()
        (self.directory / "users").write_text(f"web:{{SHA}}{digest}\n", "ascii")
        config = self.directory / "httpd.conf"
        text = FORWARD.format(
            directory=self.directory, modules=MODULES, port=self.port, behind=self._behind
        )
        config.write_text(text, "utf-8")
        prefix = UNPRIVILEGED if os.geteuid() == 0 else ()
        return [*prefix, str(installed("apache2")), "-D", "FOREGROUND", "-f", str(config)]

    def is_ready(self) -> bool:
        """See that it listens."""
        return process.is_listening(self.port)

    def passed(self) -> list[str]:
        """Return a line for each CONNECT that is over: request, status, and who asked."""
        return (self.directory / "tunnels").read_text("utf-8").splitlines()


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


def plain_agent(
    broker: TrustingPenstock, tmp: Path, node: str, port: int, **more: Any
) -> NodeAgent:
    """Return an agent with one certificate that shows its identity in TLS."""
    wanted = Wanted(name="own", names=[node], directory=tmp / "tls", expects=broker.ca_bundle)
    return NodeAgent(
        tmp / "agent",
        node,
        url=f"https://127.0.0.1:{port}",
        anchors=broker.ca_bundle,
        token=broker.mint([node])[node],
        wanted=[wanted],
        **more,
    )


def stages(broker: TrustingPenstock, node: str) -> list[str]:
    """Return the stages of a node's deliveries, as the broker has them."""
    statement = (
        "SELECT d.stage FROM deliveries d JOIN nodes n USING (node_id) WHERE n.name = ?"
        " ORDER BY d.begun_at"
    )
    return [stage for (stage,) in broker.rows(statement, node)]


def check_served(broker: TrustingPenstock, agent: NodeAgent) -> None:
    """See that an agent has its certificate, holds its stream, and has the next one pushed."""
    process.wait_until(
        lambda: "penstock_agent_ready 1" in agent.metrics(), SECONDS, "its certificate"
    )
    # A delivery of which the broker has not heard the end is gone on with, not begun anew.
    process.wait_until(lambda: stages(broker, agent.node) == ["seen"], SECONDS, "its receipt")
    chain = agent.wanted[0].directory / "fullchain.pem"
    first = chain.read_bytes()
    assert broker.json("node", "show", agent.node)["connected"] is True
    (row,) = broker.json("renew", agent.node)
    assert row["stage"] == "seen"
    assert chain.read_bytes() != first
    said = agent.log_text()
    assert '"by": "stream"' in said
    assert '"by": "poll"' not in said


def test_agent_works_through_a_balancer_that_passes_tls_on(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """In TCP mode the broker itself sees the agent's certificate: nothing is signed."""
    with PassingFront(tmp_path / "front", broker.agents_port) as front:
        agent = plain_agent(broker, tmp_path, "passed.example.test", front.port)
        with agent:
            check_served(broker, agent)
        process.wait_until(lambda: len(front.passed()) >= 2, SECONDS, "connections that went by")


def test_agent_works_through_a_forward_proxy(broker: TrustingPenstock, tmp_path: Path) -> None:
    """It asks the proxy of its environment to CONNECT, with the login there; without one it is
    refused, and nothing goes by the proxy's side."""
    with ForwardProxy(tmp_path / "front", broker.agents_port) as front:
        for word, login in (("stranger", ""), ("known", "web:s3cret@")):
            node, home = f"{word}.example.test", tmp_path / word
            home.mkdir()
            told = {"HTTPS_PROXY": f"http://{login}127.0.0.1:{front.port}"}
            agent = plain_agent(broker, home, node, broker.agents_port, environment=told)
            with agent:
                if login:
                    check_served(broker, agent)
                else:
                    process.wait_until(
                        lambda agent=agent: "the proxy answers 407" in agent.log_text(),
                        SECONDS,
                        "a refusal",
                    )
        connect = f"CONNECT 127.0.0.1:{broker.agents_port} HTTP/1.1"
        process.wait_until(
            lambda: f"{connect} 200 web" in front.passed(), SECONDS, "tunnels that are over"
        )
    passed = front.passed()
    assert {line.rpartition(" ")[0] for line in passed} == {f"{connect} 407", f"{connect} 200"}
    known = [one["node"] for one in broker.json("node", "list")]
    assert "known.example.test" in known
    assert "stranger.example.test" not in known
