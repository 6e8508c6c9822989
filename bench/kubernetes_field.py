"""The cluster that is measured on: its images, the chart, and a namespace that opted in."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import MIB
from tests.kubernetes.applications import PREFIX, application, exposed, opted_in, settings
from tests.kubernetes.images import PYTHON_OF_BASE, REPOSITORY, ImageStore, copy_sources
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.programs import PYTHON_TREE, program, tree_archive
from tests.kubernetes.release import Release

__all__ = ["PASSED_BY", "WHERE", "Field", "Image", "archives_of", "image_of"]

HERE: Final = Path(__file__).resolve().parent
WHERE: Final = "bench"
"""Namespace of the applications."""

PASSED_BY: Final = {f"{PREFIX}/inject": "disabled"}
"""Label of pods that Penstock's webhook is not asked about."""

SERVED_SECONDS: Final = 600.0
"""Longest wait for all pods of an application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image, without compression."""

    name: str
    above_base_mib: float
    base_mib: float


class Field:
    """A namespace that opted in, on a cluster where Penstock is installed."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.cluster = release.cluster
        self.roots = release.trust()
        self.cluster.apply(opted_in(WHERE), settings(WHERE))

    def start(
        self,
        name: str,
        pods: int,
        *,
        objects: Sequence[Mapping[str, Any]] = (),
        meanwhile: Callable[[], object] | None = None,
    ) -> list[float]:
        """Apply an application of so many pods; return how long each took until it served.

        Other *objects* than the usual ones may be applied instead.  What is to be done *meanwhile*
        begins just before.
        """
        applied = objects or [application(name, WHERE, replicas=pods)]
        self.cluster.apply(exposed(name, WHERE))
        asked = {
            "kubectl": [str(program("kubectl"))],
            "namespace": WHERE,
            "labels": f"app={name}",
            "name": f"{name}.{WHERE}.svc",
            "port": 8443,
            "roots": self.roots,
            "pods": pods,
            "seconds": SERVED_SECONDS,
        }
        with ThreadPoolExecutor(2) as threads:
            watching = threads.submit(self.run, "kubernetes_watch.py", asked)
            doing: Future[object] | None = threads.submit(meanwhile) if meanwhile else None
            begun = time.monotonic()
            self.cluster.apply(*applied)
            told = watching.result()
            if doing is not None:
                doing.result()
        return [json.loads(line)["at"] - begun for line in told.splitlines()]

    def run(self, script: str, asked: Mapping[str, Any]) -> str:
        """Run one of the programs beside this file on the node, and return what it printed."""
        command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, str(HERE / script)]
        return self.cluster.run(command, text=json.dumps(asked), seconds=SERVED_SECONDS + 30)

    def remove(self, name: str) -> None:
        """Remove an application and wait until its pods are gone."""
        self.cluster.kubectl("delete", "deployment,service", name, "-n", WHERE, "--wait=false")
        gone = ("wait", "--for=delete", "pod", "-n", WHERE, "-l", f"app={name}", "--timeout=300s")
        self.cluster.kubectl(*gone, seconds=320)


def archives_of(home: Path, stack: ExitStack, images: Path | None) -> list[Path]:
    """Return the archives of both images, built from this clone where none are given."""
    if images is None:
        store = stack.enter_context(ImageStore(home / "store"))
        tree = copy_sources(home / "tree")
        built = store.build(tree, more=("--offline", PYTHON_OF_BASE))
        return sorted(one.archive for one in built.values())
    found = sorted(images.glob("penstock-*.tar"))
    if len(found) != 2:
        raise ClusterFailed(f"{images} has {len(found)} archives of images, not broker and agent")
    return found


def image_of(archive: Path) -> Image:
    """Return how large an image is above its base, and its base."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            member = tar.extractfile(name)
            assert member is not None
            return json.load(member)

        (manifest,) = read("manifest.json")
        sizes = [tar.getmember(name).size for name in manifest["Layers"]]
    with tarfile.open(tree_archive(PYTHON_TREE)) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        (described,) = json.load(member)
    base = len(described["Layers"])
    return Image(
        name=archive.stem,
        above_base_mib=sum(sizes[base:]) / MIB,
        base_mib=sum(sizes[:base]) / MIB,
    )
