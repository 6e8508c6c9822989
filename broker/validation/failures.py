"""How the steps of a validation give up: one exception that carries the failure."""

from __future__ import annotations

from broker.protocol.challenges import Failure, FailureKind

__all__ = ["Unobserved"]


class Unobserved(Exception):
    """Nothing was seen; ``failure`` says why, in our own words."""

    def __init__(self, kind: FailureKind, text: str) -> None:
        super().__init__(text)
        self.failure = Failure(kind, text)
