"""Nodes that do not read, whose folders are not safe, whose disk is full, at a real broker.

Whatever is wrong with one is told and recorded, delays no other, and leaves what it serves.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shlex
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from agents import wire
from broker.channel.feeds import WINDOW
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.nodes import PlainAgent
from tests.peers import process

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS: Final = 120.0
"""Longest wait for anything; a node that does not read is dropped after 20 to 40 seconds."""

MANY: Final = WINDOW + 8
"""Certificates of the node that does not read: more than may be under way at once."""

LONG_NAMES: Final = 100
"""Names of each of them, of 246 characters each: one question is 25 KB, and what asyncio takes for
a TLS connection before it says stop, 512 KiB, holds twenty."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustingPenstock]:
    """A broker for all tests here."""
    with TrustingPenstock(tmp_path_factory.mktemp("broker")) as made:
        yield made


def wait_for(is_so: Any, what: str) -> None:
    """Wait until another process has come that far."""
    process.wait_until(lambda: bool(is_so()), PATIENCE_SECONDS, what)


# ------------------------------------------------------------------------ one that does not read


def let_in(broker: TrustingPenstock, home: Path, node: str) -> PlainAgent:
    """Return an agent of few lines that has an identity."""
    made = PlainAgent(broker.agents_url, broker.ca_bundle, home, node)
    status, answer = made.enrol(method="token", credential=broker.mint([node])[node])
    assert status == 200, answer
    return made


def stating(wanted: dict[str, list[str]]) -> wire.Message:
    """Return what an agent states that wants these names by certificate."""
    certificates = [
        {"name": name, "names": names, "key_kind": "ec-p256"} for name, names in wanted.items()
    ]
    body = {"instance": "i", "agent": "0.0", "certificates": certificates}
    return wire.Message(secrets.token_hex(8), "stated", body)


def next_message(stream: http.client.HTTPResponse) -> wire.Message:
    """Return the next message of a stream, past its beats."""
    while line := stream.readline():
        if line.startswith(b"data: "):
            return wire.parse_message(json.loads(line[6:]))
    raise ConnectionResetError("the stream ended")


def questions_sent(broker: TrustingPenstock) -> int:
    """Return how many questions for a CSR the broker has put on the way."""
    name = 'penstock_node_messages_sent_total{kind="want-csr"} '
    found = [line for line in broker.metrics().splitlines() if line.startswith(name)]
    return int(float(found[0].removeprefix(name))) if found else 0


def is_connected(broker: TrustingPenstock, node: str) -> bool:
    """Return whether the broker has a connection of this node."""
    shown: bool = broker.json("node", "show", node)["connected"]
    return shown


def waiting_for(broker: TrustingPenstock, node: str) -> list[int]:
    """Return the numbers of what the node has not acknowledged."""
    statement = (
        "SELECT m.seq FROM node_messages m JOIN nodes n USING (node_id) WHERE n.name = ? ORDER BY 1"
    )
    return [seq for (seq,) in broker.rows(statement, node)]


def many_long(node: str) -> dict[str, list[str]]:
    """Return certificates whose questions fill a connection that is not read."""
    middle = ".".join(["x" * 63] * 3 + ["y" * 31])
    return {
        f"c{number}": [f"n{one:03}.{middle}.{node}" for one in range(LONG_NAMES)]
        for number in range(MANY)
    }


class Hearer:
    """Another node, which is asked for one certificate after the other."""

    def __init__(self, agent: PlainAgent, stream: http.client.HTTPResponse) -> None:
        self._agent = agent
        self._stream = stream
        self.heard = 0

    def hear_another(self) -> None:
        """Want one more, and read the question for it."""
        wanted = {f"c{number}": [self._agent.name] for number in range(self.heard + 1)}
        assert self._agent.post(stating(wanted))[0] == 200
        message = next_message(self._stream)
        assert (message.kind, message.body["certificate"]) == ("want-csr", f"c{self.heard}")
        self.heard += 1
        assert self._agent.post(ack=message.seq or 0)[0] == 200


