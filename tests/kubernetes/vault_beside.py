"""A real Vault on the node, beside the pods, which asks the real API server about their tokens.

Pods find it as they would in a cluster of their own: by the Service ``vault`` of namespace
``vault``, whose address leads to the node.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.credentials import API_SERVER
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.pods import namespace
from tests.peers.authority import make_root, make_server, write_server_files
from tests.peers.installation import VAULT_KUBERNETES, installed
from tests.peers.process import wait_until

PORT: Final = 8200
WHERE: Final = "vault"
HOST: Final = f"vault.{WHERE}.svc"
REVIEWER: Final = "reviewer"
START_SECONDS: Final = 120.0

CONFIG: Final = """\
disable_mlock = true
ui = false
api_addr = "https://{address}:{port}"
plugin_directory = "{plugins}"
storage "inmem" {{}}
listener "tcp" {{
  address = "{address}:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file = "{key}"
}}
"""
"""It keeps everything in memory; sealed and unsealed again, it has it all still."""

SETUP: Final = (sys.executable, "-m", "broker", "vault", "setup", "--print")


class VaultBeside:
    """The Vault, as long as its cluster lasts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._home = cluster.state / "vault"
        self._root_token = ""
        self._unseal_key = ""
        self.ca_pem = ""
        """What its HTTPS is verified by."""

    def start(self) -> None:
        """Start it, open it, and let it ask the API server about tokens."""
        self._home.mkdir(mode=0o700)
        root = make_root("vault beside the cluster")
        server = make_server(root, [HOST, self._cluster.address])
        certificate, key, anchors = write_server_files(self._home, server, root)
        self.ca_pem = anchors.read_text("ascii")
        config = self._home / "vault.hcl"
        text = CONFIG.format(
            address=self._cluster.address,
            port=PORT,
            plugins=installed(VAULT_KUBERNETES.name).parent,
            certificate=certificate,
            key=key,
        )
        config.write_text(text, "ascii")
        command = ["env", "GOMAXPROCS=2", installed("vault"), "server", f"-config={config}"]
        self._cluster.node.start("vault", command)
        wait_until(lambda: "initialized" in self._status(), START_SECONDS, "vault answers")
        asked = ("operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json")
        made = json.loads(self.vault(*asked))
        self._root_token, self._unseal_key = made["root_token"], made["unseal_keys_b64"][0]
        self.unseal()
        self._make_service()
        self._trust_api_server()

    def vault(self, *arguments: str) -> str:
        """Run one of its commands as root and return the output.

        Raises:
            ClusterFailed: It was refused; its words are in the text.
        """
        return self._cluster.run([*self._client(), str(installed("vault")), *arguments])

    def seal(self) -> None:
        """Close what it keeps: nothing is signed and nobody logs in."""
        self.vault("operator", "seal")

    def unseal(self) -> None:
        """Open it again, and wait until it is."""
        self.vault("operator", "unseal", self._unseal_key)
        wait_until(lambda: self._status().get("sealed") is False, START_SECONDS, "vault is open")

    def set_up(self, config: Path, *, audience: str) -> None:
        """Run what ``penstock vault setup --print`` writes for a configuration file."""
        script = subprocess.run(
            [*SETUP, f"--audience={audience}", f"--config={config}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = f"PATH={installed('vault').parent}:/usr/bin:/bin"
        self._cluster.run([*self._client(), found, "sh", "-eu", "-s"], text=script)

    def _client(self) -> list[str]:
        return [
            "env",
            f"VAULT_ADDR=https://{self._cluster.address}:{PORT}",
            f"VAULT_CACERT={self._home / 'tls-ca.pem'}",
            f"VAULT_TOKEN={self._root_token}",
            f"HOME={self._home}",
        ]

    def _status(self) -> Mapping[str, Any]:
        # Sealed is 2, and an answer all the same.
        command = [*self._client(), str(installed("vault")), "status", "-format=json"]
        told = self._cluster.node.attempt(command).stdout
        status: Mapping[str, Any] = json.loads(told) if told.startswith("{") else {}
        return status

    def _make_service(self) -> None:
        """Give it the name that a Vault in the cluster would have."""
        port = {"name": "https", "port": PORT, "protocol": "TCP"}
        slices = "discovery.k8s.io/v1"
        metadata = {"name": "vault", "namespace": WHERE}
        named = {**metadata, "labels": {"kubernetes.io/service-name": "vault"}}
        self._cluster.apply(
            namespace(WHERE),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"ports": [port]},
            },
            {
                "apiVersion": slices,
                "kind": "EndpointSlice",
                "metadata": named,
                "addressType": "IPv4",
                "endpoints": [
                    {"addresses": [self._cluster.address], "conditions": {"ready": True}}
                ],
                "ports": [port],
            },
        )

    def _trust_api_server(self) -> None:
        """Mount its Kubernetes auth method, with an account that may review tokens."""
        account = {"name": REVIEWER, "namespace": WHERE}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
        self._cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "vault-reviewer"},
                "roleRef": {**role, "name": "system:auth-delegator"},
                "subjects": [{"kind": "ServiceAccount", **account}],
            },
        )
        program = installed(VAULT_KUBERNETES.name)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        entry = (f"-sha256={digest}", f"-command={program.name}", "auth", "kubernetes")
        self.vault("plugin", "register", *entry)
        self.vault("auth", "enable", "kubernetes")
        shown = self._cluster.kubectl("create", "token", REVIEWER, "-n", WHERE, "--duration=24h")
        ca = (self._cluster.state / "pki" / "ca.crt").read_text("ascii")
        self.vault(
            *("write", "auth/kubernetes/config", f"kubernetes_host={API_SERVER}"),
            *(f"kubernetes_ca_cert={ca}", f"token_reviewer_jwt={shown.strip()}"),
            "disable_local_ca_jwt=true",
        )
