"""One broker of the demonstration: files in a directory of its own, a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp

from broker.demo.processes import DemoFailed, run_program

__all__ = ["NODE_CA", "Instance", "Ports"]

NODE_CA: Final = "nodes"
"""The built-in CA that certifies nodes to the broker."""

START_TIME: Final = timedelta(minutes=2)
"""Longest wait for a broker to say that it is ready; on an idle core it takes about a second."""

STOP_TIME: Final = timedelta(seconds=20)
"""Longest wait after SIGTERM; the broker itself gives its clients 15 s."""

COMMAND_TIME: Final = timedelta(minutes=2)
"""Longest run of a command; on an idle core it takes about a second."""

LOOK_AGAIN_SECONDS: Final = 0.05
"""Pause between looks at a broker that is starting, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The loopback ports of one broker."""

    acme: int
    plain: int
    health: int
    agents: int | None = None
    """None for a broker that serves no nodes."""


@dataclass(slots=True, kw_only=True)
class Instance:
    """A broker with its files in *directory*."""

    name: str
    directory: Path
    ports: Ports
    validation_port: int
    """Where this broker looks for http-01 answers."""
    hosts: Mapping[str, Sequence[str]]
    upstreams: Mapping[str, Mapping[str, Any]]
    """Upstreams beside the built-in CA ``local``, first choice first."""
    names: Sequence[str]
    cap: str
    nodes: Sequence[str] = ()
    """Patterns of the names of nodes whose orders are trusted for *names*."""
    _process: asyncio.subprocess.Process | None = field(default=None)

    @property
    def config(self) -> Path:
        """Return where the configuration lies."""
        return self.directory / "penstock.yaml"

    @property
    def root_file(self) -> Path:
        """Return where the built-in CA's root is copied to, for clients to trust."""
        return self.directory / "root.pem"

    @property
    def external_url(self) -> str:
        """Return the URL that clients use."""
        return f"https://127.0.0.1:{self.ports.acme}"

    @property
    def directory_url(self) -> str:
        """Return the ACME directory."""
        return f"{self.external_url}/acme/directory"

    @property
    def agents_url(self) -> str:
        """Return the URL that agents use."""
        return f"https://127.0.0.1:{self.ports.agents}"

    @property
    def log_file(self) -> Path:
        """Return where the broker's log goes."""
        return self.directory / "penstock.log"

    def write(self) -> None:
        """Write configuration, policy and the key passphrase."""
        policies = self.directory / "policies"
        policies.mkdir(mode=0o700, parents=True)
        passphrase = self.directory / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(32), "ascii")
        self.config.write_text(json.dumps(self._config(passphrase, policies), indent=2), "utf-8")
        (policies / "default.yaml").write_text(json.dumps(self._policy(), indent=2), "utf-8")

    def _config(self, passphrase: Path, policies: Path) -> dict[str, Any]:
        config = self._without_nodes(passphrase, policies)
        if self.ports.agents is not None:
            config["listen"]["agents"] = {"address": f"127.0.0.1:{self.ports.agents}"}
            config["agents"] = {"identity": {"upstream": NODE_CA}}
            config["upstreams"][NODE_CA] = {
                "kind": "built-in",
                "base_url": f"http://127.0.0.1:{self.ports.plain}",
                "profiles": {
                    "node": {"usages": ["client-auth"], "lifetime": "7d", "max_lifetime": "30d"}
                },
            }
        return config

    def _without_nodes(self, passphrase: Path, policies: Path) -> dict[str, Any]:
        return {
            "apiVersion": "penstock.dev/v1",
            "kind": "Broker",
            "external_url": self.external_url,
            "state": str(self.directory / "state"),
            "policies": [str(policies)],
            "listen": {
                "acme": {"address": f"127.0.0.1:{self.ports.acme}", "from": "local"},
                "plain": {"address": f"127.0.0.1:{self.ports.plain}"},
                "health": {"address": f"127.0.0.1:{self.ports.health}"},
            },
            "keys": {"passphrase": f"file:{passphrase}"},
            "communities": {
                "default": {
                    "validation": {
                        "http_port": self.validation_port,
                        "hosts": {name: list(found) for name, found in self.hosts.items()},
                        "networks": {"allow": ["127.0.0.0/8"]},
                    }
                }
            },
            "upstreams": {
                **self.upstreams,
                "local": {
                    "kind": "built-in",
                    "base_url": f"http://127.0.0.1:{self.ports.plain}",
                    "profiles": {
                        "server": {
                            "usages": ["server-auth"],
                            "lifetime": "30d",
                            "max_lifetime": "90d",
                        }
                    },
                },
            },
        }

    def _policy(self) -> dict[str, Any]:
        chosen = next(iter(self.upstreams), "local")
        return {
            "apiVersion": "penstock.dev/v1",
            "kind": "Policy",
            "community": "default",
            "names": {"allow": list(self.names), "wildcards": False},
            "challenges": ["http-01"],
            "keys": {"allow": ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]},
            "cap": "90d",
            "profiles": {
                "server": {
                    "description": "TLS servers of the demonstration",
                    "cap": self.cap,
                    "usages": ["server-auth"],
                    "upstreams": [{"upstream": chosen}],
                }
            },
            "default_profile": "server",
            "trusted": [
                {
                    "nodes": list(self.nodes),
                    "names": list(self.names),
                    "profiles": ["server"],
                    "because": "nodes of the demonstration",
                }
            ]
            if self.nodes
            else [],
        }

    async def command(self, *arguments: str) -> str:
        """Run a penstock command against this broker and return its standard output."""
        return await run_program(
            f"penstock {' '.join(arguments)}",
            [*_penstock(), *arguments, "--config", str(self.config)],
            limit=COMMAND_TIME,
        )

    async def json(self, *arguments: str) -> Any:
        """Run a penstock command with ``--json`` and return what it printed."""
        return json.loads(await self.command(*arguments, "--json"))

    async def start(self) -> None:
        """Start the broker and return once it is ready."""
        with self.log_file.open("ab") as log:
            # In a session of its own: Ctrl-C is for us, who then stop it in good order.
            self._process = await asyncio.create_subprocess_exec(
                *_penstock(),
                "serve",
                "--config",
                str(self.config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_TIME.total_seconds()):
                await self._until_ready(self._process)
        except TimeoutError:
            raise DemoFailed(
                f"{self.name} was not ready within {START_TIME.total_seconds():g} s; "
                f"its log: {self.log_file}"
            ) from None

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        url = f"http://127.0.0.1:{self.ports.health}/readyz"
        async with aiohttp.ClientSession() as session:
            while process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                # A foreign process tells nobody when its port opens; it can only be asked again.
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        raise DemoFailed(f"{self.name} ended at its start; its log: {self.log_file}")

    async def stop(self) -> None:
        """Stop the broker and wait for its end."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIME.total_seconds()):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _penstock() -> list[str]:
    # -P: nothing that lies where the demonstration was started is taken for the product.
    return [sys.executable, "-P", "-m", "broker"]
