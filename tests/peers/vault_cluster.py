"""Three Vaults that are one: a Raft cluster on loopback, with an active node and two standbys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.peers import process
from tests.peers.vault import Vault

__all__ = ["VaultCluster"]

NODES: Final = ("one", "two", "three")
"""Fewer could not do without one of them."""

STEADY: Final = {"server_stabilization_time": "1s"}
"""How long a node has to be well before it may vote; ten seconds unless something else is said."""


class Node(Vault):
    """One node, which joins the first one."""

    def __init__(self, tmp: Path, name: str) -> None:
        super().__init__(tmp)
        self._node = name

    def command(self) -> Sequence[str]:
        """Write vault.hcl with the node's own name and an address for the others; return the
        command line."""
        command = super().command()
        config = self.directory / "vault.hcl"
        text = config.read_text("ascii").replace('node_id = "one"', f'node_id = "{self._node}"')
        reached = f'cluster_address = "127.0.0.1:{self._cluster_port}"'
        text = text.replace("  tls_cert_file", f"  {reached}\n  tls_cert_file")
        config.write_text(text, "ascii")
        return command

    def join(self, first: Vault) -> None:
        """Start, become a standby of *first*, and wait until that is so."""
        self.root_token, self.unseal_key = first.root_token, first.unseal_key
        self.start_sealed()
        document = {"leader_api_addr": first.url, "leader_ca_cert": first.ca_bundle.read_text()}
        self.ask("POST", "sys/storage/raft/join", document)
        self.ask("PUT", "sys/unseal", {"key": self.unseal_key})
        process.wait_until(self.is_standing_by, process.START_SECONDS, "vault stands by")

    def is_standing_by(self) -> bool:
        """Ask whether it is unsealed, active or not."""
        url = f"{self.url}/v1/sys/health?standbyok=true"
        return process.is_answering(url, self.ca_bundle)


class VaultCluster:
    """The cluster; its first node is active to begin with."""

    def __init__(self, tmp: Path) -> None:
        self.nodes = [Node(tmp / name, name) for name in NODES]
        self.ca_bundle = tmp / "cluster-ca.pem"
        bundles = (node.ca_bundle.read_bytes() for node in self.nodes)
        self.ca_bundle.write_bytes(b"".join(bundles))
        self._stack = ExitStack()

    @property
    def active(self) -> Node:
        """Return the node that is active now, as each of them says of itself."""
        return next(node for node in self.nodes if node.is_active())

    @property
    def standbys(self) -> list[Node]:
        """Return the others that are there."""
        return [node for node in self.nodes if node.is_standing_by() and not node.is_active()]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first, *others = self.nodes
            stack.enter_context(first)
            first.ask("POST", "sys/storage/raft/autopilot/configuration", STEADY)
            for node in others:
                stack.callback(node.stop)
                node.join(first)
            process.wait_until(self._are_all_voting, process.START_SECONDS, "all nodes vote")
            self._stack = stack.pop_all()
        return self

    def _are_all_voting(self) -> bool:
        found = self.nodes[0].ask("GET", "sys/storage/raft/configuration")["data"]["config"]
        return [server["voter"] for server in found["servers"]] == [True] * len(NODES)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
