"""A real agent, as a process of its own, before a stand-in for its broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import wire
from agents.run import TICK_SECONDS
from agents.state import State
from tests.deployments.node_agents import NodeAgent, Wanted
from tests.fakes.stand_in_broker import StandInBroker

pytestmark = pytest.mark.e2e

SECONDS = 30.0
"""Longest wait for what comes at once, in seconds."""


class Host:
    """A broker, and an agent with one certificate."""

    def __init__(
        self,
        tmp_path: Path,
        broker: StandInBroker,
        *,
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.broker = broker
        self.directory = tmp_path / "www"
        wanted = Wanted(
            name="www",
            names=["www.example.test"],
            directory=self.directory,
            expects=broker.ca_anchors,
            more=more,
        )
        self.agent = NodeAgent(
            tmp_path / "agent",
            "web.example.test",
            url=broker.url,
            anchors=broker.anchors,
            token="join",
            wanted=[wanted],
            environment=environment,
        )

    async def start(self) -> None:
        """Start the agent."""
        await asyncio.to_thread(self.agent.start)

    async def stop(self) -> None:
        """Stop it."""
        await asyncio.to_thread(self.agent.stop)

    def pid(self) -> int:
        """Return its process id, as it tells it itself."""
        found = State(str(self.agent.state)).holder()
        assert found is not None
        return found

    async def csr(self, delivery: str, *, names: Sequence[str] = ("www.example.test",)) -> bytes:
        """Ask for a CSR and return it."""
        wish = {
            "delivery": delivery,
            "certificate": "www",
            "names": list(names),
            "key_kind": "ec-p256",
            "is_new_key": True,
        }
        await self.broker.send("want-csr", wish)
        told = await self.broker.hear("csr", where=lambda one: one.body["delivery"] == delivery)
        return wire.decode_bytes(str(told[0].body["csr_der"]), "csr_der")

    async def send(
        self, delivery: str, generation: int, chain: tuple[str, str], **more: Any
    ) -> int:
        """Send a certificate."""
        body = {
            "delivery": delivery,
            "certificate": "www",
            "generation": generation,
            "chain_pem": chain[0],
            "spki_sha256": chain[1],
            "longest_seconds": 0,
            "keep_previous_seconds": 0,
            **more,
        }
        return await self.broker.send("certificate", body)

    async def end(self, delivery: str) -> dict[str, Any]:
        """Wait for the end of a delivery and return what was told of it."""
        ends = {"seen", "refused", "failed", "restored"}
        told = await self.broker.hear(
            "receipt",
            where=lambda m: m.body["delivery"] == delivery and m.body["stage"] in ends,
        )
        return dict(told[-1].body)

    async def deliver(self, delivery: str, generation: int) -> dict[str, Any]:
        """Have a certificate delivered and return how it ended."""
        csr = await self.csr(delivery)
        await self.send(delivery, generation, self.broker.issue(csr, ["www.example.test"]))
        return await self.end(delivery)

    def stages(self, delivery: str) -> list[str]:
        """Return the stages that were told of a delivery."""
        told = self.broker.heard("receipt")
        return [str(m.body["stage"]) for m in told if m.body["delivery"] == delivery]

    def pair(self) -> bytes:
        """Return the chain in place, once key and chain have been seen to belong together."""
        chain, key = self.directory / "fullchain.pem", self.directory / "privkey.pem"
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        return chain.read_bytes()

    def see_metric(self, line: str) -> None:
        """Wait until it tells so; raises TimeoutError."""
        until = time.monotonic() + SECONDS
        while line not in self.agent.metrics():
            if time.monotonic() > until:
                raise TimeoutError(line)
            time.sleep(0.02)

    def memory(self) -> dict[str, int]:
        """Return what the kernel says of its memory, in KiB."""
        rollup = Path(f"/proc/{self.pid()}/smaps_rollup").read_text()
        return {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the agent on its configuration."""
        return subprocess.run(
            [*self.agent.program(), words[0], "--config", str(self.agent.config), *words[1:]],
            env=self.agent.environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path,
    *,
    more: str = "",
    environment: Mapping[str, str] | None = None,
    **broker: Any,
) -> AsyncIterator[Host]:
    """Yield a host whose agent runs."""
    async with StandInBroker(tmp_path / "broker", **broker) as made:
        host = Host(tmp_path, made, more=more, environment=environment)
        await host.start()
        try:
            yield host
        finally:
            await host.stop()


