"""Bringing a bare Debian machine to where every real peer can be started.

A second run finds everything there and does nothing.  What can't be had ends the
run with the peer's name, the command that was tried and what to do about it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.peers.installation import (
    BUILD_FLAGS,
    DEBIAN_PEERS,
    GO,
    GO_PEERS,
    HERE,
    OLDEST_GO,
    VENV_PEERS,
    GoPeer,
    VenvPeer,
    command_of,
    find_command,
    go_home,
    go_toolchain,
    is_venv_whole,
    listing,
    venv_home,
)

BUILD_TIMEOUT_SECONDS: Final = 3600
"""Longest one command may take; Vault's measures 10 minutes on two idle cores."""


class CannotInstall(Exception):
    """A peer that the tests need can't be had; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class SystemNeed:
    """Something Debian brings: how to see that it is there, and its package."""

    package: str
    probe: Callable[[], bool]


def has_command(name: str) -> Callable[[], bool]:
    """Return a probe for a command on PATH, system directories included."""
    return lambda: find_command(name) is not None


def has_library(name: str) -> Callable[[], bool]:
    """Return a probe for a C library with its headers, as pkg-config knows it."""

    def probe() -> bool:
        if find_command("pkg-config") is None:
            return False
        return subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0

    return probe


def has_openssl_engine(name: str) -> Callable[[], bool]:
    """Return a probe for an engine that the system's OpenSSL 3 can load."""
    return lambda: any(Path("/usr/lib").glob(f"*/engines-3/{name}.so"))


def has_rsyslog_module(name: str) -> Callable[[], bool]:
    """Return a probe for a module of rsyslog."""
    return lambda: any(Path("/usr/lib").glob(f"*/rsyslog/{name}.so"))


def has_ensurepip() -> bool:
    """Say whether this Python can make a virtual environment with pip in it."""
    importlib.invalidate_caches()  # Debian splits it off into python3-venv, installed meanwhile
    return importlib.util.find_spec("ensurepip") is not None


START_POLICY: Final = Path("/usr/sbin/policy-rc.d")
"""Program that Debian asks whether a service that was just installed may be started."""

CERTBOT_DNS_PLUGIN: Final = Path("/usr/lib/python3/dist-packages/certbot_dns_rfc2136")
APACHE_MD: Final = Path("/usr/lib/apache2/modules/mod_md.so")

DOVECOT_IMAP: Final = Path("/usr/lib/dovecot/imap-login")

SYSTEM_NEEDS: Final = (
    SystemNeed("ca-certificates", lambda: Path("/etc/ssl/certs/ca-certificates.crt").exists()),
    SystemNeed("python3-venv", has_ensurepip),
    SystemNeed("bind9", has_command("named")),
    SystemNeed("bind9-utils", has_command("named-checkconf")),
    SystemNeed("bind9-dnsutils", has_command("dig")),
    SystemNeed("certbot", has_command(DEBIAN_PEERS["certbot-debian"][1])),
    SystemNeed("python3-certbot-dns-rfc2136", CERTBOT_DNS_PLUGIN.exists),
    SystemNeed("dehydrated", has_command("dehydrated")),
    SystemNeed("uacme", has_command("uacme")),
    SystemNeed("apache2-bin", APACHE_MD.exists),
    SystemNeed("nginx", has_command("nginx")),
    SystemNeed("haproxy", has_command("haproxy")),
    SystemNeed("postfix", has_command("postfix")),
    SystemNeed("dovecot-imapd", DOVECOT_IMAP.exists),
    SystemNeed("slapd", has_command("slapd")),
    SystemNeed("ldap-utils", has_command("ldapmodify")),
    SystemNeed("openssh-server", has_command("sshd")),
    SystemNeed("softhsm2", has_command("softhsm2-util")),
    SystemNeed("opensc", has_command("pkcs11-tool")),
    SystemNeed("libengine-pkcs11-openssl", has_openssl_engine("pkcs11")),
    SystemNeed("systemd", has_command("systemd-analyze")),
    SystemNeed("debootstrap", has_command("debootstrap")),
    SystemNeed("rsyslog", has_command("rsyslogd")),
    SystemNeed("rsyslog-gnutls", has_rsyslog_module("lmnsd_gtls")),
    SystemNeed("rsyslog-openssl", has_rsyslog_module("lmnsd_ossl")),
    SystemNeed("pdns-server", has_command("pdns_server")),
    SystemNeed(
        "pdns-backend-sqlite3",
        lambda: Path("/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql").exists(),
    ),
    SystemNeed("gcc", has_command("gcc")),
    SystemNeed("libc6-dev", lambda: Path("/usr/include/stdlib.h").exists()),
    SystemNeed("pkg-config", has_command("pkg-config")),
    SystemNeed("libpcsclite-dev", has_library("libpcsclite")),
    SystemNeed("strace", has_command("strace")),
    SystemNeed("libfaketime", lambda: any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))),
    SystemNeed("git", has_command("git")),
)


