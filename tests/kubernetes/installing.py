"""Bringing a bare Debian machine to where the cluster can be started.

A second run finds everything there and does nothing.  Run by the system's Python, with the standard
library alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.kubernetes.archives import write_image
from tests.kubernetes.programs import (
    CHECKS,
    CNI_PLUGINS,
    DEBIAN_PROGRAMS,
    GROUPS,
    PAUSE,
    TREES,
    DebianTree,
    GoGroup,
    group_home,
    pause_home,
    tree_home,
)
from tests.peers.installation import BUILD_FLAGS, OLDEST_GO, go_toolchain
from tests.peers.installing import (
    CannotInstall,
    SystemNeed,
    built_once,
    has_command,
    install_everything,
    install_missing,
    install_venv,
    run,
    say,
)

SYSTEM_NEEDS: Final = (
    *(SystemNeed(package, has_command(name)) for name, package in DEBIAN_PROGRAMS.items()),
    SystemNeed("containernetworking-plugins", (CNI_PLUGINS / "bridge").exists),
)

LEFT_OUT: Final = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
)
"""Paths of packages that no image needs."""


def install_group(group: GoGroup) -> None:
    """Build the programs of one Go module, every module checked against its pinned hash."""
    toolchain = go_toolchain()
    if toolchain is None:
        raise CannotInstall(f"{group.name} {group.version} needs Go {OLDEST_GO} and there is none")
    go, go_version = toolchain
    with built_once(group_home(group, go_version)) as scratch:
        if scratch is None:
            return
        source = scratch / "source"
        source.mkdir()
        for path in group.sources():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(group.folder / path, source / path)
        for name, package in group.packages.items():
            build_program(group, name, package, source=source, go=go, target=scratch / "ready")
        for name, (module, folder) in group.assets.items():
            where = [go, "list", "-m", "-mod=readonly", "-f", "{{.Dir}}", module]
            found = run(
                group.name, where, cwd=source, env=go_environment(), advice="see its go.mod"
            )
            shutil.copytree(Path(found.strip()) / folder, scratch / "ready" / name)


def build_program(
    group: GoGroup, name: str, package: str, *, source: Path, go: str, target: Path
) -> None:
    """Build one program into *target*'s folder ``bin``."""
    label = f"{name} {group.version}"
    say(f"{label}: building; the first time takes minutes")
    started = time.monotonic()
    flags = [flag for flag in BUILD_FLAGS if not flag.startswith("-ldflags")]
    build = ["nice", "-n", "10", go, "build", *flags, f"-ldflags=-s -w {group.link}".rstrip()]
    build += ["-o", str(target / "bin" / name), package]
    advice = "read the compiler's message; a missing module means the Go proxy can't be reached"
    run(label, build, cwd=source, env=go_environment(), advice=advice)
    say(f"{label}: built in {time.monotonic() - started:.1f} s")


def go_environment() -> dict[str, str]:
    """Return what the go command is run with: nothing of the machine's own settings of it."""
    settled = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    return {**os.environ, **settled}


def install_pause() -> None:
    """Compile the program that holds a pod's namespaces, and pack it as an image."""
    with built_once(pause_home()) as scratch:
        if scratch is None:
            return
        made = scratch / "ready" / "bin" / "pause"
        made.parent.mkdir()
        compile_it = ["gcc", "-static", "-Os", "-s", "-o", str(made), str(PAUSE)]
        advice = "install gcc and libc6-dev"
        run("pause", compile_it, cwd=scratch, env=dict(os.environ), advice=advice)
        write_image(
            scratch / "ready" / "image.tar",
            "local.test/pause:1",
            files={"pause": made},
            entrypoint=["/pause"],
        )


def install_tree(tree: DebianTree) -> None:
    """Make a root file system of Debian packages and pack it as an image."""
    with built_once(tree_home(tree)) as scratch:
        if scratch is None:
            return
        say(f"{tree.tag}: unpacking Debian packages")
        started = time.monotonic()
        layer = scratch / "layer.tar"
        make = [
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            f"--include={','.join(tree.packages)}",
        ]
        make += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        emptied = ["var/cache", "var/lib/apt/lists", "var/log"]
        make += [f'--customize-hook=find "$1"/{path} -mindepth 1 -delete' for path in emptied]
        sources = scratch / "sources.list"
        sources.write_text(package_sources(tree.suite), "utf-8")
        make += [tree.suite, str(layer), str(sources)]
        advice = "see that Debian's packages can be reached (apt's own settings), run it again"
        env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
        run(tree.tag, make, cwd=scratch, env=env, advice=advice)
        write_image(scratch / "ready" / "image.tar", tree.tag, layer=layer)
        say(f"{tree.tag}: made in {time.monotonic() - started:.1f} s")


def package_sources(suite: str) -> str:
    """Return this machine's own sources of *suite* and its updates, as apt has them."""
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)"]
    asked = subprocess.run(
        [*wanted, "Created-By: Packages"], capture_output=True, text=True, check=False
    )
    found = [line.split() for line in asked.stdout.splitlines()]
    lines = {
        f"deb {uri} {codename} {component}"
        for uri, codename, component in found
        if codename == suite or codename.startswith(f"{suite}-")
    }
    if not lines:
        raise CannotInstall(
            f"apt on this machine has no source of Debian {suite}, run apt-get update"
        )
    return "".join(f"{line}\n" for line in sorted(lines))


def install_cluster() -> None:
    """Bring the machine to where the cluster and its images can be made."""
    install_missing(SYSTEM_NEEDS)
    install_pause()
    for tree in TREES:
        install_tree(tree)
    for group in GROUPS:
        install_group(group)
    install_venv(CHECKS)


def main() -> int:
    """Install what the cluster consists of; exit 1 with a sentence for what can't be had."""
    parser = argparse.ArgumentParser(prog="tests/kubernetes/install", description=main.__doc__)
    parser.add_argument(
        "--only", action="store_true", help="leave out the peers, which tests/peers/install brings"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        if not arguments.only:
            install_everything()
        install_cluster()
    except CannotInstall as error:
        print(f"peers: error: {error}", file=sys.stderr)
        return 1
    say(f"cluster: all there after {time.monotonic() - started:.1f} s")
    return 0
