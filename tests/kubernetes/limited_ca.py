"""A public CA beside the cluster: it asks for no proof, and issues five certificates per name set.

It runs on the node, at an address that pods reach, and outlives the broker; its ledger tells what
it really issued.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.fakes.hostile_ca import Behaviour, Ledger, Script
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.peers.process import wait_until

PORT: Final = 14000
PER_NAMES: Final = 5
"""What Let's Encrypt publishes for one set of names in a week."""

NO_PROOF: Final = Behaviour(authorizations_valid=True)

FETCH: Final = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
SEND: Final = """\
import sys, urllib.request as r
content = {"Content-Type": "application/json"}
r.urlopen(r.Request(sys.argv[1], sys.stdin.buffer.read(), content))
"""


class LimitedCa:
    """The CA, as long as its cluster lasts."""

    def __init__(self, cluster: Cluster, name: str = "limited-ca", port: int = PORT) -> None:
        """Be called *name* on the node; *port* and the one after it are its own."""
        self._cluster = cluster
        self._name = name
        self._port = port
        self._state = cluster.state / name / "state.json"
        self.directory_url = f"https://{cluster.address}:{port}/directory"

    def start(self, behaviour: Behaviour = NO_PROOF) -> None:
        """Start it on the node; if not told otherwise, it asks for no proof."""
        self._state.parent.mkdir()
        command = [
            "env",
            f"PYTHONPATH={REPOSITORY}",
            sys.executable,
            "-m",
            "tests.fakes.hostile_ca",
        ]
        command += [f"--state={self._state}", f"--port={self._port}"]
        command += [f"--control-port={self._port + 1}", f"--address={self._cluster.address}"]
        self._cluster.node.start(self._name, command)
        wait_until(self._state.exists, 30, "the limited CA serves")
        ready = Script(behaviour, certificates_per_names=PER_NAMES)
        url = f"http://127.0.0.1:{self._port + 1}/script"
        self._cluster.run(["python3", "-c", SEND, url], text=json.dumps(ready.to_json()))

    def files(self) -> dict[str, str]:
        """Return what the broker has to trust: the CA's own TLS, and what it issues."""
        told: dict[str, Any] = json.loads(self._state.read_text("utf-8"))
        return {"tls.pem": Path(told["ca_bundle"]).read_text("ascii"), "root.pem": told["root_pem"]}

    def upstream(self, mounted: str = "public") -> dict[str, Any]:
        """Return the broker's configuration of it, with its files mounted under that name."""
        return {
            "kind": "acme",
            "directory": self.directory_url,
            "ca_bundle": f"/etc/penstock/files/{mounted}/tls.pem",
            "anchors": f"/etc/penstock/files/{mounted}/root.pem",
            "facts": {"honours_not_after": True, "max_lifetime": "90d"},
            "solvers": [],
            "poll_interval": "1s",
        }

    def ledger(self) -> Ledger:
        """Return what it has done."""
        url = f"http://127.0.0.1:{self._port + 1}/ledger"
        return Ledger.from_json(json.loads(self._cluster.run(["python3", "-c", FETCH, url])))
