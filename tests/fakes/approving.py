"""A policy that wants people, and people who answer."""

from __future__ import annotations

from typing import Final

from broker.issuance.approval_ports import AnswerWord, ApprovalRecord, ApprovalStatus
from broker.issuance.events import Actor
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World

__all__ = ["ANNA", "BEN", "CARL", "RULES", "ask", "filed", "people_policy", "say", "waiting"]

ANNA: Final = Actor("operator:anna", "seen in person")
BEN: Final = Actor("operator:ben", "the contract is good")
CARL: Final = Actor("operator:carl")

RULES: Final = """\
rules:
  - name: one-person
    because: these hosts speak for the company
    names: ["**.people.example.com"]
    approval:
      answer_within: 7d
      holds: 30d
  - name: two-people
    because: these hosts speak for the board
    names: ["**.board.example.com"]
    approval:
      people: 2
      holds: 300d
      reproof: 100d
      on_withdrawal: revoke
      evidence: [ticket]
"""


def people_policy(before: str = "", after: str = "") -> str:
    """Return the standard policy with rules that want people, one part of them replaced."""
    assert before in RULES, f"{before!r} is not in the rules"
    return POLICY + RULES.replace(before, after)


async def ask(client: Client, *names: str, profile: str | None = None) -> Problem:
    """Order, and return the refusal that tells of the request."""
    try:
        await client.order(*names, profile=profile)
    except Problem as problem:
        return problem
    raise AssertionError("the order was made")


async def waiting(world: World) -> list[ApprovalRecord]:
    """Return the requests that wait."""
    found = await world.store.list_approvals(
        statuses=[ApprovalStatus.WAITING], community=None, after=None, limit=100
    )
    return list(found)


async def filed(client: Client, *names: str, profile: str | None = None) -> ApprovalRecord:
    """Order, and return the request that was filed for it."""
    problem = await ask(client, *names, profile=profile)
    assert problem.type is ProblemType.USER_ACTION_REQUIRED, problem
    assert problem.instance is not None
    found = await client.world.store.find_approval(problem.instance.rpartition("/")[2])
    assert found is not None
    return found


async def say(
    world: World, approval: ApprovalRecord, word: str, actor: Actor, *evidence: str
) -> ApprovalRecord:
    """Have a person answer."""
    answer = world.authority.answer
    return await answer(
        approval.approval_id, AnswerWord(word), actor=actor, evidence=list(evidence)
    )
