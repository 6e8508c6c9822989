"""A release whose broker becomes another version of itself, and what it has at a moment.

The versions after this one are its image with more migrations, and nothing else: what they are
called plays no part, for versions know each other by the store alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.deployments.versions import GENTLE, NEXT
from tests.fakes.hostile_ca import AfterFinalize, Behaviour
from tests.kubernetes.archives import extend_image
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import BROKER_IMAGE
from tests.kubernetes.limited_ca import LimitedCa
from tests.kubernetes.pods import namespace
from tests.kubernetes.release import INSTALL_SECONDS, NAME, NAMESPACE, Release, image_values
from tests.peers.process import wait_until

THIS: Final = BROKER_IMAGE
FOLLOWING: Final = f"{BROKER_IMAGE}-next"
"""The version after this one, which this one can live with."""

HARSH: Final = f"{BROKER_IMAGE}-harsh"
"""The version after that one, from which there is no way back."""

MIGRATIONS: Final = "opt/penstock/lib/python3.11/site-packages/broker/storage/migrations"
POD: Final = f"{NAME}-0"
BACKUPS: Final = "/var/lib/penstock/backups"
CONNECT_SECONDS: Final = 60.0
"""Longest wait until an agent is back; its pauses grow to 30 s while nobody answers."""

NO_WAY_BACK: Final = "CREATE TABLE of_the_one_after (a TEXT) STRICT;\n"
"""A migration that does not say that older programs could live with it."""

STORE: Final = f"""\
import json, pathlib, sqlite3
store = sqlite3.connect("file:/var/lib/penstock/penstock.db?mode=ro", uri=True)
rows = store.execute("SELECT version FROM schema_version ORDER BY version").fetchall()
backups = [path.name for path in pathlib.Path("{BACKUPS}").glob("*")]
print(json.dumps([[version for version, in rows], sorted(backups)]))
"""
"""What the store says of itself past the broker, and the backups beside it."""

SLOWLY: Final = Behaviour(
    authorizations_valid=True,
    after_finalize=AfterFinalize.PROCESSING,
    polls_until_done=20,
    retry_after="2",
)
"""A CA at which an order is for longer than a broker takes to end, however slow the machine is:
looks count, and not the time between them."""

POLICY: Final = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
description: Services of this cluster, and hosts of the company from a CA of theirs
names:
  allow: ["**.svc", "**.svc.cluster.local", "**.corp.example"]
  wildcards: false
challenges: [http-01]
keys:
  allow: [ec-p256]
cap: 30d
profiles:
  server:
    description: TLS servers in pods
    cap: 7d
    usages: [server-auth]
    upstreams: [{ upstream: local }]
  web:
    description: TLS servers of the company
    usages: [server-auth]
    upstreams: [{ upstream: extra }]
  slow:
    description: the same, from a public CA that takes its time
    usages: [server-auth]
    upstreams: [{ upstream: slow }]
default_profile: server
trusted:
  - nodes: ["**.cluster"]
    names: ["**.svc", "**.svc.cluster.local"]
    profiles: [server]
    because: the cluster vouches for its pods
  - eab: [acme]
    names: ["**.corp.example"]
    profiles: [web, slow]
    because: the company knows who has this key
"""


def later_values(ca: LimitedCa, key_id: str) -> dict[str, Any]:
    """Return the values of an upgrade that brings two CAs, a binding, and the policy for them."""
    web = {"usages": ["server-auth"], "lifetime": "7d", "max_lifetime": "30d"}
    extra = {
        "kind": "built-in",
        "base_url": '{{ include "penstock.plainUrl" . }}',
        "profiles": {"web": web},
    }
    binding = {"key_id": key_id, "mac_key": "file:/etc/penstock/secrets/acme/mac"}
    return {
        "config": {
            "upstreams": {"extra": extra, "slow": ca.upstream("slow")},
            "external_account_bindings": [binding],
        },
        "prepare": {"cas": {"extra": ["corp.example"]}},
        "policies": {"files": {"default.yaml": POLICY}},
        "files": {"slow": "slow-ca"},
        "secrets": {"acme": "acme-binding"},
    }


