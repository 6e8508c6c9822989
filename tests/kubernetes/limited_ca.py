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
CONTROL_PORT: Final = 14001
PER_NAMES: Final = 5
"""What Let's Encrypt publishes for one set of names in a week."""

FETCH: Final = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
SEND: Final = """\
import sys, urllib.request as r
content = {"Content-Type": "application/json"}
r.urlopen(r.Request(sys.argv[1], sys.stdin.buffer.read(), content))
"""


class LimitedCa:
    """The CA, as long as its cluster lasts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._state = cluster.state / "limited-ca" / "state.json"
        self.directory_url = f"https://{cluster.address}:{PORT}/directory"

    def start(self) -> None:
        """Start it on the node, and have it ask for no proof."""
        self._state.parent.mkdir()
        command = [
            "env",
            f"PYTHONPATH={REPOSITORY}",
            sys.executable,
            "-m",
            "tests.fakes.hostile_ca",
        ]
        command += [f"--state={self._state}", f"--port={PORT}", f"--control-port={CONTROL_PORT}"]
        command += [f"--address={self._cluster.address}"]
        self._cluster.node.start("limited-ca", command)
        wait_until(self._state.exists, 30, "the limited CA serves")
        ready = Script(Behaviour(authorizations_valid=True), certificates_per_names=PER_NAMES)
        url = f"http://127.0.0.1:{CONTROL_PORT}/script"
        self._cluster.run(["python3", "-c", SEND, url], text=json.dumps(ready.to_json()))

    def files(self) -> dict[str, str]:
        """Return what the broker has to trust: the CA's own TLS, and what it issues."""
        told: dict[str, Any] = json.loads(self._state.read_text("utf-8"))
        return {"tls.pem": Path(told["ca_bundle"]).read_text("ascii"), "root.pem": told["root_pem"]}

    def ledger(self) -> Ledger:
        """Return what it has done."""
        url = f"http://127.0.0.1:{CONTROL_PORT}/ledger"
        return Ledger.from_json(json.loads(self._cluster.run(["python3", "-c", FETCH, url])))
