"""A version up, a version back, and all of it again: no order, agent or certificate is lost.

On a cluster of its own, whose release goes from version to version.  The tests stand in the order
in which that happens.
"""

from __future__ import annotations

import datetime
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from tests.deployments.versions import NEXT
from tests.kubernetes.acme_pod import AcmePod, Watch
from tests.kubernetes.applications import (
    PREFIX,
    address_of,
    application,
    exposed,
    look,
    opted_in,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.limited_ca import LimitedCa
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import CHART, NAME, NAMESPACE
from tests.kubernetes.report import Report
from tests.kubernetes.upgrading import (
    FOLLOWING,
    HARSH,
    POD,
    SLOWLY,
    THIS,
    Holdings,
    Versioned,
    later_values,
    policies,
    write_versions,
)
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "upgrades"
SERVED_SECONDS: Final = 240.0
BEGUN_SECONDS: Final = 90.0
"""Longest wait until an order has come to its CA."""

REFUSED_SECONDS: Final = 120.0
"""Longest wait until a pod says why it does not start; some 10 s on an idle machine."""

UNDER_WAY: Final = "under-way.corp.example"
KEY_ID: Final = "acme"
HEADING: Final = "Upgrades"


@pytest.fixture(scope="module")
def empty(archives: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versioned]:
    """A release that is not installed yet, on a cluster of its own with all versions of it."""
    folder = tmp_path_factory.mktemp("versions")
    (broker,) = [archive for archive in archives if "broker" in archive.name]
    write_versions(broker, folder / "later.tar")
    chart = shutil.copytree(CHART, folder / "penstock")
    with Cluster() as cluster:
        for archive in (*archives, folder / "later.tar", *(tree_archive(tree) for tree in TREES)):
            cluster.load_image(archive)
        release = Versioned(cluster, chart)
        release.make_namespace()
        yield release


@pytest.fixture(scope="module")
def begun(empty: Versioned) -> Versioned:
    """The release, installed with what it has by default and tried, and who is served by it."""
    empty.install()
    empty.try_out()
    empty.cluster.apply(opted_in(WHERE), settings(WHERE))
    serve(empty, "steady")
    return empty


@pytest.fixture(scope="module")
def ca(empty: Versioned) -> LimitedCa:
    """A public CA whose orders stay `processing` until they were looked at often enough."""
    limited = LimitedCa(empty.cluster)
    limited.start(SLOWLY)
    return limited


@pytest.fixture(scope="module")
def client(begun: Versioned, ca: LimitedCa) -> AcmePod:
    """An ACME client, and what its binding and the public CA need in the broker's namespace."""
    mac_key = secrets.token_urlsafe(32)
    pod = AcmePod(begun.cluster, KEY_ID, mac_key)
    pod.start(begun.trust())
    binding = {"name": "acme-binding", "namespace": NAMESPACE}
    files = {"name": "slow-ca", "namespace": NAMESPACE}
    begun.cluster.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": binding, "stringData": {"mac": mac_key}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": files, "data": ca.files()},
    )
    return pod


@dataclass(frozen=True, slots=True)
class Settled:
    """The release after an upgrade that brought more than one thing that needs the other."""

    release: Versioned
    refused: str
    """What is said of the policy while the CA that it names is not there."""


@pytest.fixture(scope="module")
def settled(begun: Versioned, ca: LimitedCa, client: AcmePod) -> Settled:
    """The release with a second built-in CA, a public one, a binding and the policy for them."""
    refused = ""
    try:
        begun.cluster.kubectl(
            *("apply", "--dry-run=server", "-f", "-"),
            text=json.dumps(policies(f"{PREFIX}/policies")),
        )
    except ClusterFailed as error:
        refused = str(error)
    begun.settings = later_values(ca, KEY_ID)
    begun.upgrade()
    begun.penstock("upstream", "register", "slow", "--agree-to-terms")
    return Settled(begun, refused)


@dataclass(frozen=True, slots=True)
class Ride:
    """An upgrade to the version after, and what was seen of it by those who were under way."""

    release: Versioned
    before: Holdings
    pods: Any
    """The pods of the application, as they were before."""

    serial: int
    """What it served before."""

    chain: str
    """What came of the order that was under way."""

    watch: Watch
    seconds: float


