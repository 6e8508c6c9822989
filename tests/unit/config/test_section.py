"""What all sections share: unknown keys refused, names that can stand in a URL."""

import pytest

from tests.unit.config.conftest import FaultsOf, Parse


@pytest.mark.parametrize("name", ["Default", "a b", "-a", "a/b", "ü", "a" * 64, ""])
def test_name_that_cannot_stand_in_a_url_is_refused(faults_of: FaultsOf, name: str) -> None:
    """Communities are part of every URL that a client keeps."""
    assert any("a name is 1 to 63 lower case" in each for each in faults_of(
        {"communities": {name: {}}, "upstreams.local.communities": [name]}
    ))  # fmt: skip


@pytest.mark.parametrize("name", ["default", "a-1", "a" * 63])
def test_plain_name_is_taken(parse: Parse, name: str) -> None:
    """The twin: lower case letters, digits and dashes."""
    config = parse({"communities": {name: {}}, "upstreams.local.communities": [name]})
    assert list(config.communities) == [name]


@pytest.mark.parametrize("name", ["", "a b", ".a", "a" * 65])
def test_profile_name_is_one_word(faults_of: FaultsOf, name: str) -> None:
    """Clients have to type it."""
    faults = faults_of({"upstreams.local.profiles": {name: {}}})
    assert any("a profile's name" in each for each in faults)
