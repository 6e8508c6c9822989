"""No test lies where no command runs it."""

import re

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
    assert with_tests == suites("CHECK_SUITES") | suites("PEER_SUITES")
