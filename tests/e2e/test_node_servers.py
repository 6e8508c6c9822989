"""Real servers and a device, kept fresh by a real agent at a real broker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agents.look import look
from tests.contract.agents.devices import program
from tests.contract.agents.pairs import make_pair, put
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.fakes.redfish_controller import COLLECTION, LOCATION, Controller
from tests.peers.dovecot import Dovecot
from tests.peers.haproxy import HAProxy
from tests.peers.httpd import Httpd
from tests.peers.nginx import Nginx
from tests.peers.postfix import Postfix
from tests.peers.slapd import Slapd
from tests.peers.tls_server import TlsServer

pytestmark = pytest.mark.e2e

NODE: Final = "host-1.nodes.example.test"
KINDS: Final = (Nginx, Httpd, HAProxy, Postfix, Dovecot, Slapd)

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for the certificates of all servers; on an idle machine it takes four seconds."""


DEVICE: Final = """
[[certificate]]
name = "bmc"
names = ["bmc.example.test"]
[certificate.driver]
command = {command}
[certificate.look]
connect = "127.0.0.1:{port}"
[certificate.expects]
anchors = "{anchors}"
"""


BUNDLES: Final = """
[[bundle]]
name = "anchors"
file = "{folder}/roots.pem"
[[bundle]]
name = "crls"
content = "crls"
file = "{folder}/crls.pem"
"""


def wait_for(has_come: Callable[[], Any]) -> Any:
    """Return what *has_come* returns as soon as it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := has_come()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.1)
    return found


def stages(broker: TrustingPenstock) -> dict[str, list[str]]:
    """Return the stages of all deliveries by the name of their certificate."""
    rows = broker.rows(
        "SELECT m.name, d.stage FROM deliveries d JOIN managed m USING (managed_id)"
        " ORDER BY d.begun_at"
    )
    found: dict[str, list[str]] = {}
    for name, stage in rows:
        found.setdefault(name, []).append(stage)
    return found


def name_of(server: TlsServer) -> str:
    """Return the name that *server* serves."""
    return f"{server.name}.example.test"


def is_serving_files(server: TlsServer) -> bool:
    """Look that *server* serves what its files hold."""
    pem = server.certificate.read_text("ascii")
    begin, end = pem.index("-----BEGIN CERTIFICATE"), pem.index("-----END CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + "-----END CERTIFICATE-----\n")
    fingerprint = hashlib.sha256(der).hexdigest()
    return look(server.look_section(name_of(server)), fingerprint).fingerprint == fingerprint


def pem_blocks(path: Path) -> list[bytes]:
    """Return the blocks of a PEM file."""
    parts = path.read_bytes().split(b"-----BEGIN ")[1:]
    return [b"-----BEGIN " + part for part in parts]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TrustingPenstock]:
    """A broker whose built-in CA certifies its nodes' names."""
    home = tmp_path / "broker"
    home.mkdir()
    with TrustingPenstock(home) as made:
        yield made


@contextlib.contextmanager
def agent_of(
    broker: TrustingPenstock, home: Path, *wanted: Wanted, more: str = ""
) -> Iterator[NodeAgent]:
    """Run an agent that wants *wanted*, and what the text *more* says."""
    home.mkdir(exist_ok=True)
    token = broker.mint([NODE])[NODE]
    made = NodeAgent(
        home,
        NODE,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=token,
        wanted=wanted,
        more=more,
    )
    with made:
        yield made


def test_servers_serve_what_is_pushed_and_a_broken_one_keeps_the_old(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """Six servers get their certificates; one that can't reload goes on with the one it had."""
    home = tmp_path / "agent"
    with contextlib.ExitStack() as running:
        servers: dict[str, TlsServer] = {}
        for kind in KINDS:
            server: TlsServer = kind(tmp_path / kind.name, home / "tls" / kind.name)
            put(make_pair(name_of(server)), server.pair)
            servers[kind.name] = running.enter_context(server)
        wanted = [
            Wanted(
                name=name,
                names=[name_of(server)],
                directory=server.pair,
                layout="combined" if server.is_combined else "pem",
                file="server" if server.is_combined else None,
                expects=broker.ca_bundle,
                more=server.toml(name_of(server)),
            )
            for name, server in servers.items()
        ]
        running.enter_context(agent_of(broker, home, *wanted))
        wait_for(lambda: stages(broker) == {name: ["seen"] for name in servers})
        assert all(is_serving_files(server) for server in servers.values())

        nginx = servers["nginx"]
        nginx.break_configuration()
        before = nginx.certificate.read_text("ascii")
        broker.run("renew", name_of(nginx), "--reason", "a test", "--wait", "0")
        wait_for(lambda: stages(broker)["nginx"][1:] in (["restored"], ["failed"]))
        assert nginx.certificate.read_text("ascii") == before
        assert is_serving_files(nginx)


def test_device_gets_its_certificate_and_keeps_its_key(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """A management controller makes key and CSR, takes the chain, and is seen to serve it."""
    controller = Controller(
        tmp_path / "bmc", algorithms=("TPM_ALG_ECDSA",), kinds=("PEM", "PEMchain")
    )
    password, settings = tmp_path / "password", tmp_path / "bmc.toml"
    password.write_text(controller.password)
    members = {
        "host": "127.0.0.1",
        "port": controller.port,
        "user": "penstock",
        "password": f"file:{password}",
        "pins": [controller.fingerprint],
        "collection": COLLECTION,
        "location": LOCATION,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in members.items()]
    lines.append('subject = { Organization = "x", OrganizationalUnit = "x", City = "x",')
    settings.write_text("\n".join(lines) + ' State = "x", Country = "DE" }\n')
    command = json.dumps(program("redfish", settings))
    section = DEVICE.format(command=command, port=controller.port, anchors=broker.ca_bundle)
    with controller, agent_of(broker, tmp_path / "agent", more=section):
        before = controller.fingerprint
        wait_for(lambda: stages(broker) == {"bmc": ["seen"]})
        assert controller.fingerprint != before
    kept = [path for path in (tmp_path / "agent").rglob("*") if path.is_file()]
    keys = [path.parent.name for path in kept if b"PRIVATE KEY" in path.read_bytes()]
    assert keys == ["identity"], "a key besides that of the node's identity lies on the node"


def test_anchors_and_revocation_lists_come_into_files_of_their_own(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """What the broker sends a node that wants it is the root that its certificates end at."""
    folder = tmp_path / "agent" / "tls"
    wanted = Wanted(
        name="www", names=["www.example.test"], directory=folder, expects=broker.ca_bundle
    )
    section = BUNDLES.format(folder=folder)
    with agent_of(broker, tmp_path / "agent", wanted, more=section):
        anchors, lists = folder / "roots.pem", folder / "crls.pem"
        wait_for(lambda: anchors.exists() and lists.exists() and stages(broker))
        roots = x509.load_pem_x509_certificates(anchors.read_bytes())
        wait_for(lambda: stages(broker) == {"www": ["seen"]})
        chain = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())
        assert chain[-1].issuer in {one.subject for one in roots}
        issuer = chain[1].public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        (only,) = pem_blocks(lists)
        assert x509.load_pem_x509_crl(only).is_signature_valid(issuer)
        assert not [one for one in roots if "nodes" in one.subject.rfc4514_string()]
