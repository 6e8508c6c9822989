"""A Penstock of its own, started the way an operator starts it, on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.deployments.command_player import CommandPlayer, shared_player
from tests.peers import process
from tests.peers.client import DnsUpdates

COMMAND_SECONDS: Final = 60.0
"""Longest run of a command; registering at a CA that rejects nonces needs under 3 s."""

REPOSITORY: Final = Path(__file__).resolve().parents[2]

NAMES: Final = ("**.example.test", "**.example.internal")
"""What the policy of a test community allows, by proof of control."""


@dataclass(frozen=True, kw_only=True)
class AcmeCa:
    """An ACME CA as configuration names it."""

    name: str
    directory_url: str
    ca_bundle: Path
    description: str = "generic"
    anchors: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    external_account: tuple[str, str] | None = None
    """(kid, MAC key base64url)."""
    http_01: bool = True
    dns_01: DnsUpdates | None = None
    dns_01_zone: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def document(self, directory: Path) -> dict[str, Any]:
        """Return the configuration of this upstream; secrets are written into *directory*."""
        solvers: list[dict[str, Any]] = []
        if self.dns_01 is not None:
            solvers.append(self._dns(directory, self.dns_01))
        if self.http_01:
            solvers.append({"challenge": "http-01"})
        document: dict[str, Any] = {
            "kind": "acme",
            "directory": self.directory_url,
            "description": self.description,
            "ca_bundle": str(self.ca_bundle),
            "solvers": solvers,
            **self.options,
        }
        if self.facts:
            document["facts"] = dict(self.facts)
        if self.anchors is not None:
            document["anchors"] = str(self.anchors)
        if self.external_account is not None:
            key_id, mac_key = self.external_account
            document["external_account_binding"] = {
                "key_id": key_id,
                "mac_key": secret(directory, f"{self.name}.mac", mac_key),
            }
        return document

    def _dns(self, directory: Path, updates: DnsUpdates) -> dict[str, Any]:
        rfc2136: dict[str, Any] = {
            "server": f"{updates.host}:{updates.port}",
            "tsig": {
                "name": updates.tsig_name,
                "algorithm": updates.tsig_algorithm,
                "secret": secret(directory, f"{self.name}.tsig", updates.tsig_secret_b64),
            },
        }
        if self.dns_01_zone is not None:
            rfc2136["zone"] = self.dns_01_zone
        return {"challenge": "dns-01", "rfc2136": rfc2136}


@dataclass(frozen=True, kw_only=True)
class BuiltInCa:
    """The built-in CA as configuration names it."""

    name: str = "local"
    lifetime: str = "47d"
    max_lifetime: str = "90d"
    options: Mapping[str, Any] = field(default_factory=dict)

    def document(self, plain_port: int) -> dict[str, Any]:
        """Return the configuration of this upstream."""
        return {
            "kind": "built-in",
            "base_url": f"http://127.0.0.1:{plain_port}",
            "profiles": {
                "server": {
                    "usages": ["server-auth"],
                    "lifetime": self.lifetime,
                    "max_lifetime": self.max_lifetime,
                }
            },
            **self.options,
        }


def secret(directory: Path, name: str, value: str) -> str:
    """Write a secret to a file only its owner reads, and return the reference to it."""
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(value, "ascii")
    return f"file:{path}"


class Penstock(process.Peer):
    """A broker with a configuration, a policy and a state directory inside *tmp*.

    The built-in CA ``local`` is always there: it gives the broker its own TLS certificate.
    """

    name = "penstock"

    def __init__(
        self,
        tmp: Path,
        *,
        validation_http_port: int,
        resolver: str | None = None,
        hosts: Mapping[str, Sequence[str]] | None = None,
        upstreams: Sequence[AcmeCa] = (),
        built_in: BuiltInCa | None = None,
        profiles: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        community: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        listen: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        plain_port: int | None = None,
        environment: Mapping[str, str] | None = None,
        is_registering: bool = True,
        more_policies: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(tmp)
        self._validation_http_port = validation_http_port
        self._resolver = resolver
        self._hosts = hosts or {}
        self._upstreams = tuple(upstreams)
        self._built_in = built_in or BuiltInCa()
        self._profiles = profiles
        self._policy = policy or {}
        self._community = community or {}
        self._validation = validation or {}
        self._limits = limits or {}
        self._listen = listen or {}
        self._more = more or {}
        self._environment = environment or {}
        self._is_registering = is_registering
        self._more_policies = tuple(more_policies)
        self.prefix: tuple[str, ...] = ()
        """What the command line is run under, such as strace."""
        self.player: CommandPlayer | None = None
        """What plays commands in turn, instead of the one that all tests of a process share."""
        self.port = process.free_port()
        self.plain_port = plain_port or process.free_port()
        self.health_port = process.free_port()
        self.external_url = f"https://127.0.0.1:{self.port}"
        self.config = tmp / "penstock.yaml"
        self.policy_file = tmp / "policies" / "default.yaml"
        self.state = tmp / "state"
        self.database = self.state / "penstock.db"
        self.ca_bundle = tmp / "root.pem"
        self.is_prepared = False

    @property
    def directory_url(self) -> str:
        """The ACME directory of the default community."""
        return f"{self.external_url}/acme/directory"

    # ------------------------------------------------------------------------------ set-up

    def write(self) -> None:
        """Write configuration and policy anew, as they are described now."""
        self.policy_file.parent.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(self.config_document(), indent=1), "utf-8")
        self.policy_file.write_text(json.dumps(self.policy_document(), indent=1), "utf-8")
        for document in self._more_policies:
            file = self.policy_file.with_name(f"{document['community']}.yaml")
            file.write_text(json.dumps(document, indent=1), "utf-8")

    def set_upstreams(self, upstreams: Sequence[AcmeCa]) -> None:
        """Have the configuration name other upstreams, from the next start on."""
        self._upstreams = tuple(upstreams)
        self.write()

    def set_built_in(self, built_in: BuiltInCa) -> None:
        """Have the configuration describe the built-in CA otherwise, from the next start on."""
        self._built_in = built_in
        self.write()

    def config_document(self) -> dict[str, Any]:
        """Return the configuration file as a document."""
        validation: dict[str, Any] = {
            "http_port": self._validation_http_port,
            "networks": {"allow": ["127.0.0.0/8"]},
            "hosts": {name: list(addresses) for name, addresses in self._hosts.items()},
            "timeout": "5s",
            **self._validation,
        }
        if self._resolver is not None:
            validation["resolvers"] = [self._resolver]
        upstreams = {one.name: one.document(self.directory) for one in self._upstreams}
        upstreams[self._built_in.name] = self._built_in.document(self.plain_port)
        return {
            "apiVersion": "penstock.dev/v1",
            "kind": "Broker",
            "external_url": self.external_url,
            "state": str(self.state),
            "policies": [str(self.policy_file.parent)],
            "listen": {
                "acme": {"address": f"127.0.0.1:{self.port}", "from": self._built_in.name},
                "plain": {"address": f"127.0.0.1:{self.plain_port}"},
                "health": {"address": f"127.0.0.1:{self.health_port}"},
                **self._listen,
            },
            "keys": {"passphrase": secret(self.directory, "passphrase", "a passphrase for tests")},
            "communities": {"default": {"validation": validation, **self._community}},
            "upstreams": upstreams,
            **({"limits": dict(self._limits)} if self._limits else {}),
            **self._more,
        }

    def policy_document(self) -> dict[str, Any]:
        """Return the policy of the default community as a document."""
        ordered = [one.name for one in self._upstreams] or [self._built_in.name]
        profiles = self._profiles or {
            "server": {
                "description": "TLS servers of the tests",
                "cap": "47d",
                "usages": ["server-auth"],
                "upstreams": [{"upstream": name} for name in ordered],
            }
        }
        return {
            "apiVersion": "penstock.dev/v1",
            "kind": "Policy",
            "community": "default",
            "names": {"allow": list(NAMES), "wildcards": True},
            "challenges": ["http-01", "dns-01"],
            "keys": {"allow": ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]},
            "cap": "90d",
            "profiles": profiles,
            "default_profile": next(iter(profiles)),
            **self._policy,
        }

    def prepare(self) -> None:
        """Do what an operator does once: make the CA, register at every upstream."""
        self.write()
        made = self.json("ca", "init", "--upstream", self._built_in.name)
        self.ca_bundle.write_text(made["root_pem"], "ascii")
        for upstream in self._upstreams if self._is_registering else ():
            self.run("upstream", "register", upstream.name, "--agree-to-terms")
        self.is_prepared = True

    # ------------------------------------------------------------------------------ process

    def command(self) -> Sequence[str]:
        """Return the command line, after the set-up that an operator does once."""
        if not self.is_prepared:
            self.prepare()
        return [*self.prefix, *self._penstock(), "serve", "--config", str(self.config)]

    def environment(self) -> dict[str, str]:
        """Return the environment, with the checkout in Python's path."""
        return process.clean_environment(
            self.directory, {"PYTHONPATH": str(REPOSITORY), **self._environment}
        )

    def is_ready(self) -> bool:
        """Ask the health port."""
        return process.is_answering(f"http://127.0.0.1:{self.health_port}/readyz")

    def metrics(self) -> str:
        """Return the metrics page."""
        return process.get(f"http://127.0.0.1:{self.health_port}/metrics").decode()

    def ca_serials(self) -> list[int]:
        """Return the serials in the built-in CA's table, read past the broker."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT serial FROM ca_certificates").fetchall()
        return [int(serial, 16) for (serial,) in rows]

    def program(self) -> list[str]:
        """Return the words that any command line of this broker begins with."""
        return self._penstock()

    def _penstock(self) -> list[str]:
        return [sys.executable, "-W", "error::ResourceWarning", "-m", "broker"]

    # ------------------------------------------------------------------------------ commands

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a penstock command against this broker's configuration; expects *status*."""
        words = [*arguments, "--config", str(self.config)]
        command = [*self._penstock(), *words]
        cwd, environment = self.directory, self.environment()
        done = self._played(words)
        if done is None:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                cwd=cwd,
                env=environment,
                check=False,
            )
        if done.returncode != status:
            said = f"{done.stdout}\n{done.stderr}"
            raise process.PeerFailed(f"{' '.join(command)} gave {done.returncode}: {said}")
        return done

    def _played(self, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
        """Return what a command came to without a program being started for it, if that may be.

        Under pytest that is so unless another command runs at this moment, or the environment says
        something that an interpreter reads as it starts.
        """
        cwd, environment = self.directory, self.environment()
        if self.player is not None:
            return self.player.play(words, cwd=cwd, environment=environment)
        plain = process.clean_environment(self.directory, {"PYTHONPATH": str(REPOSITORY)})
        if environment != plain or "PYTEST_VERSION" not in os.environ:
            return None
        return shared_player().play_at_once(words, cwd=cwd, environment=environment)

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json").stdout)

    async def a_json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` off the event loop."""
        return await asyncio.to_thread(self.json, *arguments)


def days(number: float) -> datetime.timedelta:
    """Return *number* days."""
    return datetime.timedelta(days=number)
