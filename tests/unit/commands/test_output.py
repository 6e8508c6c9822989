"""What a command prints."""

import json

import pytest

from broker.commands.output import print_json, print_pairs, print_rows, print_table


def test_json_is_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys in their order, text as it is."""
    print_json({"b": "ü", "a": None})
    out = capsys.readouterr().out
    assert json.loads(out) == {"b": "ü", "a": None}
    assert out.index('"b"') < out.index('"a"')


def test_empty_table_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody wonders whether the command worked."""
    print_table([], ["key_id", "label"])
    assert capsys.readouterr().out == "KEY ID  LABEL\n"


def test_columns_are_as_wide_as_what_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """And no line ends in blanks."""
    print_table([{"a": "long text", "b": True}, {"a": None, "b": False}], ["a", "b"])
    assert capsys.readouterr().out == "A          B\nlong text  yes\n-          no\n"


def test_rows_are_aligned_below_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    """And no line ends in blanks."""
    print_rows("last_events", [["a", "first", "x"], ["bb", "z", ""]])
    assert capsys.readouterr().out == "last events:\n  a   first  x\n  bb  z\n"


def test_pairs_show_what_is_within(capsys: pytest.CaptureFixture[str]) -> None:
    """Mappings and lists of them are indented below their name; PEM stands for itself."""
    print_pairs(
        {
            "order": "o1",
            "names": ["a", "b"],
            "error": None,
            "decision": {"lever": "ask"},
            "events": [{"kind": "x"}, {"kind": "y"}],
            "chain_pem": "-----BEGIN\nMAA=\n",
        }
    )
    assert capsys.readouterr().out == (
        "order:     o1\nnames:     a, b\nerror:     -\ndecision:\n  lever: ask\n"
        "events:\n  kind: x\n  --\n  kind: y\nchain pem:\n-----BEGIN\nMAA=\n"
    )


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Text of clients steers no terminal."""
    print_pairs({"a": "\x1b[2J"})
    assert "\x1b" not in capsys.readouterr().out
