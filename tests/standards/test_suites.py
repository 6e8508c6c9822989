"""No test lies where no command runs it."""

import re

from tests.check import deal, files_of
from tests.standards.sources import REPOSITORY, read


def suites(variable: str) -> set[str]:
    """Return the suites that a variable of the Makefile lists."""
    (listed,) = re.findall(rf"^{variable} := (.+)$", read("Makefile"), re.MULTILINE)
    return set(listed.split())


def test_every_folder_with_tests_is_run() -> None:
    """Each folder of tests/ with a test file is a suite of the Makefile, and conversely."""
    with_tests = {
        f"tests/{path.relative_to(REPOSITORY / 'tests').parts[0]}"
        for path in (REPOSITORY / "tests").rglob("test_*.py")
    }
    run = ("CHECK_SUITES", "PEER_SUITES", "CLUSTER_SUITES")
    assert with_tests == {suite for variable in run for suite in suites(variable)}


def test_every_file_is_run_by_one_process_of_the_check() -> None:
    """None is lost when they are dealt, none is run twice, and no process has much more."""
    files = files_of(sorted(suites("CHECK_SUITES")))
    hands = deal(files, 3)
    assert sorted(path for hand in hands for path in hand) == files
    lengths = [sum(path.stat().st_size for path in hand) for hand in hands]
    assert max(lengths) < 1.1 * min(lengths)
