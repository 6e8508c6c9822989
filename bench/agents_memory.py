"""What an agent holds on its host: resident memory beside `vault agent` and certbot.

Each holds one certificate and has nothing to do; certbot keeps no process, so what is told of it is
the most that its renewal takes.
"""

from __future__ import annotations

import json
import os
import subprocess
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
        broker = stack.enter_context(TrustingPenstock(home / "broker"))
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
        made.append(_certbot(home / "certbot", broker))
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


def _certbot(home: Path, broker: Penstock) -> Resident:
    """Run certbot's look at what is to be renewed, and return the most that it took."""
    home.mkdir(parents=True, exist_ok=True)
    command = [str(installed("certbot")), "renew", "--non-interactive", "--server"]
    command += [broker.directory_url, "--no-random-sleep-on-renew"]
    for kind in ("config", "work", "logs"):
        command += [f"--{kind}-dir", str(home / kind)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        env=process.clean_environment(home, {"REQUESTS_CA_BUNDLE": str(broker.ca_bundle)}),
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise process.PeerFailed(f"{json.dumps(command)} gave {child.returncode}")
    return Resident(
        name="certbot",
        what="the most that `certbot renew` takes with nothing due; it ends then",
        resident_mib=used.ru_maxrss * 1024 / MIB,
        private_mib=None,
        cpu_seconds=used.ru_utime + used.ru_stime,
    )