def say(text: str) -> None:
    """Tell the person who waits what is going on; stdout is kept for ``--list``."""
    print(f"peers: {text}", file=sys.stderr, flush=True)


def run(peer: str, command: list[str], *, cwd: Path, env: dict[str, str], advice: str) -> str:
    """Run one installing command and return its standard output.

    Raises:
        CannotInstall: With the command, the end of what it said, and *advice*.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=BUILD_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(refusal(peer, command, str(error), advice)) from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise CannotInstall(refusal(peer, command, f"exit {done.returncode}\n{tail}", advice))
    return done.stdout


def refusal(peer: str, command: list[str], happened: str, advice: str) -> str:
    """Return the text that names the peer, the command tried and what to do."""
    return (
        f"{peer} can't be installed\n  tried: {' '.join(command)}\n"
        f"  got: {happened}\n  what to do: {advice}"
    )


@contextlib.contextmanager
def built_once(home: Path) -> Iterator[Path | None]:
    """Yield a scratch directory to fill, or None where *home* is there already.

    What was filled appears under its final name by one rename, under a lock: two
    installations at once build it once, and a killed one leaves nothing half done.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{home}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.exists():
            yield None
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        try:
            (scratch / "ready").mkdir()
            yield scratch
            (scratch / "ready").rename(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def services_left_off(prefix: list[str]) -> Iterator[None]:
    """Keep what is installed meanwhile from being started: tests start servers of their own.

    A machine that has a policy for this already keeps it.
    """
    if START_POLICY.exists():
        yield
        return
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as refusing:
        refusing.write("#!/bin/sh\nexit 101\n")
        refusing.flush()
        place = [*prefix, "install", "-m", "755", refusing.name, str(START_POLICY)]
        subprocess.run(place, check=False, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        remove = [*prefix, "rm", "-f", str(START_POLICY)]
        subprocess.run(remove, check=False, stdin=subprocess.DEVNULL)


def install_system_packages() -> None:
    """Install what the peers need of Debian."""
    install_missing(SYSTEM_NEEDS)


def install_missing(needs: Sequence[SystemNeed]) -> None:
    """Install what Debian brings, and ask apt nothing when all of it is there."""
    missing = list(dict.fromkeys(need.package for need in needs if not need.probe()))
    if not missing:
        return
    advice = f"install {' '.join(missing)} with your system's package manager, then run this again"
    apt = shutil.which("apt-get")
    if apt is None:
        raise CannotInstall(refusal(" ".join(missing), ["apt-get"], "no such command", advice))
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    started = time.monotonic()
    say(f"installing Debian packages: {' '.join(missing)}")
    label = " ".join(missing)
    with contextlib.suppress(CannotInstall):  # one broken source needn't spoil the others
        run(label, [*prefix, apt, "update", "-qq"], cwd=HERE, env=env, advice=advice)
    install = [*prefix, apt, "install", "-qq", "-y", "--no-install-recommends", *missing]
    with services_left_off(prefix):
        run(label, install, cwd=HERE, env=env, advice=advice)
    still = [need.package for need in needs if need.package in missing and not need.probe()]
    if still:
        raise CannotInstall(f"{' '.join(still)}: installed by apt-get, and still not found")
    say(f"Debian packages: installed in {time.monotonic() - started:.1f} s")


def install_venv(peer: VenvPeer) -> None:
    """Install a peer from PyPI, every file checked against its pinned hash."""
    home = venv_home(peer)
    if is_venv_whole(home):
        return
    shutil.rmtree(home, ignore_errors=True)  # its Python is gone, or it was never there
    advice = "see that the Python package index can be reached (PIP_INDEX_URL, proxy), run it again"
    with built_once(home) as scratch:
        if scratch is None:
            return
        say(f"{peer.name} {peer.version}: installing from PyPI")
        started = time.monotonic()
        venv = scratch / "ready" / "venv"
        python = venv / "bin" / "python"
        label = f"{peer.name} {peer.version}"
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        make = [sys.executable, "-m", "venv", str(venv)]
        run(label, make, cwd=scratch, env=env, advice="install python3-venv")
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        pip += ["--require-hashes", "--only-binary=:all:", "-r", str(peer.requirements)]
        run(label, pip, cwd=scratch, env=env, advice=advice)
        write_wrapper(peer, command_of(scratch / "ready", peer.name))
        say(f"{label}: installed in {time.monotonic() - started:.1f} s")


def write_wrapper(peer: VenvPeer, program: Path) -> None:
    """Write the command of a virtual environment so that it survives the rename.

    The scripts that pip writes name the directory they were made in; this one
    finds its interpreter beside itself.
    """
    line = 'exec "$(dirname "$0")/../venv/bin/python" '
    if peer.entry is not None:
        module, _, function = peer.entry.partition(":")
        line += f'-c "import sys; from {module} import {function}; sys.exit({function}())" '
    line += '"$@"'
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{line}\n", "ascii")
    program.chmod(0o755)


def install_go_peer(peer: GoPeer) -> None:
    """Build a Go peer from its module, hash and dependencies' hashes checked."""
    toolchain = go_toolchain()
    if toolchain is None:
        raise CannotInstall(f"{peer.name} {peer.version} needs Go {OLDEST_GO} and there is none")
    go, go_version = toolchain
    home = go_home(peer, go_version)
    if home.exists():
        return
    with built_once(home) as scratch:
        if scratch is None:
            return
        label = f"{peer.name} {peer.version}"
        say(f"{label}: building with {go_version}; this takes some minutes the first time")
        started = time.monotonic()
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
        env["CGO_ENABLED"] = "1" if peer.cgo else "0"
        source = fetch_module(peer, go, scratch, env)
        build = ["nice", "-n", "10", go, "build", *BUILD_FLAGS, f"-tags={peer.tags}", "-o"]
        build += [str(command_of(scratch / "ready", peer.name)), peer.package]
        advice = "read the compiler's message; a missing module means the Go proxy can't be reached"
        run(label, build, cwd=source, env=env, advice=advice)
        say(f"{label}: built in {time.monotonic() - started:.1f} s")


def fetch_module(peer: GoPeer, go: str, scratch: Path, env: dict[str, str]) -> Path:
    """Return a writable copy of the peer's module, as published and as pinned here.

    A copy, because some of these modules replace others, which the go command
    heeds only in the main module; its go.sum then pins every dependency too.
    """
    label = f"{peer.name} {peer.version}"
    download = [go, "mod", "download", "-json", f"{peer.module}@v{peer.version}"]
    advice = "see that the Go module proxy can be reached (GOPROXY, proxy), run it again"
    answer = json.loads(run(label, download, cwd=scratch, env=env, advice=advice))
    if answer["Sum"] != peer.module_sum:
        happened = f"module hash {answer['Sum']}, pinned is {peer.module_sum}"
        raise CannotInstall(refusal(label, download, happened, "don't trust this module proxy"))
    source = scratch / "source"
    shutil.copytree(answer["Dir"], source, copy_function=shutil.copyfile)
    for directory in (source, *(path for path in source.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    take_as_published(peer, go, source, env)
    return source


def take_as_published(peer: GoPeer, go: str, source: Path, env: dict[str, str]) -> None:
    """Let the peer's own nested modules come from the proxy, by hashes pinned here."""
    if not peer.published:
        return
    label = f"{peer.name} {peer.version}"
    described = json.loads(
        run(label, [go, "mod", "edit", "-json"], cwd=source, env=env, advice="see its go.mod")
    )
    for replacement in described["Replace"]:
        if replacement["New"]["Path"].startswith("./"):
            edit = [go, "mod", "edit", f"-dropreplace={replacement['Old']['Path']}"]
            run(label, edit, cwd=source, env=env, advice="see its go.mod")
    with (source / "go.sum").open("a", encoding="ascii") as sums:
        sums.writelines(f"{line} {digest}\n" for line, digest in peer.published)


def install_everything() -> None:
    """Bring the machine to where every peer can be started."""
    from tests.peers.debian_building import install_debian  # which builds with what is here
    from tests.peers.published import install_published  # and so does this

    install_system_packages()
    install_debian()
    for venv_peer in VENV_PEERS:
        install_venv(venv_peer)
    if go_toolchain() is None:
        install_venv(GO)
        go_toolchain.cache_clear()
    install_published()
    for peer in GO_PEERS:
        install_go_peer(peer)


def main() -> int:
    """Install all peers, or list them; exit 1 with a sentence for the one that fails."""
    parser = argparse.ArgumentParser(prog="tests/peers/install", description=main.__doc__)
    parser.add_argument("--list", action="store_true", help="print paths as JSON, install nothing")
    arguments = parser.parse_args()
    if arguments.list:
        print(json.dumps(listing(), indent=2))
        return 0
    started = time.monotonic()
    try:
        install_everything()
    except CannotInstall as error:
        print(f"peers: error: {error}", file=sys.stderr)
        return 1
    for name, entry in listing().items():
        say(f"{name} {entry['version']}: {entry['path'] or 'not built'}")
    say(f"all there after {time.monotonic() - started:.1f} s")
    return 0
