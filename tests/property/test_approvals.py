"""However people answer and time goes by, an order passes only under an approval that stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.issuance.approval_gate import ApprovalGate
from broker.issuance.approval_people import People, is_any_of
from broker.issuance.approval_ports import AnswerWord, ApprovalRecord, ApprovalStatus
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor
from broker.issuance.records import AccountRecord
from broker.issuance.registration import RegistrationAuthority
from broker.policy.decisions import ApprovalDemand, NewOrderDecision, Requester
from broker.protocol.problems import Problem
from broker.protocol.resources import AccountStatus
from tests.fakes.approval_store import ApprovalsInMemory
from tests.fakes.clock import START, FakeClock
from tests.fakes.world import approval_url, dns

HOUR = timedelta(hours=1)
NAME = dns("www.people.example.com")
REQUESTER = "anna"
PEOPLE = (REQUESTER, "ben", "carl", "ben@corp.example")
"""Two of them could be one."""

Step = tuple[Any, ...]

says = st.tuples(
    st.just("say"), st.sampled_from(AnswerWord), st.sampled_from(PEOPLE), st.booleans()
)
waits = st.tuples(st.just("wait"), st.integers(1, 60))
named = st.sampled_from((None, frozenset({"ben", "carl"}), frozenset({"carl", "ben@corp.example"})))
rules = st.tuples(st.just("rule"), st.sampled_from((1, 2)), st.booleans(), named)
steps = st.lists(st.one_of(says, says, says, waits, rules, st.just(("ask",))), max_size=30)


class Office:
    """A gate, people, and a policy that may change."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store: Any = ApprovalsInMemory()
        people = People(self.store)
        self.gate = ApprovalGate(self.store, people, self.clock, approval_url)
        dispatcher: Any = Deaf()
        self.authority = RegistrationAuthority(self.store, people, dispatcher, self.clock)
        self.people, self.evidence = 1, False
        self.by: frozenset[str] | None = None
        self.account = AccountRecord(
            account_id="account-1", community="default", status=AccountStatus.VALID, jwk_json="{}",
            thumbprint="thumb", contacts=(f"mailto:{REQUESTER}@corp.example",), terms_agreed=True,
            eab_key_id=None, created_at=START,
        )  # fmt: skip
        self.withdrawn: set[str] = set()

    def demand(self) -> ApprovalDemand:
        """Return what policy wants now."""
        return ApprovalDemand(
            people=self.people, answer_within=50 * HOUR, holds=40 * HOUR, reproof=70 * HOUR,
            evidence=("ticket",) if self.evidence else (), identifiers=(NAME,), by=self.by,
        )  # fmt: skip

    async def ask(self) -> list[ApprovalRecord]:
        """Order; return what the order rests on, nothing if it was refused."""
        decision = NewOrderDecision(
            findings=(), checks=(), policy_sha256="00", profile="server", approval=self.demand()
        )
        try:
            resting = await self.gate.require(self.account, decision, Requester())
        except Problem:
            return []
        return [self.store.records[one] for one in resting.on]

    async def say(self, word: AnswerWord, person: str, *, has_evidence: bool) -> None:
        """Have somebody answer the newest request."""
        if not self.store.records:
            return
        newest = list(self.store.records)[-1]
        evidence = ["ticket=7"] if has_evidence else []
        try:
            made = await self.authority.answer(
                newest, word, actor=Actor(f"operator:{person}"), evidence=evidence
            )
        except (Problem, Conflict):
            return
        if made.status is ApprovalStatus.WITHDRAWN:
            self.withdrawn.add(newest)

    def verify(self, record: ApprovalRecord) -> None:
        """See that the approval was come by as policy wants it, and stands."""
        assert record.status is ApprovalStatus.APPROVED
        assert record.approval_id not in self.withdrawn
        assert record.decided_at is not None
        assert self.clock.now() < record.decided_at + 40 * HOUR
        answers = [one for one in self.store.answers if one.approval_id == record.approval_id]
        counted = [
            one
            for one in answers
            if one.round == record.round - 1 and one.word in (AnswerWord.APPROVE, AnswerWord.RENEW)
        ]
        assert len(counted) >= self.people
        for number, one in enumerate(counted):
            assert self.by is None or one.person.removeprefix("operator:") in self.by
            assert not is_any_of(one.person, [REQUESTER])
            assert not is_any_of(one.person, [other.person for other in counted[:number]])
        if self.evidence:
            assert any(one.evidence for one in answers)
        last = [one.word for one in answers if one.word in (AnswerWord.SUSPEND, AnswerWord.RESUME)]
        assert last[-1:] != [AnswerWord.SUSPEND]


class Deaf:
    """A dispatcher that does nothing."""

    kick: Callable[..., None] = staticmethod(lambda _job: None)


assert hasattr(Dispatcher, "kick"), "what stands for it here has to have the same name"


async def play(played: list[Step]) -> None:
    """Go through the steps, and ask after each."""
    office = Office()
    for step in played:
        match step:
            case ("say", word, person, has_evidence):
                await office.say(word, person, has_evidence=has_evidence)
            case ("wait", hours):
                office.clock.advance(hours * HOUR)
            case ("rule", people, evidence, by):
                office.people, office.evidence, office.by = people, evidence, by
        for record in await office.ask():
            office.verify(record)
    waiting = [one for one in office.store.records.values() if one.status is ApprovalStatus.WAITING]
    assert len(waiting) <= 1


@settings(max_examples=300)
@given(steps)
def test_order_passes_only_under_an_approval_that_stands(played: list[Step]) -> None:
    """As many different people as policy wants by now, with evidence, in time, not taken back."""
    asyncio.run(play(played))


def test_the_ordinary_way_leads_to_an_order() -> None:
    """So that the property above says something."""

    async def ordinary() -> int:
        office = Office()
        office.people, office.evidence = 2, True
        await office.ask()
        await office.say(AnswerWord.APPROVE, "ben", has_evidence=True)
        await office.say(AnswerWord.APPROVE, "carl", has_evidence=False)
        return len(await office.ask())

    assert asyncio.run(ordinary()) == 1
