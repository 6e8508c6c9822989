"""What holds for every suite.

Three promises are kept here rather than in each test: a run that collects nothing
where tests lie is a failure, a real peer that is missing is a failure and never a
skip, and no test sees the settings of whoever runs it.
"""

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_socket

from broker.keys import encryption, envelope
from tests.peers.loops import loops_end_with_their_connections

TESTS = Path(__file__).parent

OFFLINE_SUITES = frozenset({"unit", "property"})
"""Suites whose tests may open no socket but a Unix one, which asyncio itself needs."""

WHOLE_SUITES = frozenset({"e2e", "interop", "kubernetes", "packaging"})
"""Suites that `make check` leaves out as a whole: what is in them runs with the real peers, whether
it says so or not."""

CHEAP_SUITES = frozenset({"unit", "contract"})
"""Suites in which a passphrase is stretched at the least cost there is."""

DEAR_SCRYPT = (encryption.SCRYPT_COST, encryption.SCRYPT_PARALLELISM)
"""Cost and parallelism that the product stretches passphrases with."""


# A check that passed passes again: examples are drawn the same way each time, and a busy machine
# is no failure.  `make check` draws half as many as `make test`, and
# `pytest --hypothesis-profile=explore tests/property` goes looking for new ones.
hypothesis.settings.register_profile("house", max_examples=50, derandomize=True, deadline=None)
hypothesis.settings.register_profile("whole", max_examples=100, derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("house")


GC_ALLOCATIONS = 20_000
"""New objects after which the garbage collector looks at the young ones; Python's own is 700.

A few MiB may wait in a process for it.
"""


def suite_of(item: pytest.Item | pytest.Collector) -> str:
    """Return the name of the suite that *item* lies in, or nothing if it lies in none."""
    return _suite_of_file(item.path)


@functools.cache
def _suite_of_file(path: Path) -> str:
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""


class SilentFiles(pytest.Item):
    """A test that fails because files of tests gave none.

    It stands among the collected tests, so that it is reported like them, by name,
    also where several processes share the work.
    """

    def __init__(self, *, files: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.files = files

    def runtest(self) -> None:
        """Fail with the names of the files."""
        pytest.fail(f"no test was collected from {self.files}", pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites golden files."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files anew instead of comparing with them",
    )


@pytest.fixture(scope="session")
def update_golden(pytestconfig: pytest.Config) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(pytestconfig.getoption("--update-golden"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Fail when a test file, or one in a folder, that the command line names gave no test.

    It runs before ``-m`` and ``-k`` take tests away, so a suite may be narrowed on
    purpose but never lost by accident.  With ``--update-golden`` only those tests are left that
    write a file.
    """
    if config.getoption("--update-golden"):
        items[:] = [item for item in items if "update_golden" in getattr(item, "fixturenames", ())]
        return
    for item in items:
        if suite_of(item) in WHOLE_SUITES:
            item.add_marker(pytest.mark.e2e)
    collected = {item.path for item in items}
    silent = sorted(
        str(path.relative_to(config.rootpath))
        for argument in config.args
        for named in [config.invocation_params.dir / argument]
        for path in ([named] if named.is_file() else named.rglob("test_*.py"))
        if path not in collected
    )
    if silent:
        files = ", ".join(silent)
        items.append(SilentFiles.from_parent(session, name="silent files", files=files))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector: nearly all of what is made here stays.

    It would walk what there is again and again, one second in five of collecting.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Take what was collected out of the garbage collector's sight.

    It would walk thousands of tests again and again, for tenths of a second each time, also in the
    middle of a test that measures what a bad request costs.  What tests leave behind is looked for
    less often too: one in twenty seconds of a run went into that.
    """
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forbid the network to the suites that have no business with it."""
    if suite_of(item) in OFFLINE_SUITES:
        pytest_socket.disable_socket(allow_unix_socket=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Turn the skip of a test that is marked ``peers`` or ``e2e`` into a failure."""
    report: pytest.TestReport = yield
    needs_peer = any(item.get_closest_marker(name) for name in ("peers", "e2e"))
    if report.skipped and needs_peer and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a missing peer is a failure, not a skip: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def _strict_loops() -> Iterator[None]:
    """Fail a test whose event loop ends before its connections."""
    with loops_end_with_their_connections():
        yield


@pytest.fixture(autouse=True, scope="module")
def _cheap_passphrase(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stretch passphrases only a little: what a guess costs is shown by the tests that say so.

    Programs that a test starts are not touched by it.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        if suite_of(request.node) in CHEAP_SUITES:
            _stretch(monkeypatch, cost=2, parallelism=1)
        yield


@pytest.fixture
def dear_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch passphrases as dearly as the product does."""
    _stretch(monkeypatch, cost=DEAR_SCRYPT[0], parallelism=DEAR_SCRYPT[1])


def _stretch(monkeypatch: pytest.MonkeyPatch, *, cost: int, parallelism: int) -> None:
    for module in (encryption, envelope):
        monkeypatch.setattr(module, "SCRYPT_COST", cost)
        monkeypatch.setattr(module, "SCRYPT_PARALLELISM", parallelism)


@pytest.fixture(autouse=True, scope="module")
def _no_settings_of_the_user(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take the product's own settings, and those of proxies and Vault, out of the environment.

    The packaging suite keeps them: it fetches packages the way its user does.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        if suite_of(request.node) != "packaging":
            for name in filter(_is_setting_of_the_user, list(os.environ)):
                monkeypatch.delenv(name)
        yield


def _is_setting_of_the_user(name: str) -> bool:
    upper = name.upper()
    return upper.startswith(("PENSTOCK_", "VAULT_")) or upper in {
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
    }
