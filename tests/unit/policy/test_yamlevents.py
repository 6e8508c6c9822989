"""Events of YAML: those of ruamel.yaml to the letter, sooner."""

from __future__ import annotations

import pytest

from broker.policy.yamlevents import events_of
from tests.fakes.yaml_events import told, told_by_ruamel

TEXTS = {
    "nothing": "",
    "a comment": "# alone\n",
    "a key": "a: 1\n",
    "no line end": "a: b c",
    "words": "because: some words, and (others) / more\n",
    "words in two lines": "because: some words\n  that go on\nnext: 1\n",
    "words in two paragraphs": "because: some words\n\n  that go on\n\nnext: 1\n",
    "a value without indent": "- a\n- b c\n-  d\n",
    "a list below a key": "a:\n- b\n- c: d\n  e: f\nb: g\n",
    "flow": "a: {b: c, d: [e, f g, h], i: {}}\n",
    "flow in lines": "a: [b,\n  c\n  d,\n e]\n",
    "colons": "a: b:c\nd: [e:f, g]\nh::i: j\n",
    "colon in flow": "a: [::1]\n",
    "address in flow": "a: [2001:db8::, 1]\n",
    "question marks": "a: b?\n? c d\n: e\n",
    "a comment behind": "a: b c # d\ne: f#g\n",
    "a comment below": "a: b c\n# d\n  # e\nf: g\n",
    "quoted": "a: 'b c'\nd: \"e: f\"\n'g h': i\n",
    "blocks": "a: |\n  b: c\n   d\ne: >-\n  f\n  g\nh: i\n",
    "documents": "a: b\n---\nc: d\n...\n",
    "a marker for a value": "a: b\n--- c\n",
    "dashes": "a: -b\nc: - d\n",
    "tabs": "a:\tb\nc: d\te\n",
    "carriage returns": "a: b c\r\nd: e f\r\n",
    "lone carriage return": "a: b\rc: d\n",
    "anchors": "a: &b c d\ne: *b\nf: !!str g h\n",
    "unicode": "a: bé c\nd: ü\n",
    "other line ends": "a: b\x85c: d\u2028e\n",
    "no colon": "a: b\nc d\n  e f\ng: h\n",
    "no colon before a comment": "a: b\nc d\n# e\ng: h\n",
    "two colons": "a: b: c\n",
    "too deep a value": "a: b\n  c: d\n",
    "unclosed": "a: [b c\nd: e\n",
    "a long key": f"{'x' * 1025}: y\n",
    "a long key of words": f"{'x ' * 600}y: z\n",
    "indented document": "   a: b c\n   d: e\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_events_are_those_of_ruamel(name: str) -> None:
    """With their marks; what it refuses is refused in the same words at the same place."""
    assert told(events_of, TEXTS[name]) == told_by_ruamel(TEXTS[name])
