"""A configuration that changes under a broker at work: taken whole in the same process, or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from broker.app.config_watch import REST
from tests.deployments.following import TAKEN_SECONDS, FollowingPenstock
from tests.deployments.node_agents import NodeAgent, Wanted
from tests.e2e.scene import Scene
from tests.e2e.survivor import Survivor
from tests.fakes.hostile_ca import Fault, Resource, Script
from tests.peers import process

pytestmark = pytest.mark.e2e

QUIET_SECONDS: Final = 9.0
"""How long nothing may happen for a change that is none: longer than one is noticed after."""

PATIENCE_SECONDS: Final = 120.0
"""Longest that a client waits for its answer while a turn ends and the next begins."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FollowingPenstock]:
    """A broker that follows its file."""
    home = tmp_path_factory.mktemp("follow") / "b"
    home.mkdir()
    with FollowingPenstock(home) as made:
        yield made


@pytest.fixture
def broker(running: FollowingPenstock) -> Iterator[FollowingPenstock]:
    """The broker, put back to its first configuration after the test."""
    yield running
    running.wait_taken(running.change())
    running.wait_agreed()


@dataclass
class Asking:
    """A client that comes anew for each request, again and again."""

    broker: FollowingPenstock
    answers: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """Ask once, by a connection of its own."""
        context = ssl.create_default_context(cafile=str(self.broker.ca_bundle))
        port, begun = self.broker.port, time.monotonic()
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                connection.sendall(
                    b"GET /acme/directory HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                )
                said = connection.recv(64)
        except OSError as error:
            self.failures.append(str(error))
            return
        self.longest = max(self.longest, time.monotonic() - begun)
        if not said.startswith(b"HTTP/1.1 200"):
            self.failures.append(said.decode())
        self.answers += 1


@contextlib.contextmanager
def asking(broker: FollowingPenstock) -> Iterator[Asking]:
    """Ask for the directory again and again while the block runs."""
    made, is_over = Asking(broker), threading.Event()

    def ask() -> None:
        while not is_over.wait(process.POLL_SECONDS):
            made.ask()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield made
    finally:
        is_over.set()
        thread.join()


def with_lab(broker: FollowingPenstock) -> dict[str, Any]:
    """Return what another community takes in the configuration, having written its policy."""
    policy = {**broker.policy_document(), "community": "lab"}
    (broker.policy_file.parent / "lab.yaml").write_text(json.dumps(policy))
    document = broker.config_document()
    upstreams = document["upstreams"]
    upstreams["local"]["communities"] = ["default", "lab"]
    communities = {**document["communities"], "lab": document["communities"]["default"]}
    return {"communities": communities, "upstreams": upstreams}


# ------------------------------------------------------------------------------- good changes


def test_swapped_config_map_is_served_by_the_same_process(broker: FollowingPenstock) -> None:
    """Another community is there, and whoever came meanwhile was answered."""
    url = f"{broker.external_url}/acme/lab/directory"
    anchors = str(broker.ca_bundle)
    assert not process.is_answering(url, anchors)
    pid, turns = broker.pid, broker.turns()
    with asking(broker) as client:
        broker.wait_taken(broker.change(**with_lab(broker)))
    assert process.is_answering(url, anchors)
    assert broker.pid == pid
    assert broker.turns() == turns + 1
    assert client.failures == []
    assert client.answers > 0
    assert "configuration" not in broker.readyz()
    taken = broker.events("configuration-taken")[-1]
    assert taken["sha256"] == broker.config_status()["sha256"]


def test_storm_of_changes_ends_in_the_last(broker: FollowingPenstock) -> None:
    """Twenty in a few seconds are one or two turns."""
    turns, begun = broker.turns(), time.monotonic()
    with asking(broker) as client:
        for number in range(20):
            digest = broker.change(limits={"body": f"{64 + number}KiB"})
            time.sleep(0.1)
        broker.wait_taken(digest)
    assert client.failures == []
    # Each is left in peace for its first seconds, however long twenty changes take here.
    most = 2 + (time.monotonic() - begun) / REST.total_seconds()
    assert 1 <= broker.turns() - turns <= most
    assert broker.config_status()["refused"] is None


def test_unchanged_file_begins_no_turn(broker: FollowingPenstock) -> None:
    """Touched, swapped for the same, given a comment or another person; the twin begins one."""
    document = broker.config_document()
    text = json.dumps(document, indent=1)
    broker.wait_taken(broker.change())
    turns = broker.turns()
    os.utime(broker.config)
    broker.swap(text)
    broker.swap(f"# nothing\n{text}")
    time.sleep(QUIET_SECONDS)
    people = {"people": {"jane": {"users": ["jdoe"], "roles": {"default": ["approver"]}}}}
    broker.wait_taken(broker.change(operators=people))
    assert broker.turns() == turns
    broker.wait_taken(broker.change(log={"level": "debug"}))
    assert broker.turns() == turns + 1


def test_port_can_be_changed(broker: FollowingPenstock) -> None:
    """The one before is closed, the others are open all the time."""
    other = process.free_port()
    listen = {**broker.config_document()["listen"], "plain": {"address": f"127.0.0.1:{other}"}}
    with asking(broker) as client:
        broker.wait_taken(broker.change(listen=listen))
    assert process.is_listening(other)
    assert not process.is_listening(broker.plain_port)
    assert client.failures == []


# ----------------------------------------------------------------------------- broken changes


@dataclass(frozen=True)
class Breakage:
    """A way to break a configuration, and what is said about it."""

    name: str
    do: Callable[[FollowingPenstock], object]
    words: str


def changed(**members: Any) -> Callable[[FollowingPenstock], object]:
    """Return what changes members of the configuration."""
    return lambda broker: broker.change(**members)


def listening(**members: Any) -> Callable[[FollowingPenstock], object]:
    """Return what changes the ACME listener."""

    def do(broker: FollowingPenstock) -> None:
        listen = broker.config_document()["listen"]
        broker.change(listen={**listen, "acme": {**listen["acme"], **members}})

    return do


def without_policy(broker: FollowingPenstock) -> None:
    """Name a community that has no policy."""
    members = with_lab(broker)
    (broker.policy_file.parent / "lab.yaml").unlink()
    broker.change(**members)


def new_ca(broker: FollowingPenstock) -> None:
    """Have the listener's certificate come from a CA that was never made."""
    document = broker.config_document()
    upstreams = {**document["upstreams"], "fresh": document["upstreams"]["local"]}
    listen = document["listen"]
    listen["acme"]["from"] = "fresh"
    broker.change(upstreams=upstreams, listen=listen)


def gone(broker: FollowingPenstock) -> None:
    """Have the link lead to nothing, as where the key of a ConfigMap is renamed."""
    (broker.config.parent / "..data" / "penstock.yaml").unlink()


BREAKAGES: Final = (
    Breakage("empty", lambda broker: broker.swap(""), "the file is empty"),
    Breakage("no YAML", lambda broker: broker.swap("a: [1, 2\nb"), "is not YAML"),
    Breakage("unknown key", changed(colour="red"), "colour"),
    Breakage("no unit", changed(limits={"order_lifetime": 8}), "order_lifetime"),
    Breakage("another state", changed(state="/var/lib/other"), "another directory is another"),
    Breakage("no secret", changed(keys={"passphrase": "file:/nowhere"}), "cannot be read"),
    Breakage("no upstream", listening(**{"from": "locale"}), "no upstream is called 'locale'"),
    Breakage("a CA that is not there", new_ca, "built-in CA 'fresh' has not been made"),
    Breakage("no policy", without_policy, "community 'lab' has no policy"),
    Breakage("gone", gone, "cannot be read"),
)
"""Ways to break it, each at another stage of the judgement."""


def test_broken_files_change_nothing_but_what_is_told(broker: FollowingPenstock) -> None:
    """Each is told in its own words by the probe and by the status; nothing is ended for it."""
    first = broker.config_status()["sha256"]
    turns, wrong = broker.turns(), []
    for breakage in BREAKAGES:
        breakage.do(broker)
        told = broker.wait_refused(breakage.words)
        if not told.endswith("ok\n") or "[!] configuration file is refused since" not in told:
            wrong.append(f"{breakage.name}: {told}")
        status = broker.config_status()
        if status["sha256"] != first or breakage.words not in str(status["refused"]["faults"]):
            wrong.append(f"{breakage.name}: {status}")
        assert "penstock_config_refused 1.0" in broker.metrics()
    assert wrong == []
    assert broker.turns() == turns
    assert process.is_answering(broker.directory_url, str(broker.ca_bundle))
    broker.change()
    broker.wait_agreed()
    assert "penstock_config_refused 0.0" in broker.metrics()
    assert broker.turns() == turns


def test_one_that_does_not_start_is_left_again(broker: FollowingPenstock) -> None:
    """The one before serves on, in the same process, also after a crash."""
    pid, first = broker.pid, broker.config_status()["sha256"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        plain = {"address": f"127.0.0.1:{other.getsockname()[1]}"}
        listen = {**broker.config_document()["listen"], "plain": plain}
        with asking(broker) as client:
            digest = broker.change(listen=listen)
            broker.wait_refused("cannot listen at")
        status = broker.config_status()
        assert (status["sha256"], status["refused"]["sha256"]) == (first, digest)
        assert 'penstock_config_changes_total{outcome="failed"} 1.0' in broker.metrics()
        assert client.failures == []
        assert broker.pid == pid
        assert process.is_listening(broker.plain_port)
        broker.kill()
        broker.start()
        assert broker.config_status()["is_kept_one"] is True
        assert "cannot listen at" in broker.wait_refused("cannot listen at")
        assert "penstock_config_last_good 1.0" in broker.metrics()


def test_start_beside_a_broken_file_goes_on_with_what_served(broker: FollowingPenstock) -> None:
    """Where it is kept; where it is not, the start fails as ever."""
    first = broker.config_status()["sha256"]
    broker.kill()
    broker.swap("apiVersion: [\n")
    kept = broker.last_good.read_bytes()
    broker.last_good.unlink()
    with pytest.raises(process.PeerFailed, match="is not YAML"):
        broker.start()
    broker.last_good.write_bytes(kept)
    assert "no use, what served last is" in broker.run("prepare").stderr
    broker.start()
    assert "is not YAML" in broker.wait_refused("is not YAML")
    status = broker.config_status()
    assert (status["sha256"], status["is_kept_one"]) == (first, True)


# ----------------------------------------------------------------------- without --follow


def test_without_following_a_person_says_when(tmp_path: Path) -> None:
    """A file that is changed is nothing to the broker until SIGHUP; then it serves by it."""
    home = tmp_path / "b"
    home.mkdir()
    with FollowingPenstock(home, is_following=False) as broker:
        digest = broker.change(limits={"body": "100KiB"})
        time.sleep(QUIET_SECONDS)
        assert broker.turns() == 1
        pid = broker.pid
        os.kill(pid, signal.SIGHUP)
        broker.wait_taken(digest)
        assert (broker.pid, broker.turns()) == (pid, 2)
        broker.swap("a: [")
        os.kill(pid, signal.SIGHUP)
        broker.wait_refused("is not YAML")
        assert (broker.pid, broker.turns()) == (pid, 2)


# --------------------------------------------------------------------- those that are served


@pytest.mark.parametrize(
    "resource", [Resource.NEW_ORDER, Resource.FINALIZE, Resource.CERTIFICATE], ids=str
)
async def test_order_under_way_ends_with_one_certificate(
    resource: Resource, tmp_path: Path
) -> None:
    """The CA holds a request while the broker goes on by another configuration."""
    with Scene(tmp_path, Script(), limits={"finalize_wait": "1s"}) as scene:
        assert scene.ca is not None
        broker, pid = scene.broker, scene.broker.pid
        count = scene.ca.ledger().count(resource)
        hold = Fault.hanging(resource, processed=True)
        await asyncio.to_thread(scene.ca.set_script, Script(faults=[hold]))
        async with scene.client() as client:
            survivor = Survivor(client, *scene.names())
            work = asyncio.create_task(scene.obtain(survivor))
            await asyncio.to_thread(scene.ca.wait_seen, resource, count + 1)
            document = broker.config_document()
            broker.config.write_text(json.dumps({**document, "log": {"level": "debug"}}))
            os.kill(pid, signal.SIGHUP)
            await work
        assert "going on by another configuration" in broker.log_text()
        assert "Traceback" not in broker.log_text()
        assert broker.pid == pid
        assert "invalid" not in survivor.statuses
        assert scene.faults() == []


def test_agent_stays(tmp_path: Path) -> None:
    """It comes back by itself, and what it asks for next is installed."""
    home = tmp_path / "b"
    home.mkdir()
    with FollowingPenstock(home) as broker:
        wanted = [
            Wanted(
                name=name,
                names=[f"{name}.example.test"],
                directory=tmp_path / name,
                expects=broker.ca_bundle,
            )
            for name in ("first", "second")
        ]
        agent = NodeAgent(
            tmp_path / "agent",
            "node-1",
            url=broker.agents_url,
            anchors=broker.ca_bundle,
            token=broker.token("node-1"),
            wanted=wanted[:1],
        )
        with agent:
            process.wait_until(
                lambda: any((tmp_path / "first").glob("fullchain.pem")), TAKEN_SECONDS, "first"
            )
            pid = agent.pid
            broker.wait_taken(broker.change(limits={"body": "100KiB"}))
            agent.wanted = wanted
            agent.write()
            os.kill(pid, signal.SIGHUP)
            process.wait_until(
                lambda: any((tmp_path / "second").glob("fullchain.pem")), 60, "second"
            )
            assert agent.pid == pid
        issued = [row for row in broker.json("cert", "list") if "example.test" in str(row)]
        assert len(issued) == 2
