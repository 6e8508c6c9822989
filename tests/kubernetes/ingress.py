"""An ingress controller in a few lines: plain HTTP at the node's address, led by Ingress objects.

Run on the node, where the addresses of Services lead somewhere.  It asks the API server at each
request, so an Ingress holds from the moment that it is there.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.programs import program
from tests.peers.process import wait_until

CLASS: Final = "nginx"
PORT: Final = 80
"""Where http-01 is looked for (RFC 8555 §8.3)."""

ANSWER_SECONDS: Final = 10.0
MAX_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Backend:
    """Which Service a request is handed to."""

    namespace: str
    service: str
    port: int


def route(ingresses: Iterable[Mapping[str, Any]], host: str, path: str) -> Backend | None:
    """Return where a request for *host* and *path* goes, the longest path first; None: nowhere."""
    found: list[tuple[int, Backend]] = []
    for ingress in ingresses:
        if ingress["spec"].get("ingressClassName") != CLASS:
            continue
        for rule in ingress["spec"].get("rules", ()):
            if rule.get("host") != host:
                continue
            for one in rule["http"]["paths"]:
                is_exact = one["pathType"] == "Exact"
                if path != one["path"] if is_exact else not path.startswith(one["path"]):
                    continue
                service = one["backend"]["service"]
                namespace = ingress["metadata"]["namespace"]
                backend = Backend(namespace, service["name"], service["port"]["number"])
                found.append((len(one["path"]), backend))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def start(cluster: Cluster) -> None:
    """Start the controller on the node; it ends with the cluster."""
    settings = cluster.state / "pki" / "admin.conf"
    command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "tests.kubernetes.ingress"]
    cluster.node.start(
        "ingress", [*command, cluster.address, str(program("kubectl")), str(settings)]
    )
    told = cluster.node
    wait_until(lambda: "serves" in told.log("ingress"), 30, "the ingress controller serves")


class Controller(BaseHTTPRequestHandler):
    """One request: look up its Ingress and Service, ask there, hand the answer back."""

    kubectl: tuple[str, ...] = ()

    def do_GET(self) -> None:
        """Hand on a GET."""
        backend = route(self._read("ingresses", "-A")["items"], self._host(), self.path)
        if backend is None:
            self._answer(404, b"no ingress leads anywhere\n")
            return
        service = self._read("service", backend.service, "-n", backend.namespace)
        address = service["spec"]["clusterIP"]
        asked = http.client.HTTPConnection(address, backend.port, timeout=ANSWER_SECONDS)
        try:
            asked.request("GET", self.path, headers={"Host": self.headers["Host"]})
            answer = asked.getresponse()
            self._answer(answer.status, answer.read(MAX_BYTES))
        except OSError as error:
            self._answer(502, f"{error}\n".encode())
        finally:
            asked.close()

    def _host(self) -> str:
        return str(self.headers.get("Host", "")).partition(":")[0]

    def _read(self, *what: str) -> Any:
        told = subprocess.run(
            [*self.kubectl, "get", *what, "-o", "json"],
            capture_output=True,
            check=True,
            timeout=ANSWER_SECONDS,
        )
        return json.loads(told.stdout)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the node ends."""
    address, kubectl, settings = sys.argv[1:]
    Controller.kubectl = (kubectl, f"--kubeconfig={settings}")
    server = ThreadingHTTPServer((address, PORT), Controller)
    print("ingress: serves", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
