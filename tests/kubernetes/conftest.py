"""One cluster and one build of the images for all tests here, and the page that a run writes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import PYTHON_OF_BASE, Built, ImageStore, copy_sources
from tests.kubernetes.programs import TREES, tree_archive
from tests.kubernetes.release import CHART, Release
from tests.kubernetes.report import Report, Tried

REPORT = pytest.StashKey[Report]()
BEGUN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that has the page written."""
    parser.addoption("--cluster-report", metavar="PATH", help="write what a run came to as a page")
    parser.addoption("--pods", type=int, default=100, help="how many pods are started at once")
    parser.addoption("--replicas", type=int, default=20, help="how many are restarted five times")
    parser.addoption(
        "--images", metavar="FOLDER", help="take the archives there instead of building images anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin the page."""
    config.stash[REPORT] = Report()
    config.stash[BEGUN] = time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Note each test by its name, which is what it shows."""
    told: pytest.TestReport = yield
    if told.when == "call" or told.outcome != "passed":
        says = item.name.removeprefix("test_").replace("_", " ")
        file = item.path.stem.removeprefix("test_")
        tried = item.config.stash[REPORT].tried
        tried.append(Tried(file, says, told.outcome, told.duration))
    return told


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page, if it was asked for."""
    target = session.config.getoption("--cluster-report")
    report = session.config.stash[REPORT]
    if target and report.tried:
        seconds = time.monotonic() - session.config.stash[BEGUN]
        Path(target).write_text(report.page(seconds), "utf-8")


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Where tests put their figures."""
    return pytestconfig.stash[REPORT]


@pytest.fixture(scope="session")
def pod_count(request: pytest.FixtureRequest) -> int:
    """How many pods are started at once."""
    return int(request.config.getoption("--pods"))


@pytest.fixture(scope="session")
def replica_count(request: pytest.FixtureRequest) -> int:
    """How many replicas are restarted again and again."""
    return int(request.config.getoption("--replicas"))


@pytest.fixture(scope="session")
def image_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    """A store of images with the base in it."""
    with ImageStore(tmp_path_factory.mktemp("images") / "store") as store:
        yield store


@pytest.fixture(scope="session")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the images are built from."""
    return copy_sources(tmp_path_factory.mktemp("sources") / "tree")


@pytest.fixture(scope="session")
def images(image_store: ImageStore, source_tree: Path, report: Report) -> dict[str, Built]:
    """Both images of this clone, by target; the packages are fetched on the way."""
    built = image_store.build(source_tree, more=("--offline", PYTHON_OF_BASE))
    for target, one in built.items():
        report.figure("Images", f"{target}, time to build", f"{one.seconds:.1f} s")
    return built


@pytest.fixture(scope="session")
def bare_cluster(report: Report) -> Iterator[Cluster]:
    """The cluster with Python's and the application's images, and nothing of ours."""
    with Cluster() as cluster:
        for step, seconds in cluster.timings.items():
            report.figure("The cluster, from nothing", step, f"after {seconds:.1f} s")
        for tree in TREES:
            cluster.load_image(tree_archive(tree))
        yield cluster


@pytest.fixture(scope="session")
def archives(request: pytest.FixtureRequest) -> list[Path]:
    """The archives of both images of ours, for a cluster to be given."""
    made_before = request.config.getoption("--images")
    if made_before:
        found = sorted(Path(made_before).glob("penstock-*.tar"))
    else:
        found = [built.archive for built in request.getfixturevalue("images").values()]
    assert len(found) == 2
    return found


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster, archives: list[Path]) -> Cluster:
    """The cluster with all images."""
    for archive in archives:
        bare_cluster.load_image(archive)
    return bare_cluster


@pytest.fixture(scope="session")
def release(cluster: Cluster, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The chart, installed with what it has by default."""
    # A copy, so that nobody edits it meanwhile.
    chart = shutil.copytree(CHART, tmp_path_factory.mktemp("chart") / "penstock")
    installed = Release(cluster, chart)
    installed.make_namespace()
    begun = time.monotonic()
    installed.install()
    report.figure("Times", "helm install until all is ready", f"{time.monotonic() - begun:.1f} s")
    return installed
