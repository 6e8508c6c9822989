"""Patterns of node names: those of DNS names, and single labels as hosts have them.

web-01               that node
*.web.corp.example   nodes one label below
**                   every node
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from broker.policy.addresses import AddressPattern
from broker.policy.names import NamePattern, PatternSet, Reach, parse_pattern

__all__ = ["node_patterns", "parse_node_pattern"]

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def parse_node_pattern(text: str) -> NamePattern:
    """Return the pattern that *text* stands for.

    Raises:
        ValueError: With a sentence for whoever wrote it.
    """
    if _LABEL.fullmatch(text):
        return NamePattern(Reach.EXACT, text)
    found = parse_pattern(text)
    if not isinstance(found, NamePattern):
        what = "a network" if isinstance(found, AddressPattern) else "for e-mail"
        raise ValueError(f"'{text[:60]}' is {what}, expected the name of a node or a pattern")
    return found


def node_patterns(texts: Sequence[str]) -> PatternSet:
    """Return the set of *texts*; raises ValueError for the first that is no pattern."""
    return PatternSet([parse_node_pattern(text) for text in texts])
