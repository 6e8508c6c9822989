"""Events of YAML, for texts of all kinds."""

from hypothesis import example, given
from hypothesis import strategies as st

from broker.policy.yamlevents import events_of
from tests.fakes.yaml_events import told, told_by_ruamel

PIECES = st.sampled_from(
    [
        "a", "b c", "word", "x-1.y", "'q'", '"q"', "*", "&a ", "!t ", "@", "é", "0",
        ":", ": ", ", ", ",", "[", "]", "{", "}", "- ", "-", "---", "...", "? ", "?", "|", ">-",
        "%", " ", "  ", "    ", "\n", "\n  ", "\n    ", "\n- ", "\n# c", " # c", "#", "\t",
        "\r\n", "\r", "\x85", "\u2028", "\ufeff",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
@example("a: b\nc d\n# e\ng: h\n")
@example("a b\n- c\n")
def test_events_are_those_of_ruamel(text: str) -> None:
    """Of whatever is written: one parser, and no second opinion."""
    assert told(events_of, text) == told_by_ruamel(text)


@given(st.text(alphabet="ab :,[]{}-#'\"\n?", max_size=60))
def test_events_of_noise_are_those_of_ruamel(text: str) -> None:
    """Of noise as well."""
    assert told(events_of, text) == told_by_ruamel(text)
