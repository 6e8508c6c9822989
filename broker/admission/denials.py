"""What keeps a pod from being made as it asks, each told in one sentence: what, where, what to do.

Whoever applied the pod reads it in their terminal, or in the event of what makes the pods.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Denied", "Malformed", "shown"]

MAX_SHOWN_CHARS: Final = 80
"""Longest value of a pod that a sentence repeats, in characters."""


class Denied(Exception):
    """The pod is not made; the text is the sentence, ``hint`` what to do."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(f"{sentence}: {hint}" if hint else sentence)


class Malformed(Exception):
    """What came is no review of an API server."""


def shown(value: object) -> str:
    """Return *value* between quotes, on one line, for a sentence."""
    text = str(value)
    clipped = text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
    return repr(clipped)
