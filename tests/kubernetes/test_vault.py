"""The chart with its keys in Vault, on a cluster of its own: tokens, a seal, and who waits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.kubernetes import faults
from tests.kubernetes.applications import (
    address_of,
    application,
    exposed,
    look,
    opted_in,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.issued import Issued, issued_for, served_by_each, twice
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import living
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import CLAIM, NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.kubernetes.telling import WAITING, wait_told
from tests.kubernetes.vault_beside import VaultBeside
from tests.peers.process import wait_until

EXAMPLE: Final = REPOSITORY / "helm" / "examples" / "values" / "vault.yaml"
AUDIENCE: Final = "vault"
WHERE: Final = "sealed"
SERVED_SECONDS: Final = 240.0
SAID_SECONDS: Final = 180.0
NEW: Final = ("first", "second", "third")
"""Applications that start while Vault is sealed."""

MOVED: Final = "moved"
"""One more, whose pod is evicted while its order waits for Vault."""


def example(audience: str = AUDIENCE) -> dict[str, Any]:
    """Return the values of the example, with another audience of the pod's token."""
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    found["vault"]["audience"] = audience
    return found


@pytest.fixture(scope="module")
def empty(archives: list[Path]) -> Iterator[Release]:
    """A release that is not installed yet, on a cluster of its own."""
    with Cluster() as cluster:
        for archive in (*archives, *(tree_archive(tree) for tree in TREES)):
            cluster.load_image(archive)
        release = Release(cluster)
        release.make_namespace()
        yield release


@pytest.fixture(scope="module")
def vault(empty: Release) -> VaultBeside:
    """A Vault, set up by what `penstock vault setup` prints for the chart's configuration."""
    cluster = empty.cluster
    beside = VaultBeside(cluster)
    beside.start()
    ca = {"name": "vault-ca", "namespace": NAMESPACE}
    trusted = {"ca.crt": beside.ca_pem}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": ca, "data": trusted})
    empty.send("install", example(audience="elsewhere"))
    config = cluster.state / "penstock.yaml"
    written = cluster.get("configmap", f"{NAME}-config", namespace=NAMESPACE)
    config.write_text(written["data"]["penstock.yaml"], "utf-8")
    beside.set_up(config, audience=AUDIENCE)
    beside.vault("kv", "put", "-mount=kv", "penstock", f"passphrase={secrets.token_urlsafe(32)}")
    # What it was refused before Vault knew the roles is of no interest.
    cluster.kubectl("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    return beside


@pytest.fixture(scope="module")
def release(empty: Release, vault: VaultBeside) -> Release:
    """The release with its keys in Vault, and an application that serves."""
    empty.upgrade(example())
    cluster = empty.cluster
    cluster.apply(opted_in(WHERE), settings(WHERE))
    cluster.apply(exposed("steady", WHERE), application("steady", WHERE))
    wait_served(cluster, empty.trust(), "steady", WHERE, seconds=SERVED_SECONDS)
    return empty


def ended_with(cluster: Cluster) -> str:
    """Return what the preparation of the broker's pod said when it ended last."""
    pod = cluster.get("pod", f"{NAME}-0", namespace=NAMESPACE)
    preparing = pod["status"].get("initContainerStatuses", ())
    states = [one.get(word, {}) for one in preparing for word in ("state", "lastState")]
    told = [state["terminated"].get("message", "") for state in states if "terminated" in state]
    return "\n".join(told)


def served(release: Release, name: str) -> int:
    """Return the serial number of what an application serves, once it verifies."""
    address = address_of(release.cluster, name, WHERE)
    found = look(release.cluster, release.trust(), address, f"{name}.{WHERE}.svc")
    return int(found.serial_number)


def pod_of(cluster: Cluster, name: str) -> str:
    """Return the name of an application's pod, once there is one."""
    wait_until(lambda: len(living(cluster, name, WHERE)) == 1, SAID_SECONDS, f"{name} has a pod")
    (pod,) = living(cluster, name, WHERE)
    return str(pod["metadata"]["name"])


def issued(release: Release, name: str) -> list[Issued]:
    """Return what Vault's keys have signed for an application."""
    return issued_for(release, f"{name}.{WHERE}.svc")


def test_a_token_for_another_audience_does_not_open_vault(
    empty: Release, vault: VaultBeside
) -> None:
    """The pod does not start and says who was refused; with the right audience it is ready."""
    cluster = empty.cluster
    wait_until(lambda: "audience" in ended_with(cluster), SAID_SECONDS, "it says why")
    told = ended_with(cluster)
    assert '"state": "denied"' in told
    assert "penstock: hint:" in told
    assert "Traceback" not in told
    empty.upgrade(example())
    assert "penstock-0" in cluster.kubectl("get", "pods", "-n", NAMESPACE)
    assert "penstock.local.issuing" in vault.vault("list", "transit-ca/keys")


def test_no_key_of_the_ca_lies_on_the_volume(release: Release) -> None:
    """What signs for pods is in Vault; the CA that is not told so has its key files there."""
    folder = release.cluster.state / "volumes" / CLAIM / "keys"
    keys = {path.name for path in folder.iterdir()}
    assert "ca-nodes-issuing-1.pem" in keys
    assert not [name for name in keys if "local" in name]


@pytest.mark.timeout(600)
def test_while_vault_is_sealed_who_serves_goes_on_and_who_is_new_waits(
    release: Release, vault: VaultBeside, report: Report
) -> None:
    """Each new pod says what it waits for; after the unseal each has its certificate, and no order
    and no CSR has a second one, that of a pod that was evicted meanwhile included."""
    cluster = release.cluster
    before = served(release, "steady")
    vault.seal()
    for name in (*NEW, MOVED):
        cluster.apply(exposed(name, WHERE), application(name, WHERE))
    said = [wait_told(cluster, pod_of(cluster, one), WHERE, WAITING, "ault") for one in NEW]
    evict_while_it_waits(cluster)
    for name in (*NEW, MOVED):
        with pytest.raises(ClusterFailed):
            look(cluster, release.trust(), address_of(cluster, name, WHERE), f"{name}.{WHERE}.svc")
        assert issued(release, name) == []
    assert served(release, "steady") == before
    vault.unseal()
    begun = time.monotonic()
    for name in NEW:
        wait_served(cluster, release.trust(), name, WHERE, seconds=SERVED_SECONDS)
    taken = time.monotonic() - begun
    wait_served(cluster, release.trust(), MOVED, WHERE, seconds=SERVED_SECONDS)
    assert served(release, "steady") == before
    for name in NEW:
        assert [one.serial for one in issued(release, name)] == served_by_each(release, name, WHERE)
    found = issued(release, MOVED)
    # What the evicted pod had asked for is its own order, and that pod is nobody any more.
    assert len(found) <= 2
    assert set(served_by_each(release, MOVED, WHERE)) <= {one.serial for one in found}
    assert twice([*found, *(one for name in NEW for one in issued(release, name))]) == []
    heading = "Keys in Vault"
    report.figure(
        heading, "what a pod says while Vault is sealed", WAITING + said[0].partition(WAITING)[2]
    )
    report.figure(heading, f"from the unseal until {len(NEW)} pods serve", f"{taken:.1f} s")


def evict_while_it_waits(cluster: Cluster) -> None:
    """Evict a pod whose CSR the broker has; the one in its place says the same."""
    first = pod_of(cluster, MOVED)
    wait_told(cluster, first, WHERE, WAITING, "ault")
    faults.evict(cluster, first, namespace=WHERE)
    second = pod_of(cluster, MOVED)
    assert second != first
    wait_told(cluster, second, WHERE, WAITING, "ault")
