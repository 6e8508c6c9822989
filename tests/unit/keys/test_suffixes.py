"""Public suffixes, from the packaged list."""

import re

import pytest

from broker.keys.suffixes import LIST_VERSION, PackagedPublicSuffixes

PACKAGED = PackagedPublicSuffixes()
"""One for all tests: reading the list takes longer than all of them."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("com", True, id="top-level"),
        pytest.param("co.uk", True, id="registry-below-a-country"),
        pytest.param("example.co.uk", False, id="name-below-it"),
        pytest.param("github.io", True, id="private-owner"),
        pytest.param("someone.github.io", False, id="customer-of-one"),
        pytest.param("internal", True, id="unlisted-top-level"),
        pytest.param("corp.internal", False, id="name-below-an-unlisted-one"),
        pytest.param("anything.ck", True, id="wildcard-rule"),
        pytest.param("www.ck", False, id="exception-to-it"),
        pytest.param("xn--p1ai", True, id="a-label"),
        pytest.param("CO.UK", True, id="upper-case"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_name_is_told_from_a_suffix(name: str, expected: bool) -> None:
    """The whole list counts, and the rule for names that it lacks."""
    assert PACKAGED.is_public_suffix(name) is expected


def test_the_list_is_dated() -> None:
    """Whoever asks how old the list is finds its date in the version."""
    assert re.search(r"\.20\d{6}$", LIST_VERSION)
