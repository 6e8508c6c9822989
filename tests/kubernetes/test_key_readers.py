"""Who in a pod can read its key: the application's own user, and nobody beside it.

One pod with four containers that see each other's processes: nginx, whom the key is for; a
stranger who was not named; one who mounts the key's volume all the same; and one of nginx's own
user, by whom it is seen that whoever looks would find.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.kubernetes.applications import (
    PREFIX,
    USER,
    exposed,
    opted_in,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT
from tests.kubernetes.programs import PYTHON_TREE
from tests.kubernetes.release import Release

WHERE: Final = "readers"
APP: Final = "shared"
STRANGER: Final = USER + 1
SERVED_SECONDS: Final = 240.0

TLS: Final = "/var/run/penstock/tls"
BY_HAND: Final = "/by-hand"
KEY: Final = "tls.key"

SLEEP: Final = "import signal; signal.pause()"

READ: Final = """\
import json, os, sys
found = {}
# Under either name: where /var/run is a link, it leads to the /run of whoever looks.
for path in [*sys.argv[1:], *(
    f"/proc/{pid}/root{run}/penstock/tls/tls.key"
    for pid in os.listdir("/proc")
    for run in ("/run", "/var/run")
)]:
    try:
        with open(path) as file:
            found[path] = file.readline().strip()
    except OSError as error:
        found[path] = type(error).__name__
print(json.dumps(found))
"""
"""Tries to read the key by each path, and by the eyes of each process that is seen."""


def beside(name: str, user: int, *mounts: dict[str, Any]) -> dict[str, Any]:
    """Return a container that does nothing until it is told to look."""
    return {
        "name": name,
        "image": PYTHON_TREE.tag,
        "command": ["python3", "-c", SLEEP],
        "securityContext": {**STRICT, "runAsUser": user, "runAsGroup": user},
        "volumeMounts": list(mounts),
    }


def shared_pod(**more: str) -> dict[str, Any]:
    """Return the pod with its four containers."""
    wanted = {"inject": "true", "reload": "signal:HUP:/usr/sbin/nginx", **more}
    template = pod_template(APP, {f"{PREFIX}/{key}": value for key, value in wanted.items()})
    by_hand = {"name": "penstock-tls", "mountPath": BY_HAND}
    template["spec"]["containers"] += [
        beside("stranger", STRANGER),
        beside("nosy", STRANGER, by_hand),
        beside("same", USER),
    ]
    template["metadata"] |= {"name": APP, "namespace": WHERE}
    return {"apiVersion": "v1", "kind": "Pod", **template}


@pytest.fixture(scope="module")
def shared(release: Release) -> Iterator[Cluster]:
    """The pod, serving by its key."""
    cluster = release.cluster
    cluster.apply(opted_in(WHERE), settings(WHERE), exposed(APP, WHERE))
    cluster.apply(shared_pod(containers="main"))
    wait_served(cluster, release.trust(), APP, WHERE, seconds=SERVED_SECONDS)
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{APP}", "-n", WHERE, "--timeout=60s")
    yield cluster
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")


def read_by(cluster: Cluster, container: str) -> dict[str, str]:
    """Return what a container got by each path: the first line of the key, or how it failed."""
    inside = ("exec", APP, "-n", WHERE, "-c", container, "--")
    paths = (f"{TLS}/{KEY}", f"{BY_HAND}/{KEY}")
    told: dict[str, str] = json.loads(cluster.kubectl(*inside, "python3", "-c", READ, *paths))
    return told


def keys_in(found: dict[str, str]) -> list[str]:
    """Return the paths by which a key was read."""
    return [path for path, got in found.items() if "PRIVATE KEY" in got]


def test_the_applications_user_reads_the_key(shared: Cluster) -> None:
    """It is there for nginx, and a key."""
    inside = ("exec", APP, "-n", WHERE, "-c", "main", "--")
    assert "PRIVATE KEY" in shared.kubectl(*inside, "head", "-n", "1", f"{TLS}/{KEY}")


def test_a_container_that_is_not_named_has_no_mount(shared: Cluster) -> None:
    """There is no such folder for it, and other processes show it nothing."""
    found = read_by(shared, "stranger")
    assert keys_in(found) == []
    assert found[f"{TLS}/{KEY}"] == "FileNotFoundError"
    assert "PermissionError" in found.values(), "it sees processes of nginx's and the agent's"


def test_another_user_who_mounts_the_volume_cannot_read_the_key(shared: Cluster) -> None:
    """The folder is there, and what lies in it is for one user."""
    found = read_by(shared, "nosy")
    assert keys_in(found) == []
    assert found[f"{BY_HAND}/{KEY}"] == "PermissionError"


def test_the_same_user_would_have_found_it(shared: Cluster) -> None:
    """By nginx's processes, which it may look into: that the others failed means something."""
    found = read_by(shared, "same")
    assert found[f"{TLS}/{KEY}"] == "FileNotFoundError"
    assert keys_in(found)


def test_for_containers_of_several_users_it_has_to_be_named_whose_the_key_is(
    shared: Cluster,
) -> None:
    """Without the annotation the pod is refused, with both users in the sentence."""
    with pytest.raises(ClusterFailed, match=rf"several users.*{USER}.*{STRANGER}"):
        shared.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(shared_pod()))
