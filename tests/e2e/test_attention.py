"""What needs somebody's attention at a real broker: held, due, not seen, not renewed; and what
hurries it: a CA that wants its certificate renewed, a person at a terminal."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pty
import secrets
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from agents import wire
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.nodes import PlainAgent
from tests.deployments.penstock import COMMAND_SECONDS
from tests.deployments.two_cas import Scene, deployed, make_agent, wait_for
from tests.peers import authority
from tests.peers.nginx import Nginx
from tests.simulator.identity import make_csr, make_key

pytestmark = [pytest.mark.e2e, pytest.mark.peers]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One deployment for all tests here."""
    with deployed(tmp_path_factory.mktemp("attention")) as made:
        yield made


def chain(agent: NodeAgent, number: int = 0) -> x509.Certificate:
    """Return the certificate that an agent has installed."""
    pem = (agent.wanted[number].directory / "fullchain.pem").read_bytes()
    return x509.load_pem_x509_certificates(pem)[0]


def files(directory: Path) -> list[bytes]:
    """Return what lies in the files of a pair."""
    return [(directory / name).read_bytes() for name in ("fullchain.pem", "privkey.pem")]


def gauge(broker: TrustingPenstock, name: str) -> float:
    """Return a figure of the broker's metrics."""
    (line,) = [one for one in broker.metrics().splitlines() if one.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def alert(kind: str) -> str:
    """Return the figure by which somebody is alerted."""
    return f'penstock_renewal_alerts_total{{kind="{kind}"}}'


def usages(certificate: x509.Certificate) -> set[str]:
    """Return the names of a certificate's extended key usages."""
    found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return {one._name for one in found}


# ------------------------------------------------------------------------------------------- held


def test_renewal_that_lacks_client_auth_is_held_until_somebody_releases_it(scene: Scene) -> None:
    """As in 2026: it is issued, told of as an alert, and nothing is installed until then."""
    broker, directory = scene.broker, scene.agent.wanted[0].directory
    before, alerts = files(directory), gauge(broker, alert("delivery-held"))
    assert usages(chain(scene.agent)) == {"serverAuth", "clientAuth"}
    broker.run("renew", "smtp.example.test", "--wait", "5", status=1)
    wait_for(lambda: scene.stages("smtp") == ["seen", "held"], "the renewal to be held")
    held = next(one for one in scene.watched("held") if one["certificate"] == "smtp")
    assert held["note"] == "usages are missing: clientAuth"
    (told,) = [one for one in broker.events("delivery-held") if one["certificate"] == "smtp"]
    assert "clientAuth" in json.dumps(told)
    assert gauge(broker, alert("delivery-held")) == alerts + 1
    assert files(directory) == before
    broker.json("cert", "release", held["delivery"], "--reason", "nobody logs in by it")
    wait_for(lambda: scene.stages("smtp") == ["seen", "seen"], "what was released")
    assert usages(chain(scene.agent)) == {"serverAuth"}


# ------------------------------------------------------------------------------------------ lists


def push_unseen(broker: TrustingPenstock, tmp: Path) -> None:
    """Have a certificate pushed to an agent that never says what became of it."""
    node = "deaf.nodes.example.test"
    agent = PlainAgent(broker.agents_url, broker.ca_bundle, tmp, node)
    assert agent.enrol(method="token", credential=broker.mint([node])[node])[0] == 200
    wanted = {"name": "unseen", "names": [node], "key_kind": "ec-p256", "profile": "unseen"}
    post(agent, "stated", {"instance": "i", "agent": "0.1", "certificates": [wanted]})
    (asked,) = messages(agent, "want-csr")
    told = {name: asked[name] for name in ("delivery", "certificate")}
    csr = wire.encode_bytes(make_csr(make_key(), [node]))
    post(agent, "csr", {**told, "csr_der": csr})
    messages(agent, "certificate")


def post(agent: PlainAgent, kind: str, body: dict[str, Any]) -> None:
    """Send one message."""
    status, reply = agent.post(wire.Message(secrets.token_hex(8), kind, body))
    assert (status, reply["refused"]) == (200, [])


def messages(agent: PlainAgent, kind: str) -> list[dict[str, Any]]:
    """Wait for messages of a kind, and return their bodies."""
    found: list[dict[str, Any]] = []

    def have_come() -> bool:
        waiting = agent.poll()[1]["messages"]
        found[:] = [one["body"] for one in waiting if one["kind"] == kind]
        return bool(found)

    wait_for(have_come, f"a message '{kind}'")
    return found


def test_lists_name_what_needs_attention_and_nothing_else(scene: Scene, tmp_path: Path) -> None:
    """Of each kind there is one, and beside it what is well: a client's certificate that nobody
    renews, a name that is refused, a node that says nothing, a certificate that is held."""
    broker = scene.broker
    for name, word in (("fine.example.test", "server"), ("alone.example.test", "short")):
        scene.obtain(tmp_path / "lego", name, "--profile", word)
    push_unseen(broker, tmp_path)
    wanted = [
        Wanted(name=name, names=[full], directory=tmp_path / name, expects=broker.ca_bundle)
        for name, full in (("well", "well.example.test"), ("foreign", "www.elsewhere.test"))
    ]
    with make_agent(broker, tmp_path / "agent", "two.nodes.example.test", wanted):
        broker.run("renew", "imap.example.test", "--wait", "0")
        wait_for(lambda: scene.stages("well") == ["seen"], "the one that is well")
        wait_for(lambda: "foreign" in scene.named("due"), "the one that is refused")
        wait_for(lambda: broker.events("certificate-not-renewed"), "the client to be told of")
        assert scene.named("not-renewed") == {"alone.example.test"}
        assert gauge(broker, "penstock_certificates_not_renewed") == 1
        assert gauge(broker, alert("certificate-not-renewed")) == 1
        for kind, certificate in (("held", "imap"), ("not-seen", "unseen")):
            wait_for(lambda kind=kind: scene.named(kind), f"what is {kind}")
            assert scene.named(kind) == {certificate}, kind
        assert gauge(broker, alert("delivery-not-seen")) == 1
        # What is held or not seen was due as well, and has not succeeded.
        assert scene.named("due") == {"foreign", "imap", "unseen"}
    (told,) = broker.events("certificate-not-renewed")
    assert told["identifiers"] == ["alone.example.test"]
    ((at,),) = broker.rows("SELECT at FROM events WHERE kind = 'certificate-not-renewed'")
    assert at < datetime.datetime.fromisoformat(told["not_after"]).timestamp() * 1_000_000


# -------------------------------------------------------------------------------- what the CA says


def test_node_is_renewed_when_its_ca_wants_it_earlier(scene: Scene, tmp_path: Path) -> None:
    """Nobody renews it: Pebble moves its window into the past, and a successor is served."""
    broker = scene.broker
    node = "ari.nodes.example.test"
    wanted = [
        Wanted(
            name=name,
            names=[f"{name}.example.test"],
            directory=tmp_path / name,
            expects=scene.anchors,
            profile="pebble",
        )
        for name in ("moved", "unmoved")
    ]
    with make_agent(broker, tmp_path / "agent", node, wanted) as agent:
        names = [one.name for one in wanted]
        wait_for(lambda: [scene.stages(one) for one in names] == [["seen"]] * 2, "both")
        leaf = chain(agent)
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        shown = broker.json("cert", "renewal", fingerprint, "--ask")
        past = authority.real_now() - datetime.timedelta(days=1)
        window = {
            "start": past.isoformat(),
            "end": (past + datetime.timedelta(hours=1)).isoformat(),
        }
        scene.pebble.set_renewal_info(
            leaf.public_bytes(Encoding.PEM), json.dumps({"suggestedWindow": window})
        )
        broker.json("cert", "renewal", fingerprint, "--ask")
        wait_for(lambda: scene.stages("moved") == ["seen", "seen"], "its successor")
        assert chain(agent).serial_number != leaf.serial_number
        assert scene.stages("unmoved") == ["seen"]
    (moved,) = broker.events("renewal-moved-earlier")
    assert moved["certificate_id"] == shown["certificate"]


# ---------------------------------------------------------------------------------------- adopting


def test_pair_of_another_client_is_adopted_and_renewed_at_its_server(
    scene: Scene, tmp_path: Path
) -> None:
    """The command takes it over, the agent that runs then orders nothing and nginx serves what it
    served; once it is asked for, it is renewed and nginx is seen to serve the new one."""
    broker, name, node = scene.broker, "adopted.example.test", "adopts.nodes.example.test"
    obtained = scene.obtain(tmp_path / "lego", name)
    assert obtained.key is not None
    pair = tmp_path / "tls" / "www"
    pair.mkdir(parents=True)
    shutil.copy(obtained.fullchain, pair / "fullchain.pem")
    shutil.copy(obtained.key, pair / "privkey.pem")
    with Nginx(tmp_path / "nginx", pair) as nginx:
        agent = make_agent(broker, tmp_path / "agent", node, [], allowed=[pair])
        agent.write()
        adopt = ["adopt", "--config", str(agent.config), str(pair)]
        done = subprocess.run(
            [*agent.program(), *adopt, "--anchors", str(broker.ca_bundle)],
            env=agent.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        leaf = obtained.leaf()
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        assert done.stdout == f"adopted www: {fingerprint}\n", done.stderr
        (section,) = (agent.config.parent / "agent.d").iterdir()
        section.write_text(section.read_text("utf-8") + nginx.toml(name), "utf-8")
        with agent:
            wait_for(lambda: "penstock_agent_ready 1" in agent.metrics(), "it to be ready")
            adopted = "SELECT 1 FROM managed WHERE name = 'www' AND served_pem IS NOT NULL"
            wait_for(lambda: broker.rows(adopted), "the broker to be told")
            assert scene.stages("www") == []
            assert look_at(nginx.port) == leaf
            (row,) = broker.json("renew", node)
            assert row["stage"] == "seen"
            renewed = look_at(nginx.port)
            assert renewed != leaf
            assert renewed.public_key() != leaf.public_key()
            reasons = "SELECT d.reason FROM deliveries d JOIN managed m USING (managed_id)"
            assert broker.rows(f"{reasons} WHERE m.name = 'www'") == [("asked",)]


def look_at(port: int) -> x509.Certificate:
    """Return what a server serves."""
    return x509.load_pem_x509_certificate(
        ssl.get_server_certificate(("127.0.0.1", port)).encode("ascii")
    )


# ------------------------------------------------------------------------------------ the terminal


def test_renewing_shows_its_progress_on_a_terminal_and_nowhere_else(
    scene: Scene, tmp_path: Path
) -> None:
    """A bar with what has become of how many, and nothing of it where standard error is a file."""
    broker, node = scene.broker, "bar.nodes.example.test"
    wanted = [
        Wanted(
            name="bar", names=["bar.example.test"], directory=tmp_path / "tls",
            expects=broker.ca_bundle,
        )
    ]  # fmt: skip
    with make_agent(broker, tmp_path / "agent", node, wanted) as agent:
        wait_for(lambda: scene.stages("bar") == ["seen"], "the first one")
        first = chain(agent)
        printed, shown = on_terminal(broker, "renew", node, "--json")
        assert [one["stage"] for one in json.loads(printed)] == ["seen"]
        assert chain(agent) != first
        assert "renewing" in shown
        assert "100%" in shown
        assert "1 seen" in shown
        assert broker.run("renew", node, "--json").stderr == ""


def on_terminal(broker: TrustingPenstock, *words: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; return what it printed and showed."""
    master, slave = pty.openpty()
    command = [*broker.program(), *words, "--config", str(broker.config)]
    shown = b""
    with (
        os.fdopen(master, "rb", buffering=0) as terminal,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=slave,
            cwd=broker.directory,
            env={**broker.environment(), "TERM": "xterm"},
        ) as running,
    ):
        os.close(slave)
        limit = threading.Timer(COMMAND_SECONDS, running.kill)
        limit.start()
        try:
            with contextlib.suppress(OSError):  # once its other end is closed
                while part := terminal.read(4096):
                    shown += part
            assert running.stdout is not None
            printed = running.stdout.read()
            running.wait()
        finally:
            limit.cancel()
            running.kill()
    assert running.returncode == 0, shown
    return printed.decode(), shown.decode()
