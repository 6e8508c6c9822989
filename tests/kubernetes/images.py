"""Images of this clone, built by buildah on a base made here, for the node to be given.

Built in a store of their own, which nobody else's images are in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.programs import NGINX_TREE, PYTHON_TREE, program, tree_archive
from tests.peers.process import tail

REPOSITORY: Final = Path(__file__).resolve().parents[2]
BUILD_SECONDS: Final = 900
"""Longest that building both images may take; 40 s on two busy cores."""

PYTHON_OF_BASE: Final = "3.11"

SOURCES: Final = (
    ".dockerignore",
    "LICENSE",
    "NOTICE",
    "README.md",
    "agents",
    "broker",
    "deploy",
    "hatch_build.py",
    "policies",
    "pyproject.toml",
    "requirements",
)
"""What a build reads of the clone."""

BROKER_IMAGE: Final = "local.test/penstock-broker:test"
AGENT_IMAGE: Final = "local.test/penstock-agent:test"
NGINX_IMAGE: Final = NGINX_TREE.tag


@dataclass(frozen=True, slots=True)
class Built:
    """One image as it came out of a build."""

    name: str
    id: str
    archive: Path
    seconds: float


class ImageStore:
    """buildah with a store below one folder; unmounted and emptied at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._policy = folder / "policy.json"

    def __enter__(self) -> ImageStore:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}', "ascii")
        self.buildah("pull", f"docker-archive:{tree_archive(PYTHON_TREE)}", policy=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            [*self.command(), "rm", "--all"], capture_output=True, check=False, timeout=60
        )
        for mounted in self._mounts():
            subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mounts(self) -> list[str]:
        below = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        return sorted((path for path in below if path.startswith(f"{self.folder}/")), reverse=True)

    def command(self) -> list[str]:
        """Return how buildah is called for this store."""
        root, run = self.folder / "root", self.folder / "run"
        return [
            str(program("buildah")),
            f"--root={root}",
            f"--runroot={run}",
            "--storage-driver=overlay",
        ]

    def buildah(self, verb: str, *arguments: str, policy: bool = False) -> str:
        """Run one command of buildah and return its output.

        Raises:
            ClusterFailed: It failed.
        """
        trusting = [f"--signature-policy={self._policy}"] if policy else []
        words = [*self.command(), verb, *trusting, *arguments]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
        if done.returncode != 0:
            raise ClusterFailed(f"buildah {verb}: exit {done.returncode}\n{tail(done.stderr)}")
        return done.stdout

    def build(
        self, tree: Path, *, prefix: str = "local.test/penstock-", more: tuple[str, ...] = ()
    ) -> dict[str, Built]:
        """Build the images of a source tree by its own script; return them by target.

        Each *prefix* has archives of its own: another build does not replace those of the first.
        """
        archives = self.folder / "archives" / prefix.replace("/", "-")
        words = [
            *(sys.executable, "deploy/images.py", f"--engine={' '.join(self.command())}"),
            *("--build-option=--isolation=chroot", "--build-option=--pull-never"),
            *(f"--build-option=--signature-policy={self._policy}", f"--base={PYTHON_TREE.tag}"),
            *(f"--prefix={prefix}", "--tag=test", f"--archives={archives}"),
            *more,
        ]
        done = subprocess.run(
            words,
            cwd=tree,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            raise ClusterFailed(f"deploy/images.py: exit {done.returncode}\n{tail(done.stderr)}")
        told = [json.loads(line) for line in done.stdout.splitlines()]
        return {
            one["image"].removeprefix(prefix).removesuffix(":test"): Built(
                one["image"], one["id"], Path(one["archive"]), one["seconds"]
            )
            for one in told
        }


def copy_sources(target: Path, tree: Path = REPOSITORY) -> Path:
    """Copy what a build reads of *tree*, so that nobody edits it meanwhile."""
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in SOURCES:
        source = tree / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        else:
            shutil.copy2(source, target / name)
    return target
