"""Objects that a Git-driven tool keeps for a release: penstock.yaml, policies, pair and passphrase.

They are what helm/examples/values/gitops.yaml names, and nothing else is written there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.kubernetes.applications import PREFIX
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.programs import KUBERNETES_VERSION
from tests.kubernetes.release import NAME, NAMESPACE, Release, values
from tests.peers import authority
from tests.peers.authority import Signer

EXAMPLE: Final = REPOSITORY / "helm" / "examples" / "values" / "gitops.yaml"
POLICIES: Final = "penstock-policies-security"
CASES: Final = "penstock-policies-cases"
CONFIGURATION: Final = "penstock-yaml"

LISTENERS: Final = {NAME: 8443, f"{NAME}-agents": 8445, f"{NAME}-operators": 8446}
"""Service → its port; all of them show the broker's own certificate."""

POLICY: Final = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
description: Services of this cluster, by the security team
names:
  allow: ["**.svc", "**.svc.cluster.local"]
  wildcards: false
challenges: [http-01]
keys:
  allow: [ec-p256]
cap: 7d
profiles:
  server:
    description: TLS servers in pods
    usages: [server-auth]
    upstreams: [{ upstream: local }]
default_profile: server
trusted:
  - nodes: ["**.cluster"]
    names: ["**.svc", "**.svc.cluster.local"]
    profiles: [server]
    because: the cluster vouches for its pods
"""

CASES_TEXT: Final = """\
apiVersion: penstock.dev/v1
kind: PolicyCases
policy: penstock-policies-security/default.yaml
cases:
  - name: the bank is not ours
    given:
      names: [www.bank.example]
      upstreams: [{ name: local, description: built-in }]
    expect: { decision: refuse, checks: [name-allowed], refused: [www.bank.example] }
    because: nobody here speaks for the bank
"""


def allowing(pattern: str) -> str:
    """Return the policy with one pattern of names more."""
    changed = POLICY.replace('allow: ["**.svc", ', f'allow: ["{pattern}", "**.svc", ', 1)
    assert changed != POLICY
    return changed


def config_map(name: str, data: Mapping[str, str], **labels: str) -> dict[str, Any]:
    """Return a ConfigMap in the release's namespace."""
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def policies(text: str) -> dict[str, Any]:
    """Return the security team's policies, which are looked at when they are applied."""
    return config_map(POLICIES, {"default.yaml": text}, **{f"{PREFIX}/policies": "default"})


def secret(name: str, data: Mapping[str, str], kind: str = "Opaque") -> dict[str, Any]:
    """Return a Secret in the release's namespace; *data* is in Base64."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": kind,
        "data": dict(data),
    }


def tls_secret(root: Signer, shown: Signer, key: Signer | None = None) -> dict[str, Any]:
    """Return the Secret with the broker's pair; *key* is another's, where they do not fit."""
    parts = {
        "tls.crt": shown.certificate_pem,
        "tls.key": (key or shown).key_pem(),
        "ca.crt": root.certificate_pem,
    }
    encoded = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return secret("penstock-tls", encoded, "kubernetes.io/tls")


def new_pair(root: Signer) -> Signer:
    """Return a certificate of the company's CA for every name of the broker."""
    return authority.make_server(root, [f"{name}.{NAMESPACE}.svc" for name in LISTENERS])


def configuration(release: Release, wanted: Mapping[str, Any]) -> str:
    """Return penstock.yaml as the chart would have made it: where somebody begins to keep it."""
    given = {key: value for key, value in wanted.items() if key != "existingConfigMap"}
    file = release.cluster.state / "gitops.json"
    file.write_text(json.dumps(values(given)), "utf-8")
    shown = ("--kube-version", KUBERNETES_VERSION, "--show-only", "templates/config.yaml")
    text = release.cluster.helm(
        "template", NAME, str(release.chart), "-n", NAMESPACE, "-f", str(file), *shown
    )
    found = {one["metadata"]["name"]: one for one in yaml.safe_load_all(text) if one}
    assert f"{NAME}-policies" not in found, "the chart's own policy is still there"
    return str(found[f"{NAME}-config"]["data"]["penstock.yaml"])
