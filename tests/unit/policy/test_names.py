"""The pattern language: what a pattern covers, what it touches, what is no pattern."""

from __future__ import annotations

import pytest

from broker.policy.names import PatternSet, is_private_name, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "covers"),
    [
        pytest.param("a.example", "a.example", True, id="exact"),
        pytest.param("a.example", "b.a.example", False, id="exact-not-below"),
        pytest.param("*.a.example", "b.a.example", True, id="one"),
        pytest.param("*.a.example", "a.example", False, id="one-not-the-base"),
        pytest.param("*.a.example", "c.b.a.example", False, id="one-not-two"),
        pytest.param("**.a.example", "b.a.example", True, id="any-one"),
        pytest.param("**.a.example", "d.c.b.a.example", True, id="any-three"),
        pytest.param("**.a.example", "a.example", False, id="any-not-the-base"),
        pytest.param("**.internal", "x.internal", True, id="one-label-base"),
        pytest.param("**", "x.internal", True, id="everything"),
        pytest.param("**.example.com", "evil-example.com", False, id="suffix-of-text"),
        pytest.param("**.example.com", "www.evil-example.com", False, id="suffix-of-label"),
        pytest.param("example.com", "example.com.evil.net", False, id="prefix"),
        pytest.param("**.example.com", "www.example.com.evil.net", False, id="in-the-middle"),
        pytest.param("**.example.com", "examplexcom", False, id="dot-is-no-joker"),
        pytest.param("*.example.com", "a.exampleXcom".lower(), False, id="dot-is-no-joker-below"),
        pytest.param("*.a.example", "*.a.example", True, id="wildcard-by-one"),
        pytest.param("**.a.example", "*.a.example", True, id="wildcard-by-any"),
        pytest.param("**.example", "*.a.example", True, id="wildcard-by-any-above"),
        pytest.param("**", "*.a.example", True, id="wildcard-by-everything"),
        pytest.param("*.example", "*.a.example", False, id="wildcard-not-by-one-above"),
        pytest.param("b.a.example", "*.a.example", False, id="wildcard-not-by-one-of-its-names"),
        pytest.param("a.example", "*.a.example", False, id="wildcard-not-by-its-base"),
        pytest.param("**.b.a.example", "*.a.example", False, id="wildcard-not-by-deeper"),
        pytest.param("XN--BCHER-KVA.example", "xn--bcher-kva.example", True, id="one-spelling"),
    ],
)
def test_a_pattern_covers_whole_labels(pattern: str, name: str, covers: bool) -> None:
    """No text trick gets past a comparison of labels."""
    assert (PatternSet.parse([pattern]).covering(name) == 0) is covers


