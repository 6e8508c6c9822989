"""Words that several kinds of policy file share."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from broker.issuance.node_ports import EnrolmentMethod
from broker.policy.words import Attestation, KeyKind, KeyUsage, Pattern, Usage


class Form(BaseModel):
    """A form with a pattern."""

    pattern: Pattern


def test_patterns_are_read_and_written_as_people_write_them() -> None:
    """Of names and of addresses."""
    for text in ("www.example.com", "**.example.com", "10.20.0.0/16"):
        assert Form.model_validate({"pattern": text}).model_dump()["pattern"] == text
    with pytest.raises(ValidationError, match="in quotes"):
        Form.model_validate({"pattern": 10})


def test_words_are_those_of_files() -> None:
    """Lower case, with dashes: they stand in policies."""
    for words in (KeyKind, Usage, KeyUsage, Attestation):
        assert all(word == word.lower() and "_" not in word for word in words)


def test_attestations_are_the_ways_in_which_nodes_are_let_in() -> None:
    """All but that by a former key, which leaves a node what it was."""
    assert {str(one) for one in EnrolmentMethod} - {"former"} == {str(one) for one in Attestation}
