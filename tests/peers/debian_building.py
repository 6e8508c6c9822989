"""Making the Debian that tests boot: a tree by debootstrap, and the broker's libraries on top.

Whatever is mounted meanwhile is mounted in a namespace of its own, which the kernel takes down with
the last process in it, also when an installation is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.peers import debian
from tests.peers.installation import CACHE, find_command
from tests.peers.installing import HERE, CannotInstall, built_once, refusal, run, say

__all__ = ["install_debian"]

APART: Final = ("unshare", "--mount", "--propagation", "private", "--")
"""What a command runs under that mounts something."""

INDEXES: Final = (
    *("apt-get", "indextargets", "--format"),
    "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(SITE)|$(SIGNED_BY)",
    "Created-By: Packages",
)

MIRROR_ADVICE: Final = "see that apt's own sources can be reached (apt-get update), run it again"

LAYER: Final = """\
set -eu
tree=$1 upper=$2 work=$3 root=$4 pins=$5 wheels=$6
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$upper,workdir=$work" "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mkdir "$root/tmp/wheels"
mount --bind "$wheels" "$root/tmp/wheels"
cp "$pins" "$root/tmp/prod.txt"
exec chroot "$root" /bin/sh -eu -c '
    python3 -m venv /opt/penstock
    /opt/penstock/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \\
        --require-hashes --no-index --find-links /tmp/wheels --requirement /tmp/prod.txt
    /opt/penstock/bin/python -m pip check
'
"""
"""What docs/operations/install.md has an operator do, from wheels that were fetched before."""


def install_debian() -> None:
    """Make the tree and the layer, where they are not there yet; only root can.

    Raises:
        CannotInstall: With what was tried and what to do.
    """
    if debian.tree_home().exists() and debian.libraries_home().exists():
        return
    if os.geteuid() != 0:
        install_by_sudo()
        return
    install_tree()
    install_libraries()


def install_by_sudo() -> None:
    """Do all of it in a process that is root's, with this one's cache and ways to packages."""
    kept = [f"PENSTOCK_CACHE={CACHE}"]
    kept += [f"{key}={value}" for key, value in environment().items() if is_about_packages(key)]
    command = ["sudo", "-n", "env", *kept, sys.executable, "-m", "tests.peers.debian_building"]
    advice = "run tests/peers/install once as root"
    run("debian", command, cwd=HERE.parents[1], env=environment(), advice=advice)


def is_about_packages(variable: str) -> bool:
    """Say whether an environment variable tells how packages are fetched."""
    return variable.upper().startswith("PIP_") or variable.upper().endswith("_PROXY")


def install_tree() -> None:
    """Have debootstrap make the tree, from the mirror that this machine's apt uses."""
    home = debian.tree_home()
    if home.exists():
        return
    with built_once(home) as scratch:
        if scratch is None:
            return
        say(f"{home.name}: making a Debian to boot; this takes a minute or two the first time")
        started = time.monotonic()
        tree = scratch / "ready" / "tree"
        mirror, keyring = find_mirror()
        command = [*APART, find_command("debootstrap") or "debootstrap", "--variant=minbase"]
        command += [f"--include={','.join(debian.PACKAGES)}", *keyring]
        command += [debian.release(), str(tree), mirror]
        run(home.name, command, cwd=scratch, env=environment(), advice=MIRROR_ADVICE)
        furnish(tree)
        say(f"{home.name}: made in {time.monotonic() - started:.1f} s")


def find_mirror() -> tuple[str, Sequence[str]]:
    """Return the mirror of this machine's release and how to name its keyring, as apt has them."""
    listed = run("debian", list(INDEXES), cwd=HERE, env=environment(), advice=MIRROR_ADVICE)
    for line in listed.splitlines():
        origin, component, codename, site, signed_by = line.split("|")
        if (origin, component, codename) == ("Debian", "main", debian.release()):
            is_file = signed_by.startswith("/")
            return site, [f"--keyring={signed_by}"] if is_file else []
    advice = "Debian, or a system whose apt knows a mirror of its own release, is needed"
    happened = f"no source of {debian.release()} main"
    raise CannotInstall(refusal("debian", list(INDEXES), happened, advice))


def furnish(tree: Path) -> None:
    """Write the files of the tree, mask what it has no use for, and drop what takes room."""
    for name, text in debian.FILES.items():
        (tree / name).write_text(text, "ascii")
    for unit in debian.LEFT_OFF:
        place = tree / "etc/systemd/system" / unit
        place.unlink(missing_ok=True)
        place.symlink_to("/dev/null")
    (tree / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder)
        (tree / folder).mkdir()


def install_libraries() -> None:
    """Fetch the wheels that are pinned, and install them in a layer over the tree."""
    home = debian.libraries_home()
    if home.exists():
        return
    with built_once(home) as scratch:
        if scratch is None:
            return
        say(f"{home.name}: installing the broker's libraries for that Debian")
        started = time.monotonic()
        wheels = fetch_wheels(scratch)
        layer = scratch / "ready" / "layer"
        for folder in (layer, scratch / "work", scratch / "root"):
            folder.mkdir()
        command = [*APART, "sh", "-c", LAYER, "layer", str(debian.tree_home() / "tree")]
        command += [str(layer), str(scratch / "work"), str(scratch / "root")]
        command += [str(debian.PINS), str(wheels)]
        advice = "read what pip said; a pin without a wheel for Debian's Python cannot be had here"
        run(home.name, command, cwd=scratch, env=environment(), advice=advice)
        say(f"{home.name}: installed in {time.monotonic() - started:.1f} s")


def fetch_wheels(scratch: Path) -> Path:
    """Fetch what prod.txt pins, for the tree's Python, each file checked against its hash."""
    label = debian.libraries_home().name
    env = environment()
    venv, wheels = scratch / "venv", scratch / "wheels"
    make = [sys.executable, "-m", "venv", str(venv)]
    run(label, make, cwd=scratch, env=env, advice="install python3-venv")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "download", "--quiet"]
    pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    pip += ["--python-version", python_version(), "--dest", str(wheels)]
    pip += ["--requirement", str(debian.PINS)]
    advice = "see that the Python package index can be reached (PIP_INDEX_URL, proxy), run it again"
    run(label, pip, cwd=scratch, env=env, advice=advice)
    return wheels


def python_version() -> str:
    """Return the version of the tree's Python, as ``3.11``."""
    tree = debian.tree_home() / "tree"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    asked = subprocess.run(
        ["chroot", str(tree), "python3", "-c", code], capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def environment() -> dict[str, str]:
    """Return the environment of what is run: a plain PATH, and this machine's ways to packages."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": f"{path}:{os.environ.get('PATH', '')}", "LC_ALL": "C.UTF-8"}


if __name__ == "__main__":
    install_debian()
