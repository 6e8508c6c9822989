"""The node of the demonstration: an agent and a TLS server, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from broker.demo.instance import Instance
from broker.demo.processes import DemoFailed, loopback_environment, run_program
from broker.demo.serving import Seen, look

__all__ = ["CERTIFICATE", "NODE", "NODE_NAME", "Node", "NodeFacts", "play_node"]

NODE: Final = "mail-01.demo.internal"
"""What the node is called."""

NODE_NAME: Final = "mail.demo.internal"
"""The name that its certificate is for."""

CERTIFICATE: Final = "mail"
"""What the node's own file calls that certificate."""

SERVED_TIME: Final = timedelta(seconds=60)
"""Longest wait for a certificate to be served; on an idle core it takes two seconds."""

LOOK_AGAIN_SECONDS: Final = 0.1
"""Pause between looks at the server, in seconds."""

STOP_SECONDS: Final = 10
"""Longest wait for a process to end after SIGTERM, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What there is to tell of the node."""

    node: dict[str, Any]
    """``node show`` of the broker."""
    status: dict[str, Any]
    """``penstock-agent status`` on the node, in the end."""
    order: dict[str, Any]
    """The order of its first certificate, at the broker."""
    first: Seen
    second: Seen
    key_mode: int
    """Of the file that holds the key."""
    seconds: float
    """From the renewal to the server that serves it."""


@dataclass(slots=True, kw_only=True)
class Node:
    """The files and processes of the node."""

    directory: Path
    broker: Instance
    root: Path
    """PEM file of what its certificate has to chain to."""
    server_port: int

    @property
    def pair(self) -> Path:
        """Return the folder that the server reads its pair from."""
        return self.directory / "tls"

    @property
    def config(self) -> Path:
        """Return the agent's configuration."""
        return self.directory / "agent.toml"

    @property
    def pid_file(self) -> Path:
        """Return where the server tells its process id."""
        return self.directory / "server.pid"

    def write(self, token: str) -> None:
        """Write what an operator would write: one file, and the join token beside it."""
        self.pair.mkdir(mode=0o700, parents=True)
        secret = self.directory / "join-token"
        secret.touch(mode=0o600)
        secret.write_text(token, "ascii")
        self.config.write_text(self._config(secret), "utf-8")

    def _config(self, token: Path) -> str:
        return f"""\
[node]
name = "{NODE}"
state = "{self.directory / "state"}"
allowed = ["{self.pair}"]
metrics = ""

[broker]
url = "{self.broker.agents_url}"
anchors = "{self.broker.root_file}"

[enrol]
method = "token"
credential = "file:{token}"

[[certificate]]
name = "{CERTIFICATE}"
names = ["{NODE_NAME}"]

[certificate.files]
directory = "{self.pair}"

[certificate.reload]
signal = "HUP"
process = "{Path(sys.executable).resolve()}"
pid_file = "{self.pid_file}"

[certificate.look]
connect = "127.0.0.1:{self.server_port}"

[certificate.expects]
anchors = "{self.root}"
longest = "30d"
"""

    async def status(self) -> dict[str, Any]:
        """Return what ``penstock-agent status`` tells."""
        told = await run_program(
            "penstock-agent status",
            [*_agent(), "status", "--json", "--config", str(self.config)],
            limit=timedelta(seconds=30),
            environment=loopback_environment(),
        )
        found: dict[str, Any] = json.loads(told)
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the server and the agent, and stop both."""
        server = [
            *(sys.executable, "-I", str(Path(__file__).with_name("tls_server.py"))),
            *(str(self.pair), str(self.server_port), str(self.pid_file)),
        ]
        agent = [*_agent(), "run", "--config", str(self.config)]
        async with (
            _process(server, self.directory / "server.log"),
            _process(agent, self.directory / "agent.log"),
        ):
            yield

    async def served(self, before: str | None = None) -> Seen:
        """Return what the server serves, once it is something else than *before*.

        Raises:
            DemoFailed: It did not come to that.
        """
        context = ssl.create_default_context(cafile=str(self.root))
        try:
            async with asyncio.timeout(SERVED_TIME.total_seconds()):
                while True:
                    with suppress(OSError):
                        seen = await look(NODE_NAME, self.server_port, context)
                        if seen.fingerprint != before:
                            return seen
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
        except TimeoutError:
            limit, log_file = SERVED_TIME.total_seconds(), self.directory / "agent.log"
            raise DemoFailed(
                f"the node's server did not serve its certificate within {limit:g} s; "
                f"the agent's log: {log_file}"
            ) from None


async def play_node(node: Node) -> NodeFacts:
    """Let the node in, see its certificate served, renew it, see the new one served."""
    broker, loop = node.broker, asyncio.get_running_loop()
    minted = await broker.json(
        "node", "token", "--node", NODE, "--owner", "Mail", "--reason", "demonstration"
    )
    node.write(minted["token"])
    async with node.running():
        first = await node.served()
        began = loop.time()
        await broker.command(*RENEW, "--reason", "demonstration")
        second = await node.served(first.fingerprint)
        seconds = loop.time() - began
        orders, shown, status = await asyncio.gather(
            broker.json("order", "list"), broker.json("node", "show", NODE), node.status()
        )
        mine = [one for one in orders if NODE_NAME in one["names"]]
        return NodeFacts(
            node=shown,
            status=status,
            order=await broker.json("order", "show", mine[-1]["order"]),
            first=first,
            second=second,
            key_mode=(node.pair / "privkey.pem").stat().st_mode & 0o777,
            seconds=seconds,
        )


RENEW: Final = ("renew", NODE, "--wait", "30")
"""The command that renews the node's certificate now, and follows it until it is seen."""


def _agent() -> Sequence[str]:
    return [sys.executable, "-P", "-m", "agents.cli"]


@asynccontextmanager
async def _process(command: Sequence[str], log_file: Path) -> AsyncIterator[None]:
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=loopback_environment(),
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
