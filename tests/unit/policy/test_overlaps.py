"""Patterns with unknown parts: whether a name can be both."""

import pytest

from broker.policy.overlaps import UNKNOWN, has_common_name, parse_loose

Q = UNKNOWN

MEET = [
    ("a.example", "a.example"),
    ("A.example", "a.EXAMPLE"),
    ("*.example", "a.example"),
    ("**.example", "a.b.example"),
    ("**.example", "*.b.example"),
    ("**", "a.example"),
    ("**", "**"),
    ("**.a.example", "**.example"),
    ("*.example", "*.example"),
    (f"{Q}.example", "web.example"),
    (f"{Q}.example", f"{Q}.example"),
    (f"{Q}.{Q}.svc", "web.shop.svc"),
    (f"{Q}.{Q}.svc", "*.shop.svc"),
    (f"web-{Q}.example", f"{Q}-0.example"),
    (f"{Q}a{Q}.example", "bab.example"),
    (f"web-{Q}.example", "web-0.example"),
    ("10.0.0.0/8", "10.1.0.0/16"),
    ("jane@corp.example", "@corp.example"),
]

APART = [
    ("a.example", "b.example"),
    ("a.example", "b.a.example"),
    ("*.example", "example"),
    ("*.example", "a.b.example"),
    ("**.example", "example"),
    ("**.a.example", "**.b.example"),
    ("*.example", "*.a.example"),
    (f"{Q}.example", "a.b.example"),
    (f"{Q}.prod.example", f"{Q}.test.example"),
    (f"web-{Q}.example", "mail-0.example"),
    (f"web-{Q}.example", "web.example"),
    (f"web-{Q}.example", "web-.example"),
    (f"{Q}{Q}.example", "a.example"),
    ("a.example", "10.0.0.0/8"),
    ("corp.example", "@corp.example"),
]


@pytest.mark.parametrize(("one", "other"), MEET)
def test_patterns_of_one_name_meet(one: str, other: str) -> None:
    """Whichever is asked about the other."""
    assert has_common_name(parse_loose(one), parse_loose(other))
    assert has_common_name(parse_loose(other), parse_loose(one))


@pytest.mark.parametrize(("one", "other"), APART)
def test_patterns_without_a_common_name_do_not(one: str, other: str) -> None:
    """No name is both, whatever the unknown parts are."""
    assert not has_common_name(parse_loose(one), parse_loose(other))
    assert not has_common_name(parse_loose(other), parse_loose(one))
