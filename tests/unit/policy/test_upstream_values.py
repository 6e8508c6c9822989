"""What is known of one upstream, as values."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import pytest

from broker.policy import decisions
from broker.policy.upstream_values import DatedChange, UpstreamFacts
from tests.unit.policy.builders import upstream


def test_little_that_is_known_assumes_nothing_more() -> None:
    """DNS names alone, no programme, no profile that ends."""
    facts = upstream()
    assert facts.identifier_types == {"dns"}
    assert (facts.changes, dict(facts.profile_ends)) == ((), {})


def test_change_that_says_one_thing_leaves_the_other() -> None:
    """None is no change, and not nothing."""
    change = DatedChange(valid_from=date(2027, 3, 15), by="the CA", max_lifetime=timedelta(days=1))
    assert change.usages is None


def test_values_are_frozen() -> None:
    """Facts of a decision are those of its audit record."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        upstream().name = "other"  # type: ignore[misc]


def test_decisions_hand_them_on() -> None:
    """They are facts of a decision, wherever they are written down."""
    assert decisions.UpstreamFacts is UpstreamFacts