def test_node_that_reads_nothing_delays_nobody_and_loses_nothing(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """What it is sent stops when its connection is full; others hear theirs meanwhile; it is
    dropped, and hears everything once it reads again."""
    deaf = let_in(broker, tmp_path, "deaf.example.test")
    other = let_in(broker, tmp_path, "hears.example.test")
    before = questions_sent(broker)
    with deaf.streaming(is_small=True) as unread, other.streaming() as stream:
        assert unread.status == 200
        hearer = Hearer(other, stream)
        assert deaf.post(stating(many_long(deaf.name)))[0] == 200
        wait_for(lambda: len(waiting_for(broker, deaf.name)) == MANY, "all its questions to wait")

        def sent_to_deaf() -> int:
            return questions_sent(broker) - before - hearer.heard

        seen = -1
        while (now := sent_to_deaf()) != seen:
            seen = now
            hearer.hear_another()
        assert is_connected(broker, deaf.name)
        wait_for(lambda: not is_connected(broker, deaf.name), "the deaf node to be dropped")
        # Nothing went out to it since before the other's last question: it was full then, and
        # not for want of room in its window.
        assert 0 < sent_to_deaf() == seen < WINDOW
        hearer.hear_another()
    assert "agent does not read and is dropped" in broker.log_text()
    heard: list[int] = []
    with deaf.streaming() as stream:
        while len(heard) < MANY:
            message = next_message(stream)
            heard.append(message.seq or 0)
            if len(heard) % 10 == 0:
                assert deaf.post(ack=heard[-1])[0] == 200
    assert heard == sorted(set(heard))
    assert waiting_for(broker, deaf.name) == []


# ----------------------------------------------------------------- folders that are not safe


def real_agent(
    broker: TrustingPenstock, home: Path, node: str, names: Sequence[str], **more: Any
) -> NodeAgent:
    """Return an agent with a certificate for each name, each in a folder of its own."""
    wanted = [
        Wanted(
            name=name,
            names=[f"{name}.{node}"],
            directory=home / "tls" / name,
            expects=broker.ca_bundle,
        )
        for name in names
    ]
    return NodeAgent(
        home / "agent",
        node,
        url=broker.agents_url,
        anchors=broker.ca_bundle,
        token=broker.mint([node])[node],
        wanted=wanted,
        **more,
    )


def newest(broker: TrustingPenstock, node: str, column: str) -> dict[str, str]:
    """Return a column of each certificate's newest delivery at a node."""
    statement = (
        f"SELECT m.name, d.{column} FROM deliveries d JOIN managed m USING (managed_id)"
        " JOIN nodes n ON n.node_id = d.node_id WHERE n.name = ? ORDER BY d.generation"
    )
    return dict(broker.rows(statement, node))


def ends_of(broker: TrustingPenstock, node: str) -> dict[str, str]:
    """Return how each certificate's newest delivery ended."""
    return newest(broker, node, "stage")


def notes(broker: TrustingPenstock, node: str) -> dict[str, str]:
    """Return what the node said at its end."""
    return newest(broker, node, "note")


def failures(broker: TrustingPenstock, node: str, certificate: str) -> list[dict[str, Any]]:
    """Return the events of a certificate's failed deliveries."""
    found = broker.events("delivery-failed")
    return [one for one in found if (one["node"], one["certificate"]) == (node, certificate)]


def served(folder: Path) -> bytes:
    """Return the chain in a folder, once key and chain have been seen to belong together."""
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    return chain.read_bytes()


def test_links_that_lead_elsewhere_are_refused_and_recorded(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """A symlink where a key goes and a folder that is one: the broker is told of each, nothing
    there changes, and the certificate beside them is renewed."""
    node, victim, tls = "linked.example.test", tmp_path / "victim", tmp_path / "tls"
    (tls / "link").mkdir(parents=True)
    victim.mkdir()
    (victim / "secret").write_text("the victim's own\n")
    (tls / "link" / "privkey.pem").symlink_to(victim / "secret")
    (tls / "folder").symlink_to(victim)
    with real_agent(broker, tmp_path, node, ["good", "link", "folder"], allowed=[tls]):
        wait_for(
            lambda: ends_of(broker, node) == {"good": "seen", "link": "failed", "folder": "failed"},
            "two to be refused, and one to be served",
        )
        for name in ("link", "folder"):
            event = failures(broker, node, name)[-1]
            assert event["why"] == notes(broker, node)[name]
        assert "privkey.pem" in notes(broker, node)["link"]
        assert [one.name for one in victim.iterdir()] == ["secret"]
        assert (victim / "secret").read_text() == "the victim's own\n"
        before = served(tls / "good")
        broker.json("renew", f"good.{node}")
        assert served(tls / "good") != before
        (tls / "link" / "privkey.pem").unlink()
        broker.json("renew", f"link.{node}")
        served(tls / "link")


REFUSED_FOLDER: Final = "is in none of the folders of node.allowed"


def test_folder_that_is_not_allowed_is_refused_and_the_others_go_on(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """Its configuration is not taken, by an agent that runs or that starts; what is served stays,
    and is renewed."""
    node, tls = "outside.example.test", tmp_path / "tls"
    with real_agent(broker, tmp_path, node, ["good"], allowed=[tls]) as agent:
        wait_for(lambda: ends_of(broker, node) == {"good": "seen"}, "the first one")
        before, good = served(tls / "good"), agent.config.read_text("utf-8")
        agent.config.write_text(good.replace(f'"{tls}/good"', f'"{tls}-other/good"'), "utf-8")
        os.kill(agent.pid, signal.SIGHUP)
        wait_for(
            lambda: "penstock_agent_config_last_reload_successful 0" in agent.metrics(),
            "the configuration to be refused",
        )
        wait_for(lambda: REFUSED_FOLDER in agent.log_text(), "it to say why")
        command = [*agent.program(), "run", "--config", str(agent.config)]
        second = subprocess.run(
            command, env=agent.environment(), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert REFUSED_FOLDER in second.stderr
        broker.json("renew", node)
        assert served(tls / "good") != before
    assert not Path(f"{tls}-other").exists()


# --------------------------------------------------------------------------- a disk that is full

SMALL_DISK: Final = "64k"
"""Of a folder of its own: room for eight pairs of a page for each file."""


def test_disk_that_is_full_half_way_leaves_the_old_pair_and_is_recorded(
    broker: TrustingPenstock, tmp_path: Path
) -> None:
    """There is room for the first of two files: the broker is told why, and once there is room
    again the next one comes."""
    node, folder = "full.example.test", tmp_path / "tls" / "www"
    agent = real_agent(broker, tmp_path, node, ["www"])
    words = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    agent.prefix = (
        *("unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c"),
        f'{shlex.join(words)} && exec "$@"',
        "sh",
    )
    with agent:
        disk = Path(f"/proc/{agent.pid}/root{folder}")
        wait_for(lambda: ends_of(broker, node) == {"www": "seen"}, "the first one")
        before = served(disk)
        fill(disk)
        broker.run("renew", node, status=1)
        assert ends_of(broker, node) == {"www": "failed"}
        assert "No space left on device" in notes(broker, node)["www"]
        assert failures(broker, node, "www")[-1]["why"] == notes(broker, node)["www"]
        assert served(disk) == before
        (disk / BALLAST).unlink()
        broker.json("renew", node)
        assert served(disk) != before


BALLAST: Final = "ballast"

PAGE_BYTES: Final = 4096
"""What a file takes at the least on such a disk, in bytes."""


def fill(disk: Path) -> None:
    """Leave room for one file of a page."""
    with (disk / BALLAST).open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * PAGE_BYTES)
        file.truncate(file.tell() - PAGE_BYTES)
