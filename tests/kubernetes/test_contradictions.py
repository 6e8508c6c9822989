"""Values that contradict each other, at a real `helm install`: a sentence, and nothing is made.

Every contradiction is tried by rendering (tests/packaging/test_chart_values.py); these are a few of
them as whoever types the command meets them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.kubernetes.configuration import ISSUER
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import Release

WHERE: Final = "default"

RULE: Final = {"namespaces": ["*"], "service_accounts": ["*"], "names": ["{pod}.other.example"]}
OTHER: Final = {"issuer": ISSUER, "keys": "/etc/penstock/files/other/keys.json", "rules": [RULE]}

CONTRADICTIONS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "two-passphrases": (
        {"keys": {"existingSecret": "mine"}, "config": {"keys": {"passphrase": "env:PASS"}}},
        "config.keys.passphrase is env:PASS and keys.existingSecret is mine: leave one of them out",
    ),
    "sidecars-that-cannot-enrol": (
        {"cluster": {"enabled": False}},
        "admission.enabled adds sidecars to pods, and cluster.enabled is false",
    ),
    "a-certificate-that-pods-cannot-verify": (
        {"tls": {"source": "secret", "secretName": "mine"}},
        "tls.caKey is empty: pods would have nothing to verify the broker by",
    ),
    "two-clusters-of-one-issuer": (
        {"config": {"agents": {"clusters": {"other": OTHER}}}},
        "config.agents.clusters.other has the issuer of cluster.issuer",
    ),
}
"""What is wrong → values, and a part of the sentence."""


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused_with_a_sentence(
    release: Release, what: str
) -> None:
    """And no release is there afterwards; what `release` itself was installed with is the twin."""
    values, sentence = CONTRADICTIONS[what]
    cluster = release.cluster
    file = cluster.state / "contradiction.json"
    file.write_text(json.dumps(values), "utf-8")
    with pytest.raises(ClusterFailed) as refused:
        cluster.helm("install", what, str(release.chart), "-n", WHERE, "-f", str(file))
    assert sentence in " ".join(str(refused.value).split())
    assert json.loads(cluster.helm("list", "-n", WHERE, "--all", "-o", "json")) == []
    with pytest.raises(ClusterFailed, match="not found"):
        cluster.get("statefulset", f"{what}-penstock", namespace=WHERE)