async def test_a_certificate_comes_to_be_in_its_place(tmp_path: Path) -> None:
    """Enrolled, stated, asked, installed, told; and a second one takes its place."""
    async with serving(tmp_path) as host:
        (stated,) = await host.broker.hear("stated")
        assert stated.body["certificates"][0]["name"] == "www"
        assert host.command("ready").returncode == 1
        assert (await host.deliver("d1", 1))["stage"] == "seen"
        assert host.stages("d1") == ["checked", "installed", "reloaded", "seen"]
        first = host.pair()
        assert host.command("ready").returncode == 0
        assert (await host.deliver("d2", 2))["stage"] == "seen"
        assert host.pair() != first
        assert "penstock_agent_ready 1" in await asyncio.to_thread(host.agent.metrics)


async def test_what_the_node_does_not_expect_is_refused_and_leaves_the_old_one(
    tmp_path: Path,
) -> None:
    """Another key, other names, another issuer, too long a life, its time over, an older one."""
    async with serving(tmp_path) as host:
        await host.deliver("d0", 2)
        before = host.pair()
        broker, names = host.broker, ["www.example.test"]
        csr = await host.csr("d1")
        right = broker.issue(csr, names)
        foreign = broker.issue(None, names)
        wrong: dict[str, tuple[int, tuple[str, str], dict[str, Any]]] = {
            "another-key": (3, (foreign[0], right[1]), {}),
            "a-key-of-nobody": (3, foreign, {}),
            "other-names": (3, broker.issue(csr, [*names, "admin.example.test"]), {}),
            "too-long": (3, right, {"longest_seconds": 3_600}),
            "no-pem": (3, ("../../etc/shadow", right[1]), {}),
            "older": (1, right, {}),
        }
        for delivery, (generation, chain, more) in wrong.items():
            await host.send(delivery, generation, chain, **more)
            assert (await host.end(delivery))["stage"] == "refused", delivery
            assert host.stages(delivery) == ["refused"], delivery
        assert host.pair() == before
        await host.send("d1", 3, right)
        assert (await host.end("d1"))["stage"] == "seen"


async def test_a_reload_that_fails_puts_the_old_one_back(tmp_path: Path) -> None:
    """And the server is reloaded with it."""
    switch = tmp_path / "fails"
    script = tmp_path / "reload.sh"
    script.write_text(f"#!/bin/sh\necho x >> {tmp_path}/reloads\ntest ! -e {switch}\n")
    script.chmod(0o755)
    more = f'[certificate.reload]\ncommand = ["{script}"]\n'
    async with serving(tmp_path, more=more) as host:
        assert (await host.deliver("d1", 1))["stage"] == "seen"
        before = host.pair()
        switch.touch()
        assert (await host.deliver("d2", 2))["stage"] == "restored"
        assert host.pair() == before
        switch.unlink()
        assert (await host.deliver("d3", 3))["stage"] == "seen"


@pytest.mark.parametrize("moment", ["at-the-csr", "at-the-reload"])
async def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, moment: str) -> None:
    """What was acknowledged goes on by itself; the broker sends nothing twice."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = tmp_path / "reload.sh"
    script.write_text(f"#!/bin/sh\ntest -e {tmp_path}/open || read x < {gate}\n")
    script.chmod(0o755)
    more = f'[certificate.reload]\ncommand = ["{script}"]\n'
    async with serving(tmp_path, more=more) as host:
        await host.broker.hear("stated")
        if moment == "at-the-csr":
            os.kill(host.pid(), signal.SIGKILL)
            wish = asyncio.ensure_future(host.csr("d1"))
        else:
            csr = await host.csr("d1")
            seq = await host.send("d1", 1, host.broker.issue(csr, ["www.example.test"]))
            await host.broker.hear("receipt", where=lambda m: m.body["stage"] == "installed")
            await host.broker.acknowledged(seq)
            os.kill(host.pid(), signal.SIGKILL)
        (tmp_path / "open").touch()
        let_go(gate)
        await asyncio.to_thread(host.agent.stop)
        await host.start()
        if moment == "at-the-csr":
            await host.send("d1", 1, host.broker.issue(await wish, ["www.example.test"]))
        assert (await host.end("d1"))["stage"] == "seen"
        host.pair()


def let_go(gate: Path) -> None:
    """Let the program go that waits at *gate*: its agent was killed, and nobody else ends it."""
    with contextlib.suppress(OSError):
        writer = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"\n")
        os.close(writer)


async def test_it_serves_on_and_comes_back_when_the_broker_was_away(tmp_path: Path) -> None:
    """What it has to tell waits until then."""
    async with serving(tmp_path) as host:
        await host.deliver("d1", 1)
        before = host.pair()
        await host.broker.stop()
        assert host.command("ready").returncode == 0
        host.broker.batches.clear()
        await host.broker.start()
        await host.broker.hear("stated")
        assert host.pair() == before
        assert (await host.deliver("d2", 2))["stage"] == "seen"


@pytest.mark.parametrize("path", ["enrol", "stream", "messages"])
async def test_it_comes_again_when_the_broker_says(tmp_path: Path, path: str) -> None:
    """Not before: a broker that limits is left in peace for as long as it asks."""
    async with StandInBroker(tmp_path / "broker") as broker:
        host = Host(tmp_path, broker)
        broker.put_off[wire.PATHS[path]] = 3
        await host.start()
        try:
            await broker.hear("stated", seconds=SECONDS)
        finally:
            await host.stop()
        first, second, *_ = [at for asked, at in broker.asked if asked == wire.PATHS[path]]
        assert second - first >= 3


async def test_service_manager_sees_at_once_how_it_stands(tmp_path: Path) -> None:
    """That it is connected, and that the broker is away, without waiting for the next look."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(SECONDS)

        def expect(told: bytes) -> None:
            while not manager.recv(4096).startswith(told):
                pass

        async with serving(tmp_path, environment={"NOTIFY_SOCKET": str(path)}) as host:
            begun = time.monotonic()
            await asyncio.to_thread(expect, b"STATUS=connected")
            await host.broker.stop()
            await asyncio.to_thread(expect, b"STATUS=the broker is away: ")
            assert time.monotonic() - begun < TICK_SECONDS / 2
            await host.broker.start()
            await asyncio.to_thread(expect, b"STATUS=connected")