def policies(label: str) -> dict[str, Any]:
    """Return the ConfigMap of the policy alone, as that upgrade brings it."""
    metadata = {"name": f"{NAME}-policies", "namespace": NAMESPACE, "labels": {label: "all"}}
    data = {"default.yaml": POLICY}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def write_versions(archive: Path, target: Path) -> None:
    """Write the images of the versions that follow the broker's in *archive*."""
    following = {f"{MIGRATIONS}/{NEXT:04}_next.sql": GENTLE.encode()}
    harsh = {**following, f"{MIGRATIONS}/{NEXT + 1:04}_harsh.sql": NO_WAY_BACK.encode()}
    extend_image(archive, target, {FOLLOWING: following, HARSH: harsh})


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a broker has that must not be lost."""

    orders: Mapping[str, str]
    """Order that ended → how."""

    accounts: Mapping[str, str]
    certificates: frozenset[str]
    nodes: frozenset[str]

    def missing_in(self, later: Holdings) -> list[str]:
        """Return what *later* has no more, or has otherwise."""
        lost = [*sorted(self.certificates - later.certificates), *sorted(self.nodes - later.nodes)]
        for before, after in ((self.orders, later.orders), (self.accounts, later.accounts)):
            lost += [one for one, status in before.items() if after.get(one) != status]
        return lost


class Versioned(Release):
    """A release with the chart's own claim, whose broker is of one version or another."""

    def __init__(self, cluster: Cluster, chart: Path) -> None:
        super().__init__(cluster, chart)
        self.image = THIS
        self.settings: Mapping[str, Any] = {}
        """Values beside the image, from the next upgrade on."""

    def make_namespace(self) -> None:
        """Make its namespace, and a volume for the claim that the chart makes."""
        strict = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.cluster.apply(namespace(NAMESPACE, **strict))
        self.cluster.volume("anything")

    def send(self, verb: str, more: Mapping[str, Any] | None) -> str:
        """Install or upgrade to the version and the settings there are, and wait for nothing."""
        own = {"image": image_values(self.image), "persistence": {"size": "1Gi"}}
        return super().send(verb, {**own, **self.settings, **(more or {})})

    def become(self, image: str) -> None:
        """Upgrade to a version and wait until everything is ready."""
        self.image = image
        self.upgrade()

    def go_back(self) -> None:
        """Go back to the revision before, as `helm rollback` does, and wait for nothing."""
        self.cluster.helm("rollback", NAME, "-n", NAMESPACE, seconds=INSTALL_SECONDS)

    def try_out(self) -> str:
        """Run `helm test`.

        Raises:
            ClusterFailed: It failed.
        """
        return self.cluster.helm("test", NAME, "-n", NAMESPACE, seconds=INSTALL_SECONDS)

    def running_image(self) -> str:
        """Return the image that the broker's pod runs."""
        pod = self.cluster.get("pod", POD, namespace=NAMESPACE)
        return str(pod["spec"]["containers"][0]["image"])

    def prepared(self) -> str:
        """Return the log of what ran before the broker of the pod there is."""
        return self.cluster.kubectl("logs", POD, "-n", NAMESPACE, "-c", "prepare")

    def migrated(self) -> tuple[list[int], list[str]]:
        """Return the migrations that were applied and the names of backups, past the broker."""
        python = ("/opt/penstock/bin/python", "-c", STORE)
        told = self.cluster.kubectl("exec", POD, "-n", NAMESPACE, "-c", "broker", "--", *python)
        migrations, backups = json.loads(told)
        return migrations, backups

    def backup(self, name: str) -> str:
        """Return where a backup of before a migration is in the pod."""
        return f"{BACKUPS}/{name}"

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """Return all of a kind as the broker's own command tells it."""
        found = json.loads(self.penstock(kind, "list", "--json", "--limit", "1000"))
        rows: list[dict[str, Any]] = found if isinstance(found, list) else found["certificates"]
        return rows

    def holdings(self) -> Holdings:
        """Return what it has."""
        ended = {"valid", "invalid"}
        orders = {
            one["order"]: one["status"] for one in self.listed("order") if one["status"] in ended
        }
        return Holdings(
            orders=orders,
            accounts={one["account"]: one["status"] for one in self.listed("account")},
            certificates=frozenset(one["serial"] for one in self.listed("cert")),
            nodes=frozenset(one["node"] for one in self.listed("node")),
        )

    def statuses(self, name: str) -> list[str]:
        """Return the statuses of all orders for a name."""
        return [one["status"] for one in self.listed("order") if name in one["names"]]

    def wait_connected(self, node: str) -> None:
        """Wait until a node's agent is connected.

        Raises:
            PeerFailed: It is not.
        """
        wait_until(lambda: self._is_connected(node), CONNECT_SECONDS, f"{node} is connected")

    def _is_connected(self, node: str) -> bool:
        return any(one["connected"] for one in self.listed("node") if one["node"] == node)
