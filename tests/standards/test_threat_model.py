"""THREAT_MODEL.md keeps its word: each attack has its defence, and each defence its test."""

import re

import pytest

from tests.standards.sources import read, table_rows
from tests.standards.test_standards_lines import NOT_YET, TEST_ID, has_test

DOCUMENT = "THREAT_MODEL.md"

ATTACKS = [
    row
    for heading in ("Attack", "Attack or fault", "Fault")
    for row in table_rows(DOCUMENT, heading)
]


def test_the_tables_are_there() -> None:
    """The document has attacks to check; without any, every other test would pass."""
    assert len(ATTACKS) >= 50


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[0][:60])
def test_attack_has_a_defence_and_tests_that_exist(attack: list[str]) -> None:
    """Each row says what stands there, and names tests that are there or the issue to come."""
    assert len(attack) == 3, f"three columns expected: {attack}"
    what, defence, tried = attack
    assert what
    assert defence
    if NOT_YET.fullmatch(tried):
        return
    named = TEST_ID.findall(tried)
    assert named, f"neither a test nor 'not yet (#issue)': {tried}"
    assert not TEST_ID.sub("", tried).strip(" ,"), f"not a test id: {tried}"
    missing = [f"{path}::{name}" for path, name in named if not has_test(path, name)]
    assert not missing, f"no such test: {', '.join(missing)}"


def test_what_is_not_defended_is_said() -> None:
    """The list is there, and an attack that no test tries is no secret."""
    (listed,) = re.findall(r"^## Not defended yet\n(.+)", read(DOCUMENT), re.DOTALL | re.MULTILINE)
    assert listed.count("\n- ") >= 10
