"""Patterns of node names."""

import pytest

from broker.policy.node_names import node_patterns, parse_node_pattern


@pytest.mark.parametrize("text", ["web-01", "web-01.corp.example", "*.corp.example", "**"])
def test_pattern_is_read_as_it_is_written(text: str) -> None:
    """Single labels too, which no certificate could be for."""
    assert str(parse_node_pattern(text)) == text


@pytest.mark.parametrize("text", ["", "Web-01", "web_01", "10.0.0.0/8", "web-*", "-web"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """With a sentence for whoever wrote it."""
    with pytest.raises(ValueError, match=r"."):
        parse_node_pattern(text)


def test_set_finds_single_labels() -> None:
    """And nothing that only ends like one."""
    found = node_patterns(["web-01", "*.corp.example"])
    assert found.covering("web-01") is not None
    assert found.covering("a.corp.example") is not None
    assert found.covering("xweb-01") is None
    assert found.covering("web-01.corp.example.org") is None