@pytest.fixture(scope="module")
def ride(settled: Settled, client: AcmePod) -> Ride:
    """Upgrade while an order is at its CA, and an agent is connected."""
    release = settled.release
    before, pods, serial = release.holdings(), pods_of(release), served(release, "steady")
    with client.watching() as watch, client.obtaining(UNDER_WAY, profile="slow") as coming:
        wait_until(lambda: is_processing(release, coming), BEGUN_SECONDS, "the order is at its CA")
        begun = time.monotonic()
        release.become(FOLLOWING)
        seconds = time.monotonic() - begun
        chain = coming.result()
    return Ride(release, before, pods, serial, chain, watch, seconds)


def is_processing(release: Versioned, coming: Future[str]) -> bool:
    """Say whether the broker has the order at its CA; raise what the client ended with."""
    if coming.done():
        raise ClusterFailed(f"the client was done too early: {coming.result()}")
    return release.statuses(UNDER_WAY) == ["processing"]


def serve(release: Versioned, name: str, *, roots: str = "") -> None:
    """Start an application and wait until it serves what verifies."""
    cluster = release.cluster
    cluster.apply(exposed(name, WHERE), application(name, WHERE))
    wait_served(cluster, roots or release.trust(), name, WHERE, seconds=SERVED_SECONDS)


def served(release: Versioned, name: str, *, roots: str = "") -> int:
    """Return the serial number of what an application serves, once it verifies."""
    address = address_of(release.cluster, name, WHERE)
    found = look(release.cluster, roots or release.trust(), address, f"{name}.{WHERE}.svc")
    return int(found.serial_number)


def pods_of(release: Versioned) -> list[tuple[str, list[int]]]:
    """Return the pods of the application that serves throughout, and how often what restarted."""
    found = release.cluster.get("pods", namespace=WHERE, labels="app=steady")["items"]
    kinds = ("initContainerStatuses", "containerStatuses")
    return [
        (
            one["metadata"]["name"],
            [each["restartCount"] for kind in kinds for each in one["status"][kind]],
        )
        for one in found
    ]


def steady_node(release: Versioned) -> str:
    """Return the node of the application that serves throughout."""
    ((pod, _),) = pods_of(release)
    return f"{pod}.{WHERE}.cluster"


def issuer(chain: str) -> str:
    """Return who issued the first certificate of a chain."""
    return x509.load_pem_x509_certificates(chain.encode())[0].issuer.rfc4514_string()


def test_more_than_one_broker_is_refused_at_install(empty: Versioned) -> None:
    """With the reason, and nothing is made; its twin with one is what all others stand on."""
    with pytest.raises(ClusterFailed, match=r"replicaCount is 2: .* would order twice"):
        empty.send("install", {"replicaCount": 2})
    assert empty.cluster.get("statefulset", namespace=NAMESPACE)["items"] == []


def test_one_upgrade_brings_a_ca_and_the_policy_that_uses_it(
    settled: Settled, client: AcmePod
) -> None:
    """Neither is there before the other; without the CA the policy is refused."""
    assert "no upstream is called 'extra'" in settled.refused
    assert settled.release.migrated() == (list(range(1, NEXT)), [])
    chain = client.obtain("first.corp.example", profile="web")
    assert "Penstock extra" in issuer(chain)
    settled.release.try_out()


def test_an_order_under_way_gets_its_one_certificate(
    ride: Ride, ca: LimitedCa, report: Report
) -> None:
    """The client polls through it all and ends well; the CA had one order and issued once."""
    release, ledger = ride.release, ca.ledger()
    assert [one.names for one in ledger.orders] == [(UNDER_WAY,)]
    assert [one.order_id for one in ledger.certificates] == [ledger.orders[0].order_id]
    (certificate,) = [one for one in release.listed("cert") if UNDER_WAY in one["names"]]
    leaf = x509.load_pem_x509_certificates(ride.chain.encode())[0]
    assert int(certificate["serial"], 16) == leaf.serial_number
    pod = release.cluster.get("pod", POD, namespace=NAMESPACE)
    started = datetime.datetime.fromisoformat(pod["status"]["startTime"])
    assert datetime.datetime.fromisoformat(certificate["received"]) > started
    assert release.running_image() == FOLLOWING
    assert ride.before.missing_in(release.holdings()) == []
    assert ride.watch.failures > 0, "nobody would have seen the upgrade"
    report.figure(
        HEADING, "helm upgrade until all is ready, a migration in it", f"{ride.seconds:.1f} s"
    )
    pause = f"{ride.watch.longest_seconds:.1f} s"
    report.figure(HEADING, "longest pause that a client saw meanwhile", pause)


