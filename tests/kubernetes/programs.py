"""Which programs the cluster consists of, and where they are kept.

They lie in the same cache as the other peers, outside the clone, under names that hold the version,
the toolchain and everything they were built from.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.peers.installation import (
    BUILD_FLAGS,
    CACHE,
    PeerMissing,
    VenvPeer,
    find_command,
    go_toolchain,
    short_hash,
    venv_home,
)

HERE: Final = Path(__file__).resolve().parent
MODULES: Final = HERE / "modules"

KUBERNETES_VERSION: Final = "1.34.2"
"""Version of every part of Kubernetes here; the go.mod of its group has the same."""


def version_flags(version: str) -> str:
    """Return the linker's flags that tell Kubernetes its own version.

    Without them it calls itself v0.0.0, and helm refuses every chart that asks for a version.
    """
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    values |= {"gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z"}
    return " ".join(
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    )


@dataclass(frozen=True, slots=True)
class GoGroup:
    """Go programs that are built together, from one module of our own that pins the rest."""

    name: str
    version: str
    packages: Mapping[str, str]
    """Program → the package it is built from."""

    link: str = ""
    """More flags for the linker."""

    assets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name of a folder to keep beside the programs → the module and the folder in it."""

    @property
    def folder(self) -> Path:
        """Where its module lies."""
        return MODULES / self.name

    def sources(self) -> list[Path]:
        """Return the files that decide what is built, by their paths in the module's folder."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder) for path in found)


_KUBERNETES_COMMANDS: Final = (
    "kube-apiserver",
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubectl",
)

GROUPS: Final = (
    GoGroup("etcd", "3.6.6", {"etcd": "go.etcd.io/etcd/server/v3"}),
    GoGroup("coredns", "1.12.4", {"coredns": "."}),
    GoGroup(
        "kubernetes",
        KUBERNETES_VERSION,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_COMMANDS},
        version_flags(KUBERNETES_VERSION),
    ),
    GoGroup(
        "cert-manager",
        "1.21.2",
        {"cert-manager-controller": "./controller", "cert-manager-acmesolver": "./acmesolver"},
        assets={"crds": ("github.com/cert-manager/cert-manager", "deploy/crds")},
    ),
)
"""In the order they are built."""

CHECKS: Final = VenvPeer("image-checks", "spdx-tools", HERE / "checks.txt", None)
"""What looks at images: the reader of bills of materials, and the linter of container files."""

CHECK_PROGRAMS: Final = frozenset({"python", "hadolint"})

PAUSE: Final = HERE / "pause.c"

DEBIAN_PROGRAMS: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "nft": "nftables",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""Program → the Debian package that brings it."""

CNI_PLUGINS: Final = Path("/usr/lib/cni")
"""Where Debian's package containernetworking-plugins puts what gives a pod its network."""


@dataclass(frozen=True, slots=True)
class DebianTree:
    """A root file system made of Debian packages, packed as an image."""

    name: str
    tag: str
    packages: tuple[str, ...]
    suite: str = "bookworm"


PYTHON_TREE: Final = DebianTree(
    "python", "local.test/python:3.11-debian12", ("ca-certificates", "python3")
)
"""What images of ours are built on; stands in for the usual public one."""

NGINX_TREE: Final = DebianTree(
    "nginx", "local.test/nginx:debian12", ("ca-certificates", "curl", "nginx-light", "openssl")
)
"""The application that is given certificates."""

TREES: Final = (PYTHON_TREE, NGINX_TREE)

TREE_RECIPE: Final = "2"
"""Counted up when the way a tree is made changes, so that it is made anew."""


def group_home(group: GoGroup, go_version: str) -> Path:
    """Return the cache directory of a group built with *go_version*."""
    content = hashlib.sha256()
    for path in group.sources():
        octets = (group.folder / path).read_bytes()
        content.update(str(path).encode() + b"\0" + octets + b"\0")
    digest = short_hash(*BUILD_FLAGS, group.link, *group.packages, content.hexdigest())
    return CACHE / f"{group.name}-{group.version}-{go_version}-{digest}"


def tree_home(tree: DebianTree) -> Path:
    """Return the cache directory of a Debian tree."""
    digest = short_hash(tree.tag, tree.suite, TREE_RECIPE, *tree.packages)
    return CACHE / f"image-{tree.name}-{tree.suite}-{digest}"


def pause_home() -> Path:
    """Return the cache directory of the program that holds a pod's namespaces."""
    return CACHE / f"pause-{short_hash(PAUSE.read_text('ascii'))}"


@functools.cache
def program(name: str) -> Path:
    """Return where a program of the cluster is.

    Raises:
        PeerMissing: Run ``tests/kubernetes/install``; a test never skips for it.
    """
    found = locate(name)
    if found is None:
        raise PeerMissing(f"{name!r} is not installed; run tests/kubernetes/install")
    return found


def locate(name: str) -> Path | None:
    """Return where a program is, or None where it isn't installed."""
    if name in DEBIAN_PROGRAMS:
        system = find_command(name)
        return Path(system) if system else None
    if name == "pause":
        return existing(pause_home() / "bin" / "pause")
    if name in CHECK_PROGRAMS:
        return existing(venv_home(CHECKS) / "venv" / "bin" / name)
    toolchain = go_toolchain()
    if toolchain is None:
        return None
    group = next(group for group in GROUPS if name in group.packages)
    return existing(group_home(group, toolchain[1]) / "bin" / name)


def tree_archive(tree: DebianTree) -> Path:
    """Return the archive of an image made of Debian packages.

    Raises:
        PeerMissing: Run ``tests/kubernetes/install``.
    """
    found = existing(tree_home(tree) / "image.tar")
    if found is None:
        raise PeerMissing(f"image {tree.tag} is not made; run tests/kubernetes/install")
    return found


def asset(name: str) -> Path:
    """Return a folder that is kept beside a group's programs.

    Raises:
        PeerMissing: Run ``tests/kubernetes/install``.
    """
    toolchain = go_toolchain()
    group = next(group for group in GROUPS if name in group.assets)
    found = existing(group_home(group, toolchain[1]) / name) if toolchain else None
    if found is None:
        raise PeerMissing(f"{name!r} of {group.name} is not there; run tests/kubernetes/install")
    return found


def existing(path: Path) -> Path | None:
    """Return *path* if it is there."""
    return path if path.exists() else None
