"""Pebble beside the cluster as a public CA that takes its time to validate.

Pebble sleeps three times for each name, for a random time below a bound, and goes on when the
longest is over; with several names the longest is near the bound.  Its log says how long it was.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.peers import authority
from tests.peers.installation import installed
from tests.peers.pebble import ISSUED
from tests.peers.process import wait_until

PORT: Final = 14100
MANAGEMENT_PORT: Final = 14101
SLEEP_SECONDS: Final = 90
"""Bound of the random time, which Pebble lets nobody choose; the longest of 24, of eight names, is
below 60 once in 16,000 runs."""

SLEPT: Final = re.compile(r"Sleeping for (?P<text>[0-9msh.]+) seconds before validating")
FETCH: Final = """\
import ssl, sys, urllib.request as r
trusting = ssl.create_default_context(cafile=sys.argv[2])
print(r.urlopen(sys.argv[1], context=trusting, timeout=5).read().decode())
"""


class SlowCa:
    """Pebble on the node, as long as its cluster lasts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._home = cluster.state / "slow-ca"
        self._bundle = self._home
        self.directory_url = f"https://{cluster.address}:{PORT}/dir"

    def start(self) -> None:
        """Start it; it calls every challenge valid, after it slept."""
        self._home.mkdir()
        root = authority.make_root("slow CA's HTTPS")
        server = authority.make_server(root, [self._cluster.address])
        certificate, key, self._bundle = authority.write_server_files(self._home, server, root)
        address = self._cluster.address
        document = {
            "listenAddress": f"{address}:{PORT}",
            "managementListenAddress": f"{address}:{MANAGEMENT_PORT}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": 80,
            "tlsPort": 443,
            "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "default", "validityPeriod": 90 * 86400}},
        }
        config = self._home / "pebble.json"
        config.write_text(json.dumps({"pebble": document}), "utf-8")
        switches = ["PEBBLE_VA_ALWAYS_VALID=1", f"PEBBLE_VA_SLEEPTIME={SLEEP_SECONDS}"]
        command = [str(installed("pebble")), "-config", str(config), "-strict"]
        command += ["-dnsserver", f"{address}:53"]
        self._cluster.node.start("slow-ca", ["env", *switches, *command])
        wait_until(lambda: "Listening on" in self._log(), 30, "the slow CA serves")

    def files(self) -> dict[str, str]:
        """Return what the broker has to trust: the CA's own TLS, and what it issues."""
        return {"tls.pem": self._bundle.read_text("ascii"), "root.pem": self._root()}

    def upstream(self) -> dict[str, Any]:
        """Return the broker's configuration of it, with its files mounted as ``slow``."""
        return {
            "kind": "acme",
            "directory": self.directory_url,
            "description": "pebble",
            "ca_bundle": "/etc/penstock/files/slow/tls.pem",
            "anchors": "/etc/penstock/files/slow/root.pem",
            "solvers": [{"challenge": "http-01"}],
        }

    def issued(self) -> int:
        """Return how many certificates it made, by its own log."""
        return len(ISSUED.findall(self._log()))

    def slept(self) -> list[float]:
        """Return how long each of its looks was put off, in seconds."""
        return [_seconds(match["text"]) for match in SLEPT.finditer(self._log())]

    def _root(self) -> str:
        url = f"https://{self._cluster.address}:{MANAGEMENT_PORT}/roots/0"
        return self._cluster.run(["python3", "-c", FETCH, url, str(self._bundle)])

    def _log(self) -> str:
        return self._cluster.node.log("slow-ca")


def _seconds(text: str) -> float:
    """Return a duration as Go prints it, such as ``1m9s``."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)([hms])", text)))
