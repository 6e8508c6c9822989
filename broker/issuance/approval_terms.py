"""On which terms people say yes: how many, for how long, on what evidence.

They are those of the policy at the time of the ask, and kept with it.  Where policy asks for more
later, an approval that was given on less opens nothing until people have said yes on those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.approval_people import OPERATOR
from broker.policy.decisions import ApprovalDemand, OnWithdrawal, RuleRef
from broker.policy.rules import Approval
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["MAX_EVIDENCE", "Terms", "missing_kinds", "parse_evidence"]

MAX_EVIDENCE: Final = 20
"""Most references that one answer carries: a person reads them all."""

MAX_REFERENCE_CHARS: Final = 500
"""Longest reference to evidence, in characters: a URL, or a sentence."""

_EVIDENCE: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})=(.*)", re.ASCII | re.DOTALL)
_DIGEST: Final = re.compile(r"(.*\S) sha256:([0-9A-Fa-f]{64})", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What it takes, and what follows."""

    people: int
    answer_within: timedelta
    holds: timedelta
    reproof: timedelta | None = None
    revokes: bool = False
    """Whether withdrawing revokes the certificates that rest on it."""
    evidence: tuple[str, ...] = ()
    """Kinds that have to be referred to."""
    by: frozenset[str] | None = None
    """The only people who may; None: everybody who approves in the community."""
    rules: tuple[str, ...] = ()
    because: tuple[str, ...] = ()

    @classmethod
    def of(cls, demand: ApprovalDemand) -> Terms:
        """Return the terms of a policy's demand."""
        return cls(
            people=demand.people,
            answer_within=demand.answer_within,
            holds=demand.holds,
            reproof=demand.reproof,
            revokes=demand.on_withdrawal is OnWithdrawal.REVOKE,
            evidence=tuple(sorted(demand.evidence)),
            by=demand.by,
            rules=tuple(_place(rule) for rule in demand.rules),
            because=demand.because,
        )

    @classmethod
    def of_accounts(cls, wanted: Approval) -> Terms:
        """Return the terms on which a community lets accounts in."""
        return cls(
            people=wanted.people,
            answer_within=wanted.answer_within,
            holds=wanted.holds,
            reproof=wanted.reproof,
            revokes=wanted.on_withdrawal is OnWithdrawal.REVOKE,
            evidence=tuple(sorted(wanted.evidence)),
            by=wanted.by,
            rules=("accounts.approval",),
        )

    @classmethod
    def read(cls, kept: Mapping[str, object]) -> Terms:
        """Return the terms that `facts` wrote."""
        return cls(
            people=_number(kept, "people"),
            answer_within=timedelta(seconds=_number(kept, "answer_within_seconds")),
            holds=timedelta(seconds=_number(kept, "holds_seconds")),
            reproof=(
                timedelta(seconds=_number(kept, "reproof_seconds"))
                if kept.get("reproof_seconds") is not None
                else None
            ),
            revokes=bool(kept.get("revokes")),
            evidence=_texts(kept, "evidence"),
            # Requests of earlier versions are everybody's.
            by=None if kept.get("by") is None else frozenset(_texts(kept, "by")),
            rules=_texts(kept, "rules"),
            because=_texts(kept, "because"),
        )

    def facts(self) -> dict[str, object]:
        """Return what is kept."""
        reproof = self.reproof
        return {
            "people": self.people,
            "answer_within_seconds": int(self.answer_within.total_seconds()),
            "holds_seconds": int(self.holds.total_seconds()),
            "reproof_seconds": None if reproof is None else int(reproof.total_seconds()),
            "revokes": self.revokes,
            "evidence": list(self.evidence),
            "by": None if self.by is None else sorted(self.by),
            "rules": list(self.rules),
            "because": list(self.because),
        }

    def stricter(self, other: Terms) -> Terms:
        """Return the terms that hold both; who may say yes is as *other* has it, where it does:
        those whom a former policy named may be gone.

        Where that names fewer than it takes, so that nobody could ever meet it, how many and who
        are as *other* has them: those are today's, and the form of a policy sees that they can.
        """
        proofs = [one for one in (self.reproof, other.reproof) if one is not None]
        people = max(self.people, other.people)
        by = self.by if other.by is None else other.by
        if by is not None and len(by) < people:
            people, by = other.people, other.by
        return Terms(
            people=people,
            answer_within=min(self.answer_within, other.answer_within),
            holds=min(self.holds, other.holds),
            reproof=min(proofs) if proofs else None,
            revokes=self.revokes or other.revokes,
            evidence=tuple(sorted({*self.evidence, *other.evidence})),
            by=by,
            rules=tuple(dict.fromkeys((*self.rules, *other.rules))),
            because=tuple(dict.fromkeys((*self.because, *other.because))),
        )

    def is_open_to(self, actor: str) -> bool:
        """Return whether *actor*, by the name that events call them, is one of those who may."""
        return self.by is None or actor in {f"{OPERATOR}{name}" for name in self.by}

    def is_fresh(self, said_at: datetime, at: datetime) -> bool:
        """Return whether what one of several people said still waits for the others' word.

        It does for as long as an answer is waited for: else a yes, and the evidence with it, could
        be counted months later as if it had been given then.
        """
        return said_at + self.answer_within > at

    def is_met(
        self, given: Terms, decided_at: datetime, proofed_at: datetime, at: datetime
    ) -> bool:
        """Return whether an approval on the terms *given* is enough for these at *at*."""
        return (
            given.people >= self.people
            and set(self.evidence) <= set(given.evidence)
            and (self.by is None or (given.by is not None and given.by <= self.by))
            and decided_at + self.holds > at
            and (self.reproof is None or proofed_at + self.reproof > at)
        )


