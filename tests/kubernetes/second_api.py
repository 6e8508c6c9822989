"""A second cluster as far as a broker sees it: an etcd and an API server, without a node.

They run beside the first, on the same machine, with keys, objects and an issuer of their own.  What
a broker has of another cluster is its keys and the tokens that its pods show, and both are its API
server's work; where those pods run is nothing to it.
"""

from __future__ import annotations

import json
import signal
from typing import Any, Final

from tests.kubernetes.cluster import START_SECONDS, Cluster
from tests.kubernetes.configuration import API_PORT, api_server, etcd
from tests.kubernetes.credentials import write_credentials
from tests.kubernetes.pods import STRICT, namespace
from tests.kubernetes.programs import program
from tests.peers.process import wait_until

PORT: Final = 16443
STORE_PORT: Final = 12379

STORE: Final = "second-etcd"
SERVER: Final = "second-apiserver"
"""What both are called on the node."""


class SecondApi:
    """The second API server, as long as it is not stopped."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._home = cluster.state / "second"
        self.pki = self._home / "pki"

    def start(self, issuer: str) -> None:
        """Start both programs; tokens are of *issuer*."""
        write_credentials(self.pki)
        ours = f":{API_PORT}"
        settings = (self.pki / "admin.conf").read_text("ascii").replace(ours, f":{PORT}")
        (self.pki / "admin.conf").write_text(settings, "ascii")
        self._cluster.node.start(STORE, etcd(self._home / "etcd", port=STORE_PORT))
        self._serve(issuer)

    def change_issuer(self, issuer: str) -> None:
        """Have the API server start anew with another issuer; keys and objects stay."""
        self._end(SERVER)
        self._serve(issuer)

    def stop(self) -> None:
        """End both."""
        for name in (SERVER, STORE):
            self._end(name)

    def keys(self) -> str:
        """Return the public keys of its tokens, as it publishes them."""
        return self.kubectl("get", "--raw", "/openid/v1/jwks")

    def issuer(self) -> str:
        """Return what it says that it is called."""
        found = json.loads(self.kubectl("get", "--raw", "/.well-known/openid-configuration"))
        return str(found["issuer"])

    def make_namespace(self, name: str) -> None:
        """Make a namespace with its default service account, which no controller makes here."""
        account = {"name": "default", "namespace": name}
        made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
        self.apply(namespace(name), made)

    def token(self, pod: str, where: str, audience: str) -> str:
        """Return the token that it projects into a pod, which is made if it is not there."""
        container = {"name": "main", "image": "none", "securityContext": dict(STRICT)}
        metadata = {"name": pod, "namespace": where}
        spec = {"containers": [container]}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        asked = ("create", "token", "default", "-n", where, f"--audience={audience}")
        return self.kubectl(*asked, "--bound-object-kind=Pod", f"--bound-object-name={pod}").strip()

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply objects."""
        many = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", text=json.dumps(many))

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl for this cluster and return its output.

        Raises:
            ClusterFailed: It failed; its words are in the text.
        """
        return self._cluster.run(self._kubectl(*arguments), text=text)

    def _kubectl(self, *arguments: str) -> list[str]:
        settings = f"--kubeconfig={self.pki / 'admin.conf'}"
        return [str(program("kubectl")), settings, *arguments]

    def _serve(self, issuer: str) -> None:
        line = api_server(self.pki, port=PORT, etcd_port=STORE_PORT, issuer=issuer)
        self._cluster.node.start(SERVER, line)
        wait_until(self._is_up, START_SECONDS, "the second API server serves")

    def _is_up(self) -> bool:
        ready = self._kubectl("get", "--raw", "/readyz", "--request-timeout=5s")
        return self._cluster.node.attempt(ready).returncode == 0

    def _end(self, name: str) -> None:
        node = self._cluster.node
        node.signal(name, signal.SIGKILL)
        wait_until(lambda: not node.is_running(name), START_SECONDS, f"{name} has ended")
