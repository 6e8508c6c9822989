"""What an agent holds on its host: resident memory beside `vault agent` and certbot.

Each holds one certificate and has nothing to do; certbot keeps no process, so what is told of it is
the most that its look at that certificate takes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import MIB, usage_of
from bench.scenarios import Tell
from tests.deployments.node_agents import NodeAgent, TrustingPenstock, Wanted
from tests.deployments.penstock import Penstock
from tests.peers import process
from tests.peers.certbot import QUIET, Certbot
from tests.peers.installation import installed
from tests.peers.vault import Vault

__all__ = ["Resident", "measure_memory"]

IDLE_SECONDS: Final = 30.0
"""How long each is left alone before it is looked at."""

READY_SECONDS: Final = 60.0

NODE: Final = "web.example.test"

VAULT_AGENT: Final = """\
vault {{ address = "{url}" ca_cert = "{ca}" }}
auto_auth {{
  method "token_file" {{ config = {{ token_file_path = "{token}" }} }}
  sink "file" {{ config = {{ path = "{directory}/sink" }} }}
}}
template {{
  contents = "{contents}"
  destination = "{directory}/pair.pem"
}}
"""

CONTENTS: Final = (
    '{{ with pkiCert \\"pki/issue/server\\" \\"common_name=%s\\" }}{{ .Cert }}{{ .Key }}{{ end }}'
)
"""What the template renders, as it stands in a string of the configuration."""


MEASURED: Final = """\
import json, os, resource, sys
status = os.spawnv(os.P_WAIT, sys.argv[2], sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    cpu = used.ru_utime + used.ru_stime
    json.dump({"resident_kib": used.ru_maxrss, "cpu_seconds": cpu}, file)
sys.exit(status)
"""
"""Runs a program and notes what it took.

A small process between it and this one: Linux counts what a process held before its exec as the
most that it held, and that would be the memory of the bench.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a program took that has ended."""

    resident_kib: int
    """The most."""
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One program that keeps one certificate fresh, with nothing to do."""

    name: str
    what: str
    resident_mib: float
    private_mib: float | None
    """Of its own, clean and dirty; None where it was not to be seen."""
    cpu_seconds: float
    """Since it was started."""


class VaultAgent(process.Peer):
    """A `vault agent` that renders one certificate of a PKI mount."""

    name = "vault-agent"

    def __init__(self, tmp: Path, vault: Vault) -> None:
        super().__init__(tmp)
        self._vault = vault
        self._pair = tmp / "pair.pem"

    def command(self) -> Sequence[str]:
        """Write the configuration and return the command line."""
        token = self.directory / "token"
        token.touch(mode=0o600)
        token.write_text(self._vault.root_token, "ascii")
        config = self.directory / "agent.hcl"
        text = VAULT_AGENT.format(
            url=self._vault.url,
            ca=self._vault.ca_bundle,
            token=token,
            directory=self.directory,
            contents=CONTENTS % NODE,
        )
        config.write_text(text, "ascii")
        return [str(installed("vault")), "agent", f"-config={config}"]

    def is_ready(self) -> bool:
        """See that the certificate is there."""
        return self._pair.exists()


def measure_memory(home: Path, tell: Tell) -> list[Resident]:
    """Measure our agent, by TLS and by the openssl program alone, and its peers."""
    made = []
    with ExitStack() as stack:
        http_port = process.free_port()
        broker = stack.enter_context(
            TrustingPenstock(
                home / "broker", validation_http_port=http_port, hosts={NODE: ["127.0.0.1"]}
            )
        )
        token = broker.mint([NODE])[NODE]
        wanted = Wanted(
            name="site", names=[NODE], directory=home / "pair", expects=broker.ca_bundle
        )
        agent = NodeAgent(
            home / "agent",
            NODE,
            url=broker.agents_url,
            anchors=broker.ca_bundle,
            token=token,
            wanted=[wanted],
        )
        stack.enter_context(agent)
        pair = home / "pair" / "fullchain.pem"
        process.wait_until(pair.exists, READY_SECONDS, "the agent has its certificate")
        made.append(_idle("penstock-agent", "holds its connection", agent.pid))
        tell(str(made[-1]))
        made.append(_certbot(home / "certbot", broker, http_port))
        tell(str(made[-1]))
    with Vault(home / "vault") as vault:
        _set_up_pki(vault)
        with VaultAgent(home / "vault-agent", vault) as theirs:
            made.append(_idle("vault agent", "one template of a PKI mount", theirs.pid))
            tell(str(made[-1]))
    return made


def _idle(name: str, what: str, pid: int) -> Resident:
    time.sleep(IDLE_SECONDS)
    usage = usage_of(pid)
    return Resident(
        name=name,
        what=what,
        resident_mib=usage.resident_mib,
        private_mib=usage.private_mib,
        cpu_seconds=usage.cpu_seconds,
    )


def _set_up_pki(vault: Vault) -> None:
    vault.enable("pki", "pki")
    root = {"common_name": "bench root", "key_type": "ec", "key_bits": 256, "ttl": "720h"}
    vault.ask("POST", "pki/root/generate/internal", root)
    role = {"allowed_domains": ["example.test"], "allow_subdomains": True, "key_type": "ec"}
    vault.ask("POST", "pki/roles/server", {**role, "key_bits": 256, "max_ttl": "240h"})


def _certbot(home: Path, broker: Penstock, http_port: int) -> Resident:
    """Have certbot obtain a certificate, and return the most that its look at it takes later."""
    certbot = Certbot(home, broker.directory_url, broker.ca_bundle)
    held = asyncio.run(certbot.certonly_standalone([NODE], http_port=http_port))
    before = held.fullchain.read_bytes()
    command = [str(installed("certbot")), "renew", *QUIET, "--no-random-sleep-on-renew"]
    for kind in ("config", "work", "logs"):
        command += [f"--{kind}-dir", str(home / kind)]
    said, used = _run(command, home, broker)
    # It tells of each certificate that it holds and leaves alone; with none it would have succeeded
    # as well, and much sooner.
    if str(held.fullchain) not in said or held.fullchain.read_bytes() != before:
        raise process.PeerFailed(f"certbot did not look at one certificate that is not due: {said}")
    return Resident(
        name="certbot",
        what="the most that `certbot renew` takes to see that it is not due; it ends then",
        resident_mib=used.resident_kib * 1024 / MIB,
        private_mib=None,
        cpu_seconds=used.cpu_seconds,
    )


def _run(command: Sequence[str], home: Path, broker: Penstock) -> tuple[str, Used]:
    """Run a program to its end; return what it said and what it used.

    Raises:
        PeerFailed: It failed; what it said is in the text.
    """
    used = home / "used.json"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURED, str(used), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home,
        env=process.clean_environment(home, {"REQUESTS_CA_BUNDLE": str(broker.ca_bundle)}),
        check=False,
    )
    if done.returncode != 0:
        raise process.PeerFailed(f"{json.dumps(command)} gave {done.returncode}: {done.stdout}")
    return done.stdout, Used(**json.loads(used.read_text("ascii")))