def parse_evidence(given: Sequence[str]) -> tuple[str, ...]:
    """Return the references as they are kept: ``KIND=REFERENCE``, or with `` sha256:HEX`` behind.

    Raises:
        Problem: malformed; one cannot be read, or there are too many.
    """
    if len(given) > MAX_EVIDENCE:
        raise Problem(
            ProblemType.MALFORMED, f"{len(given)} references to evidence, at most {MAX_EVIDENCE}"
        )
    return tuple(dict.fromkeys(_parse_one(text) for text in given))


def missing_kinds(wanted: Iterable[str], shown: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of evidence that nobody has referred to."""
    there = {text.partition("=")[0] for text in shown}
    return tuple(kind for kind in wanted if kind not in there)


def _parse_one(text: str) -> str:
    found = _EVIDENCE.fullmatch(text.strip())
    reference = found[2].strip() if found is not None else ""
    if found is None or not reference:
        raise Problem(
            ProblemType.MALFORMED,
            f"evidence {printable(text, 60)!r} is not KIND=REFERENCE, such as"
            " 'ticket=https://tickets.corp.example/7'",
        )
    if len(reference) > MAX_REFERENCE_CHARS:
        raise Problem(
            ProblemType.MALFORMED,
            f"reference to evidence has {len(reference)} characters, at most"
            f" {MAX_REFERENCE_CHARS}: refer to a document, do not copy it",
        )
    digest = _DIGEST.fullmatch(reference)
    if digest is None:
        if "sha256:" in reference:
            raise Problem(
                ProblemType.MALFORMED,
                "evidence has a digest that is not ' sha256:' and 64 hexadecimal digits at its end",
            )
        return f"{found[1]}={printable(reference, MAX_REFERENCE_CHARS)}"
    shown = printable(digest[1], MAX_REFERENCE_CHARS)
    return f"{found[1]}={shown} sha256:{digest[2].lower()}"


def _place(rule: RuleRef) -> str:
    return f"{rule.source}:{rule.line} {rule.path}"


def _number(kept: Mapping[str, object], name: str) -> int:
    value = kept[name]
    if not isinstance(value, int):
        raise ValueError(f"terms have {name} {value!r}, expected a number")
    return value


def _texts(kept: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = kept.get(name)
    return tuple(str(one) for one in value) if isinstance(value, list) else ()
