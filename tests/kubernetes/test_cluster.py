"""The cluster itself: it is what a test believes it to be, and nothing of it outlives its owner."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.kubernetes import faults
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.keeper import STATE_PARENT, control_groups
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import (
    in_pod,
    namespace,
    python_pod,
    remove,
    review,
    service,
    wait_ready,
)
from tests.kubernetes.programs import KUBERNETES_VERSION
from tests.peers.process import wait_until

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
SLEEP = "import signal, sys; signal.signal(15, lambda *_: sys.exit()); signal.pause()"
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"

HOLD_A_NODE = """\
import sys
sys.path.insert(0, sys.argv[1])
from tests.kubernetes.node import Node
node = Node()
node.up()
(node.state / "log").mkdir()
node.start("sleeper", ["sleep", "1000"])
print(node.state.name, node.is_running("sleeper"), flush=True)
sys.stdin.read()
"""


def test_it_says_which_version_it_is(bare_cluster: Cluster) -> None:
    """Charts ask for a version; a server that does not know its own would be refused."""
    assert bare_cluster.kubectl("version", "--output=json").count(f'"v{KUBERNETES_VERSION}"') == 2


def test_pods_reach_each_other_by_the_name_of_a_service(bare_cluster: Cluster) -> None:
    """Images, DNS, the proxy and the pod network work together."""
    bare_cluster.apply(
        python_pod("serving", SERVE, port=8000),
        service("serving", 8000),
        python_pod("asking", SLEEP),
    )
    wait_ready(bare_cluster, "serving", "asking")
    for name in ("serving", "serving.default.svc.cluster.local"):
        ask = ["python3", "-c", ASK, f"http://{name}:8000/etc/hostname"]
        # The proxy learns of a pod that became ready a moment later.
        wait_until(lambda ask=ask: is_answered(bare_cluster, ask), 10, f"{name} answers")
    remove(bare_cluster, "serving", "asking")


def is_answered(cluster: Cluster, ask: list[str]) -> bool:
    """Say whether a request from within the asking pod was answered with success."""
    try:
        return in_pod(cluster, "asking", ask).strip() == "200"
    except ClusterFailed:
        return False


def test_nothing_outside_is_reached(bare_cluster: Cluster) -> None:
    """The node's network ends at the node."""
    ask = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=2)"
    with pytest.raises(ClusterFailed, match=r"timed out|unreachable|No route"):
        bare_cluster.run(["python3", "-c", ask])


def test_tokens_are_for_their_audience(bare_cluster: Cluster) -> None:
    """What one was made for is answered with its owner; the same token elsewhere is refused."""
    token = bare_cluster.kubectl("create", "token", "default", "--audience=penstock").strip()
    right = review(bare_cluster, token, "penstock")
    assert right["user"]["username"] == "system:serviceaccount:default:default"
    wrong = review(bare_cluster, token, "vault")
    assert not wrong.get("authenticated")
    assert "audience" in wrong["error"]


def test_pod_security_is_enforced(bare_cluster: Cluster) -> None:
    """A namespace that is restricted refuses what may become root and takes what may not."""
    bare_cluster.apply(namespace("strict", **{"pod-security.kubernetes.io/enforce": "restricted"}))
    strict = python_pod("one", SLEEP, where="strict")
    loose = python_pod("two", SLEEP, where="strict")
    del loose["spec"]["containers"][0]["securityContext"]
    with pytest.raises(ClusterFailed, match="violates PodSecurity"):
        bare_cluster.apply(loose)
    bare_cluster.apply(strict)
    wait_ready(bare_cluster, "one", where="strict")
    remove(bare_cluster, "one", where="strict")


def test_a_stopped_kubelet_starts_nothing_until_it_goes_on(bare_cluster: Cluster) -> None:
    """The fault is real while it lasts, and over when it is."""
    with faults.stopped(bare_cluster, "kubelet"):
        bare_cluster.apply(python_pod("late", SLEEP))
        with pytest.raises(ClusterFailed, match="timed out"):
            bare_cluster.kubectl("wait", "--for=condition=Ready", "pod/late", "--timeout=3s")
    wait_ready(bare_cluster, "late")
    remove(bare_cluster, "late")


def test_a_stopped_api_server_answers_nobody(bare_cluster: Cluster) -> None:
    """And everybody again afterwards."""
    with faults.stopped(bare_cluster, "kube-apiserver"), pytest.raises(ClusterFailed):
        bare_cluster.kubectl("get", "nodes", "--request-timeout=2s")
    assert "node1" in bare_cluster.kubectl("get", "nodes")


def test_a_slow_api_server_answers_late(bare_cluster: Cluster) -> None:
    """Slower than before, and still right."""
    with faults.slowed(bare_cluster, "kube-apiserver", share=0.8):
        assert "node1" in bare_cluster.kubectl("get", "nodes")


def test_an_evicted_pod_ends(bare_cluster: Cluster) -> None:
    """As a drain of the node would have it."""
    bare_cluster.apply(python_pod("leaving", SLEEP))
    wait_ready(bare_cluster, "leaving")
    faults.evict(bare_cluster, "leaving", namespace="default")
    bare_cluster.kubectl("wait", "--for=delete", "pod/leaving", "--timeout=180s")


def test_nothing_outlives_a_killed_test() -> None:
    """No process, no folder, no control group: the owner need not live to clean up."""
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_NODE, str(REPOSITORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holding.stdin is not None
    assert holding.stdout is not None
    name, runs = holding.stdout.readline().split()
    assert runs == "True"
    state = STATE_PARENT / name
    assert state.is_dir()
    assert all(group.is_dir() for group in control_groups(name))
    holding.send_signal(signal.SIGKILL)
    holding.wait()
    holding.stdin.close()
    holding.stdout.close()
    wait_until(lambda: not state.exists(), 20, "the node's folder is gone")
    assert not [group for group in control_groups(name) if group.exists()]
    asked = subprocess.run(["pgrep", "-f", name], capture_output=True, check=False)
    assert asked.returncode == 1, asked.stdout
