"""Files that a Go module publishes and no program is built from: schemas of other people's kinds.

They are taken from the module proxy as the peers' sources are, the module's hash checked, and kept
in the same cache.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from tests.peers.installation import CACHE, GoPeer, PeerMissing, go_toolchain, short_hash

__all__ = ["PROMETHEUS_KINDS", "install_published", "published"]

PROMETHEUS_OPERATOR: Final = GoPeer(
    "prometheus-operator-kinds",
    "0.85.0",
    "github.com/prometheus-operator/prometheus-operator",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    "example/prometheus-operator-crd",
)
"""Definitions of the kinds by which Prometheus is told what to scrape and when to alert."""

PROMETHEUS_KINDS: Final = {
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}
"""Kind → the file that defines it; only these are kept."""


def _home() -> Path:
    peer = PROMETHEUS_OPERATOR
    digest = short_hash(peer.module_sum, peer.package, *PROMETHEUS_KINDS.values())
    return CACHE / f"{peer.name}-{peer.version}-{digest}"


def published(kind: str) -> Path:
    """Return the file that defines *kind*.

    Raises:
        PeerMissing: Run ``tests/peers/install``; a test never skips for it.
    """
    path = _home() / PROMETHEUS_KINDS[kind]
    if not path.exists():
        raise PeerMissing(f"definition of {kind} is not installed; run tests/peers/install")
    return path


def install_published() -> None:
    """Put the definitions into the cache, from the module as it is pinned."""
    from tests.peers.installing import CannotInstall, built_once, fetch_module, say

    peer = PROMETHEUS_OPERATOR
    toolchain = go_toolchain()
    if toolchain is None:
        raise CannotInstall(f"{peer.name} {peer.version} needs Go and there is none")
    if _home().exists():
        return
    with built_once(_home()) as scratch:
        if scratch is None:
            return
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
        source = fetch_module(peer, toolchain[0], scratch, env)
        for name in PROMETHEUS_KINDS.values():
            shutil.copyfile(source / peer.package / name, scratch / "ready" / name)
        say(f"{peer.name} {peer.version}: taken from its module")
