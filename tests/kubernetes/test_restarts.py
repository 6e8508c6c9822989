"""Replicas that are restarted again and again, where the CA issues few certificates per name set.

A key in memory is a new key at each start.  A public CA that was granted by policy is used up to
the budget of the workload; from then on the built-in CA issues, and no pod waits for next week.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kubernetes.applications import (
    application,
    exposed,
    look,
    opted_in,
    settings,
    wait_served,
)
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.limited_ca import PER_NAMES, LimitedCa
from tests.kubernetes.release import NAMESPACE, Release
from tests.kubernetes.report import Report

WHERE = "restarts"
RESTARTS = 5
ROLLOUT_SECONDS = 600
CA_TOLD = f"the tests' own, with a ledger: {PER_NAMES} certificates per set of names in a week"
"""What the report calls it: no public CA is to be had here, and Pebble has no such limit."""

POLICY = f"""\
apiVersion: penstock.dev/v1
kind: Policy
community: default
description: Services of this cluster; a public CA as far as its budget goes, then the built-in one
names:
  allow: ["**.svc"]
  wildcards: false
challenges: [http-01]
keys:
  allow: [ec-p256]
cap: 7d
profiles:
  server:
    description: TLS servers in pods
    usages: [server-auth]
    upstreams: [{{ upstream: public }}, {{ upstream: local }}]
default_profile: server
trusted:
  - nodes: ["**.cluster"]
    names: ["**.svc"]
    profiles: [server]
    because: the cluster vouches for its pods
rules:
  - name: public-budget
    because: one workload may not take what the public CA gives to all
    quotas:
      - {{ per: workload, limit: {PER_NAMES}/7d, upstreams: [public] }}
"""


@pytest.fixture(scope="module")
def ca(release: Release) -> Iterator[LimitedCa]:
    """The broker with a public CA beside its own, and a budget for each workload."""
    cluster = release.cluster
    limited = LimitedCa(cluster)
    limited.start()
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "public-ca", "namespace": NAMESPACE},
            "data": limited.files(),
        }
    )
    rule = {
        "namespaces": ["*"],
        "service_accounts": ["*"],
        "names": ["{service}.{namespace}.svc"],
        "upstreams": ["public", "local"],
    }
    # All in one: what is new in the policy and what it needs of the configuration.
    release.upgrade(
        {
            "config": {"upstreams": {"public": limited.upstream()}},
            "files": {"public": "public-ca"},
            "policies": {"files": {"default.yaml": POLICY}},
            "cluster": {"rules": [rule]},
        }
    )
    release.penstock("upstream", "register", "public", "--agree-to-terms")
    yield limited
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false", "--ignore-not-found")
    release.upgrade()


@pytest.mark.timeout(3600)
def test_twenty_replicas_restarted_five_times_all_serve(
    ca: LimitedCa, release: Release, report: Report, replica_count: int
) -> None:
    """A hundred keys for one name set, five certificates of the CA, and every pod is served."""
    cluster = release.cluster
    cluster.apply(opted_in(WHERE), settings(WHERE))
    cluster.apply(exposed("web", WHERE), application("web", WHERE, replicas=replica_count))
    wait_rolled_out(cluster)
    for _ in range(RESTARTS):
        cluster.kubectl("rollout", "restart", "deployment/web", "-n", WHERE)
        wait_rolled_out(cluster)
    issuers = Counter(issuer_of(cluster, release, address) for address in addresses(cluster))
    assert sum(issuers.values()) == replica_count
    wait_served(cluster, release.trust(), "web", WHERE, seconds=30)
    ledger = ca.ledger()
    issued = Counter(one.names for one in ledger.certificates)
    assert issued == {(f"web.{WHERE}.svc",): PER_NAMES}
    assert max(Counter(one.order_id for one in ledger.certificates).values()) == 1
    heading = f"{replica_count} replicas restarted {RESTARTS} times"
    # The budget is what the CA gives, so the broker never asks it for a sixth.
    assert len(ledger.orders) == PER_NAMES, ledger.orders
    report.figure(heading, "the public CA", CA_TOLD)
    report.figure(heading, "pods started", str(replica_count * (RESTARTS + 1)))
    report.figure(heading, "certificates of the public CA, by its ledger", str(PER_NAMES))
    report.figure(heading, "orders that it refused, of all that it was asked for", "none")
    report.figure(heading, "pods that serve at the end", f"{replica_count} of {replica_count}")


def wait_rolled_out(cluster: Cluster) -> None:
    """Wait until every replica of the newest kind is ready and no other is left."""
    status = ("rollout", "status", "deployment/web", "-n", WHERE)
    limit = f"--timeout={ROLLOUT_SECONDS}s"
    cluster.kubectl(*status, limit, seconds=ROLLOUT_SECONDS + 20)


def addresses(cluster: Cluster) -> list[str]:
    """Return the addresses of the pods that are not about to go."""
    found = cluster.get("pods", namespace=WHERE, labels="app=web")["items"]
    living = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return [one["status"]["podIP"] for one in living]


def issuer_of(cluster: Cluster, release: Release, address: str) -> str:
    """Return who issued what a pod serves, after it verified."""
    served = look(cluster, release.trust(), address, f"web.{WHERE}.svc", port=8443)
    return str(served.issuer.rfc4514_string())
