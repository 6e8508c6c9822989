"""Sentences that people read in a terminal or an event."""

from broker.admission.denials import Denied, shown


def test_a_denial_says_what_and_what_to_do() -> None:
    """In one sentence; without a hint it is the sentence alone."""
    assert str(Denied("the pod is for 'windows'", "leave out inject")) == (
        "the pod is for 'windows': leave out inject"
    )
    assert str(Denied("the pod is for 'windows'")) == "the pod is for 'windows'"


def test_a_value_is_shown_on_one_line() -> None:
    """Whatever stands in it, and not for long."""
    assert shown("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(shown("x" * 10_000)) < 90
