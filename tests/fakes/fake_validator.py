"""A validator that sees the right answer everywhere, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from broker.issuance.ports import Question
from broker.protocol.challenges import (
    ChallengeType,
    Failure,
    Observation,
    dns01_value,
    key_authorization,
)
from tests.fakes.stall import Stall


class FakeValidator:
    """``issuance.ports.Validator``, which goes nowhere."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.wrong: set[str] = set()
        """Names at which something else is found."""
        self._failures: list[Failure] = []
        self._stalls: list[Stall] = []

    def fail(self, failures: Sequence[Failure]) -> None:
        """Let the next looks end so."""
        self._failures += failures

    def stall(self) -> Stall:
        """Let the next look wait."""
        made = Stall(is_after=False)
        self._stalls.append(made)
        return made

    async def observe(self, question: Question) -> Observation:
        """See the port."""
        self.asked.append(question)
        if self._stalls:
            await self._stalls.pop(0).wait()
        target = f"{question.type} of {question.identifier}"
        if self._failures:
            return Observation(question.type, target, failure=self._failures.pop(0))
        return Observation(question.type, target, answers=(self._answer(question),))

    def _answer(self, question: Question) -> str:
        if question.identifier.value in self.wrong:
            return "something else"
        answer = key_authorization(question.token, question.thumbprint)
        return answer if question.type is ChallengeType.HTTP_01 else dns01_value(answer)