@pytest.mark.parametrize(
    ("pattern", "name", "touches"),
    [
        pytest.param("b.a.example", "*.a.example", True, id="one-of-the-names"),
        pytest.param("*.a.example", "*.a.example", True, id="all-of-the-names"),
        pytest.param("**.example", "*.a.example", True, id="all-from-above"),
        pytest.param("a.example", "*.a.example", False, id="base-is-not-one-of-the-names"),
        pytest.param("c.b.a.example", "*.a.example", False, id="two-below"),
        pytest.param("**.b.a.example", "*.a.example", False, id="only-deeper"),
        pytest.param("*.b.a.example", "*.a.example", False, id="only-one-deeper"),
        pytest.param("b.a.example", "b.a.example", True, id="plain-name"),
        pytest.param("b.a.example", "c.a.example", False, id="other-plain-name"),
    ],
)
def test_a_pattern_touches_a_wildcard_by_any_of_its_names(
    pattern: str, name: str, touches: bool
) -> None:
    """One name of those that a wildcard stands for is enough to deny it."""
    assert (PatternSet.parse([pattern]).touching(name) == (0,)) is touches


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "'' is no pattern", id="empty"),
        pytest.param("*", "'*' is no pattern", id="bare-star"),
        pytest.param("*.", "'*.' is no pattern", id="star-dot"),
        pytest.param("***", "is no pattern", id="three-stars"),
        pytest.param("***.a.example", "whole leftmost label", id="three-stars-below"),
        pytest.param("*a.example", "whole leftmost label", id="star-in-a-label"),
        pytest.param("a.*.example", "whole leftmost label", id="star-in-the-middle"),
        pytest.param("*.*.example", "whole leftmost label", id="two-stars"),
        pytest.param("**.*.example", "whole leftmost label", id="stars-mixed"),
        pytest.param("bücher.example", "such as 'xn--bcher-kva.example'", id="u-label"),
        pytest.param("**.bücher.example", "such as 'xn--bcher-kva.example'", id="u-label-below"),
        pytest.param("localhost", "is a single label", id="single-label"),
        pytest.param("a.example.", "ends with a dot", id="trailing-dot"),
        pytest.param("**.a.example.", "ends with a dot", id="trailing-dot-below"),
        pytest.param("a..example", "has an empty label", id="empty-label"),
        pytest.param(".a.example", "has an empty label", id="leading-dot"),
        pytest.param("**..example", "has an empty label", id="dot-twice"),
        pytest.param("a_b.example", "has an underscore", id="underscore"),
        pytest.param("-a.example", "letters, digits and inner hyphens", id="hyphen-first"),
        pytest.param("a b.example", "letters, digits and inner hyphens", id="space"),
        pytest.param("*.192.0.2.1", "like an IP address", id="address-below-a-star"),
        pytest.param("**.2.1", "like an IP address", id="address-below"),
        pytest.param("xn--a.example", "no valid A-label", id="bad-punycode"),
        pytest.param(f"{'a' * 64}.example", "63", id="long-label"),
        pytest.param(f"**.{'a.' * 125}ab", "too long to have names below it", id="no-room-below"),
        pytest.param("a." * 150 + "example", "253", id="long-name"),
    ],
)
def test_what_is_no_pattern_is_refused_with_a_reason(text: str, sentence: str) -> None:
    """At load, not when the first name meets it."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_pattern(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", ["a.example", "*.a.example", "**.internal", "**"])
def test_a_pattern_is_written_as_it_was_read(text: str) -> None:
    """So that what is shown can be put into a file."""
    assert str(parse_pattern(text)) == text


def test_a_set_answers_with_the_first_pattern_and_with_all() -> None:
    """The order is that of the file, and a pattern that stands twice counts twice."""
    patterns = PatternSet.parse(["x.example", "**.example", "b.a.example", "**.example"])
    assert patterns.covering("b.a.example") == 1
    assert patterns.touching("b.a.example") == (1, 2, 3)
    assert patterns.touching("*.a.example") == (1, 2, 3)
    assert patterns.covering("b.a.test") is None
    assert patterns.touching("b.a.test") == ()
    assert len(patterns) == 4


def test_an_empty_set_covers_nothing() -> None:
    """An empty list allows nothing."""
    assert PatternSet([]).covering("a.example") is None


@pytest.mark.parametrize(
    ("name", "is_private"),
    [
        pytest.param("db.internal", True, id="internal"),
        pytest.param("*.db.internal", True, id="wildcard"),
        pytest.param("*.internal", True, id="wildcard-over-all"),
        pytest.param("printer.local", True, id="local"),
        pytest.param("printer", True, id="single-label"),
        pytest.param("nas.home.arpa", True, id="home-arpa"),
        pytest.param("home.arpa", True, id="home-arpa-itself"),
        pytest.param("ci.test", True, id="test"),
        pytest.param("dc.corp", True, id="corp"),
        pytest.param("www.example.com", False, id="public"),
        pytest.param("internal.example.com", False, id="label-elsewhere"),
        pytest.param("www.notinternal", False, id="end-of-a-label"),
        pytest.param("www.example", False, id="names-for-documents"),
        pytest.param("1.in-addr.arpa", False, id="arpa"),
    ],
)
def test_private_names_are_known_by_their_top(name: str, is_private: bool) -> None:
    """Names that no public CA can issue for, and that a log would keep for ever."""
    assert is_private_name(name) is is_private


@pytest.mark.parametrize(
    ("pattern", "value", "covers"),
    [
        pytest.param("@corp.example", "jane@corp.example", True, id="domain"),
        pytest.param("@corp.example", "jane@sub.corp.example", False, id="not-below"),
        pytest.param("@corp.example", "jane@evil-corp.example", False, id="not-alike"),
        pytest.param("@*.corp.example", "jane@sub.corp.example", True, id="one-below"),
        pytest.param("@**.corp.example", "jane@a.b.corp.example", True, id="all-below"),
        pytest.param("@**.corp.example", "jane@corp.example", False, id="below-only"),
        pytest.param("@**", "jane@corp.example", True, id="every-domain"),
        pytest.param("jane@corp.example", "jane@corp.example", True, id="one-address"),
        pytest.param("jane@corp.example", "joe@corp.example", False, id="another-address"),
        pytest.param("**", "jane@corp.example", False, id="names-are-no-mail"),
        pytest.param("corp.example", "jane@corp.example", False, id="the-domain-as-a-name"),
        pytest.param("@corp.example", "corp.example", False, id="mail-is-no-name"),
    ],
)
def test_patterns_of_e_mail(pattern: str, value: str, covers: bool) -> None:
    """By whole labels of the domain, and never by names."""
    found = PatternSet.parse([pattern])
    assert (found.covering(value) is not None) is covers
    assert bool(found.touching(value)) is covers
    assert str(parse_pattern(pattern)) == pattern


def test_a_mailbox_is_denied_in_every_case_and_allowed_in_one() -> None:
    """Most servers deliver to both (RFC 5321 §2.4): a rule about one is not got around."""
    patterns = PatternSet.parse(["Jane@corp.example"])
    assert patterns.touching("jANE@corp.example") == (0,)
    assert patterns.covering("jANE@corp.example") is None
    assert patterns.touching("joe@corp.example") == ()


@pytest.mark.parametrize(
    "text", ["@", "jane@", "a@b@c.example", "jane@*.corp.example", "@10.0.0.1"]
)
def test_what_is_no_pattern_of_e_mail(text: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="expected"):
        parse_pattern(text)


def test_many_patterns_of_e_mail_are_told_apart() -> None:
    """Domains are looked up like names, each answer in its place among patterns of other kinds."""
    made = PatternSet.parse(
        ["**", "@**.b.example", *(f"@d{number}.example" for number in range(100)), "j@d7.example"]
    )
    assert made.has_mail
    assert made.touching("j@d7.example") == (9, 102)
    assert made.touching("j@a.b.example") == (1,)
    assert made.covering("j@d100.example") is None
    assert made.covering("d7.example") == 0
    assert not PatternSet.parse(["**", "10.0.0.0/8"]).has_mail