def test_a_connected_agent_rides_the_upgrade_out(ride: Ride) -> None:
    """It is connected again by itself; its pod and what it serves are those of before."""
    ride.release.wait_connected(steady_node(ride.release))
    assert pods_of(ride.release) == ride.pods
    assert served(ride.release, "steady") == ride.serial


def test_a_backup_precedes_the_migration(ride: Ride) -> None:
    """One of each: the backup verifies and is of the schema before; the new version works."""
    release = ride.release
    migrations, backups = release.migrated()
    assert migrations == list(range(1, NEXT + 1))
    assert len(backups) == 1
    told = json.loads(release.penstock("backup", "verify", release.backup(backups[0]), "--json"))
    assert told["schema"] == NEXT - 1
    events = [json.loads(line)["event"] for line in release.prepared().splitlines()]
    assert events == ["backup before migrations", "store migrated"]
    release.try_out()


def test_rollback_by_one_version_loses_nothing(ride: Ride, client: AcmePod, report: Report) -> None:
    """The version before works with the newer store; the way up again migrates nothing twice."""
    release = ride.release
    before, of_store, serial = release.holdings(), release.migrated(), served(release, "steady")
    begun = time.monotonic()
    release.go_back()
    release.wait()
    taken = f"{time.monotonic() - begun:.1f} s"
    report.figure(HEADING, "helm rollback by one version until all is ready", taken)
    assert release.running_image() == THIS
    assert before.missing_in(release.holdings()) == []
    client.obtain("below.corp.example", profile="web")
    serve(release, "below")
    release.wait_connected(steady_node(release))
    release.try_out()
    assert release.migrated() == of_store
    below = release.holdings()
    release.become(FOLLOWING)
    assert release.migrated() == of_store
    assert release.prepared() == ""
    assert below.missing_in(release.holdings()) == []
    assert release.statuses("below.corp.example") == ["valid"]
    assert served(release, "steady") == serial


def test_what_stays_when_the_release_goes_is_gone_on_with(ride: Ride, client: AcmePod) -> None:
    """Passphrase and claim outlive it; a second install has the CAs, accounts, orders and nodes."""
    release = ride.release
    cluster, roots = release.cluster, release.trust()
    before, serial = release.holdings(), served(release, "steady")
    release.uninstall()
    kept = [("secret", f"{NAME}-keys"), ("persistentvolumeclaim", f"state-{POD}")]
    marks = [cluster.get(*one, namespace=NAMESPACE)["metadata"]["uid"] for one in kept]
    assert cluster.get("statefulset", namespace=NAMESPACE)["items"] == []
    assert served(release, "steady", roots=roots) == serial
    release.install()
    assert [cluster.get(*one, namespace=NAMESPACE)["metadata"]["uid"] for one in kept] == marks
    assert release.trust() == roots
    assert before.missing_in(release.holdings()) == []
    client.obtain("again.corp.example", profile="web")
    assert len([one for one in release.listed("account") if one["eab_key"] == KEY_ID]) == 1
    release.wait_connected(steady_node(release))
    serve(release, "again", roots=roots)
    assert served(release, "steady") == serial


def test_without_a_way_back_a_rollback_is_refused(ride: Ride, client: AcmePod) -> None:
    """Pod and log say why; what serves goes on, and forward again nothing is lost."""
    release = ride.release
    cluster, serial = release.cluster, served(release, "steady")
    release.become(HARSH)
    of_store, before = release.migrated(), release.holdings()
    assert of_store[0] == list(range(1, NEXT + 2))
    release.go_back()
    reason = f"store has schema {NEXT + 1}, this version knows {NEXT}"
    wait_until(lambda: reason in described(cluster), REFUSED_SECONDS, "the pod says why it waits")
    assert "the way back is a backup of before" in described(cluster)
    assert reason in release.prepared()
    assert served(release, "steady") == serial
    release.become(HARSH)
    assert release.migrated() == of_store
    assert before.missing_in(release.holdings()) == []
    release.wait_connected(steady_node(release))
    client.obtain("forward.corp.example", profile="web")


def described(cluster: Cluster) -> str:
    """Return what `kubectl describe` says of the broker's pod, if there is one."""
    try:
        return cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    except ClusterFailed:
        return ""
