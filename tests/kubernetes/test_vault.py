"""The chart with its keys in Vault, on a cluster of its own: tokens, a seal, and who waits."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.kubernetes.applications import (
    address_of,
    application,
    events,
    exposed,
    look,
    opted_in,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import CLAIM, NAME, NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.kubernetes.vault_beside import VaultBeside
from tests.peers.process import wait_until

EXAMPLE: Final = REPOSITORY / "helm" / "examples" / "values" / "vault.yaml"
AUDIENCE: Final = "vault"
WHERE: Final = "sealed"
SERVED_SECONDS: Final = 120.0
SAID_SECONDS: Final = 90.0
WAITING: Final = ("first", "second", "third")
"""Applications that start while Vault is sealed."""


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


def certificates(release: Release) -> list[dict[str, Any]]:
    """Return every certificate that the broker knows of."""
    told = json.loads(release.penstock("cert", "list", "--json", "--limit", "1000"))
    listed: list[dict[str, Any]] = told["certificates"] if isinstance(told, dict) else told
    return listed


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
    """New pods say what they wait for; after the unseal each has its one certificate."""
    cluster = release.cluster
    before = served(release, "steady")
    known = {one["serial"] for one in certificates(release)}
    vault.seal()
    for name in WAITING:
        cluster.apply(exposed(name, WHERE), application(name, WHERE))
    wait_until(
        lambda: any("Startup probe failed" in one and "ault" in one for one in told(cluster)),
        SAID_SECONDS,
        "an event says that Vault is waited for",
    )
    for name in WAITING:
        with pytest.raises(ClusterFailed):
            look(cluster, release.trust(), address_of(cluster, name, WHERE), f"{name}.{WHERE}.svc")
    assert served(release, "steady") == before
    said = next(one for one in told(cluster) if "Startup probe failed" in one and "ault" in one)
    vault.unseal()
    begun = time.monotonic()
    for name in WAITING:
        wait_served(cluster, release.trust(), name, WHERE, seconds=SERVED_SECONDS)
    taken = time.monotonic() - begun
    assert served(release, "steady") == before
    new = [one for one in certificates(release) if one["serial"] not in known]
    assert len(new) == len(WAITING)
    assert len({one["order"] for one in new}) == len(WAITING)
    heading = "Keys in Vault"
    report.figure(heading, "what a pod says while Vault is sealed", said.strip())
    report.figure(heading, f"from the unseal until {len(WAITING)} pods serve", f"{taken:.1f} s")


def told(cluster: Cluster) -> list[str]:
    """Return what events of the namespace say."""
    return events(cluster, WHERE)
