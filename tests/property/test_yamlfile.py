"""Whatever a file holds, it is read or it is refused with faults; nothing else comes out."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.form import PolicyForm, check_references
from broker.policy.yamlfile import Faults, FileModel, load_model
from tests.unit.policy.builders import policy_text

PIECES = [
    *"[]{}:,-?&*!|>%@`'\"#~\n\t \\<\x00\x85\ufeff\u2028",
    "---", "...", "%YAML 1.1\n", "%TAG ! x\n", "!!binary", "&a", "*a", "<<", "\\x", "\\U0011ffff",
    "0x", "1e9", ".nan", "null", "true", "names", "allow", "cap", "90d", "\n  ", "\n- ",
]  # fmt: skip


class Anything(FileModel):
    """A model that knows one key."""

    cap: Any = None


def is_told(text: str, model: type[FileModel]) -> bool:
    """Return whether *text* is read, or refused with faults that say where and what."""
    try:
        load_model(text, "f.yaml", model, cross_check=check_references)
    except Faults as caught:
        told = caught.faults
        return bool(told) and all(fault.line >= 1 and fault.message for fault in told)
    return True


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_a_file_of_yaml_pieces_never_escapes(text: str) -> None:
    """No exception of the parser or of the model gets out."""
    assert is_told(text, Anything)


@given(
    start=st.integers(0, 600),
    length=st.integers(0, 20),
    put=st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
)
def test_a_damaged_policy_never_escapes(start: int, length: int, put: str) -> None:
    """A policy with a piece cut out or put in is a policy or is refused with faults."""
    text = policy_text()
    damaged = text[:start] + put + text[start + length :]
    assert is_told(damaged, PolicyForm)


Json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(PolicyForm.model_json_schema()["properties"])), Json))
def test_any_values_under_the_right_keys_never_escape(values: dict[str, Any]) -> None:
    """The cross-check and the words for faults bear values of any shape."""
    assert is_told(json.dumps(values), PolicyForm)