async def test_a_configuration_is_read_anew_and_a_bad_one_is_not(tmp_path: Path) -> None:
    """At SIGHUP: the good one stays in use until there is another good one."""
    async with serving(tmp_path) as host:
        await host.broker.hear("stated")
        good = host.agent.config.read_text()
        host.agent.config.write_text("[node]\n")
        os.kill(host.pid(), signal.SIGHUP)
        await asyncio.to_thread(host.see_metric, "config_last_reload_successful 0")
        assert (await host.deliver("d1", 1))["stage"] == "seen"
        more = good.replace('name = "www"', 'name = "mail"').replace("www.", "mail.")
        folder = host.agent.config.parent / "agent.d"
        folder.mkdir()
        section = more[more.index("[[certificate]]") :].replace("/www", "/www/mail")
        (folder / "mail.toml").write_text(section)
        host.agent.config.write_text(good)
        os.kill(host.pid(), signal.SIGHUP)
        stated = await host.broker.hear("stated", where=lambda m: len(m.body["certificates"]) == 2)
        assert stated[0].body["certificates"][1]["name"] == "mail"


async def test_an_identity_is_renewed_when_the_broker_asks(tmp_path: Path) -> None:
    """And the channel goes on."""
    async with serving(tmp_path) as host:
        await host.broker.hear("stated")
        path = host.agent.state / "identity" / "identity.json"
        before = json.loads(path.read_text())
        await host.broker.send("renew-identity", {})
        await host.broker.hear("stated", number=2)
        after = json.loads(path.read_text())
        assert after["fingerprint"] != before["fingerprint"]
        assert after["key"] == before["key"]
        assert (await host.deliver("d1", 1))["stage"] == "seen"


async def test_once_ends_when_all_is_in_place(tmp_path: Path) -> None:
    """With 0; for an init container, and with 1 where nothing comes in time."""
    async with StandInBroker(tmp_path / "broker") as broker:
        host = Host(tmp_path, broker)
        host.agent.write()
        command = [*host.agent.program(), "once", "--config", str(host.agent.config), "--timeout"]
        for timeout, code in (("1", 1), ("30", 0)):
            running = await asyncio.create_subprocess_exec(
                *command, timeout, env=host.agent.environment(), stderr=subprocess.DEVNULL
            )
            if code == 0:
                assert (await host.deliver("d1", 1))["stage"] == "seen"
            assert await running.wait() == code


async def test_an_agent_that_waits_is_small(tmp_path: Path) -> None:
    """Under 24 MiB resident and 12 of its own, with its stream open."""
    async with serving(tmp_path) as host:
        await host.deliver("d1", 1)
        await host.stop()
        await host.start()
        await host.broker.hear("stated", number=2)
        sizes = host.memory()
        assert sizes["Rss"] < 24 * 1024, sizes
        assert sizes["Private_Dirty"] < 12 * 1024, sizes


def test_it_imports_no_library() -> None:
    """What waits beside a server is the standard library and ourselves."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); import agents.run; "
        "print(*(m for m in sys.modules if m.partition('.')[0] not in sys.stdlib_module_names))"
    )
    home = str(Path(wire.__file__).resolve().parents[1])
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, home], capture_output=True, text=True, check=True
    )
    assert {name.partition(".")[0] for name in found.stdout.split()} <= {"agents", "__main__"}
