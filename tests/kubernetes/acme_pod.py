"""A stock ACME client in a pod, which keeps its account, and one that only looks whether it could.

lego is the machine's own, lent to the pod as a folder of the node.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.pods import in_pod, namespace, python_pod, wait_ready
from tests.peers.installation import installed

WHERE: Final = "clients"
NAME: Final = "acme"
DIRECTORY_URL: Final = "https://penstock.penstock.svc:8443/acme/directory"
CLIENT_SECONDS: Final = 300
"""Longest that the client may take, in seconds; it polls every sixtieth of it."""

STOP: Final = "/store/stop"

WATCH: Final = f"""\
import json, os, ssl, time, urllib.request as r
trusting = ssl.create_default_context(cafile=os.environ["LEGO_CA_CERTIFICATES"])
begun = last = time.monotonic()
longest, answers, failures = 0.0, 0, 0
while not os.path.exists({STOP!r}):
    try:
        r.urlopen({DIRECTORY_URL!r}, context=trusting, timeout=2).read()
    except OSError:
        failures += 1
    else:
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        answers += 1
    time.sleep(0.1)
os.remove({STOP!r})
print(json.dumps([longest, answers, failures]))
"""
"""Asks for the directory again and again, and tells the longest time without an answer."""


@dataclass(slots=True)
class Watch:
    """What somebody saw who asked all the time; filled when the watch is over."""

    longest_seconds: float = 0.0
    """Longest time from one answer to the next."""

    answers: int = 0
    failures: int = 0


class AcmePod:
    """The pod, as long as its cluster lasts."""

    def __init__(self, cluster: Cluster, key_id: str, mac_key: str) -> None:
        self._cluster = cluster
        self._binding = ("--eab", "--kid", key_id, "--hmac", mac_key)

    def start(self, roots: str) -> None:
        """Start it; it verifies the broker by *roots*."""
        trust = {"name": "trust", "namespace": WHERE}
        kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": trust, "data": {"ca": roots}}
        self._cluster.apply(namespace(WHERE), kept, self._pod())
        wait_ready(self._cluster, NAME, where=WHERE)

    def _pod(self) -> dict[str, Any]:
        pod = python_pod(NAME, "import signal; signal.pause()", where=WHERE)
        (container,) = pod["spec"]["containers"]
        container["env"] = [{"name": "LEGO_CA_CERTIFICATES", "value": "/trust/ca"}]
        container["volumeMounts"] = [
            {"name": "lego", "mountPath": "/lego", "readOnly": True},
            {"name": "store", "mountPath": "/store"},
            {"name": "trust", "mountPath": "/trust"},
        ]
        pod["spec"]["securityContext"] = {"fsGroup": 65532}
        pod["spec"]["volumes"] = [
            {"name": "lego", "hostPath": {"path": str(installed("lego").parent)}},
            {"name": "store", "emptyDir": {}},
            {"name": "trust", "configMap": {"name": "trust"}},
        ]
        return pod

    def obtain(self, name: str, *, profile: str) -> str:
        """Obtain a certificate for *name*, which needs no proof; return the chain in PEM.

        Raises:
            ClusterFailed: The client ended with an error; what it printed is in the text.
        """
        common = ("--server", DIRECTORY_URL, "--accept-tos", "--path", "/store/lego")
        who = ("--email", "lego@example.test", *self._binding)
        wanted = ("--domains", name, "--cert.timeout", str(CLIENT_SECONDS))
        solver = ("--http", "--http.port", ":5002")
        self._exec("/lego/lego", *common, *who, *wanted, *solver, "run", "--profile", profile)
        return in_pod(
            self._cluster, NAME, ["cat", f"/store/lego/certificates/{name}.crt"], where=WHERE
        )

    @contextlib.contextmanager
    def obtaining(self, name: str, *, profile: str) -> Iterator[Future[str]]:
        """Obtain a certificate while the block runs; the chain is there when it is over."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.obtain, name, profile=profile)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        """Ask the broker for its directory all the while the block runs."""
        seen = Watch()
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(self._exec, "python3", "-c", WATCH)
            try:
                yield seen
            finally:
                in_pod(self._cluster, NAME, ["touch", STOP], where=WHERE)
            seen.longest_seconds, seen.answers, seen.failures = json.loads(told.result())

    def _exec(self, *command: str) -> str:
        inside = ("exec", NAME, "-n", WHERE, "-c", "main", "--")
        return self._cluster.kubectl(*inside, *command, seconds=CLIENT_SECONDS + 30)
