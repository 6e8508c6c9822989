"""What the broker says about a workload, as values, and the sentences made of it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.issuance.errors import Broken

__all__ = ["Budget", "Reason", "Reviewer", "Verdict", "Workload", "parse_verdict", "why_not"]

MAX_REASONS: Final = 3
"""Most reasons of one sentence; who mends these sees the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Who asks, and for what."""

    namespace: str
    service_account: str
    pod: str
    services: tuple[str, ...]
    """Names of the Services that select it."""
    names: tuple[str, ...]
    """Empty: what policy gives it by default."""
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a check says no."""

    check: str
    detail: str
    rule: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        where = ", ".join(
            part for part in (f"rule {self.rule}" if self.rule else "", place) if part
        )
        return f"{self.detail} ({where})" if where else self.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit that the order would count against."""

    quota: str
    limit: str
    used: str
    would_exceed: bool
    upstream: str = ""
    detail: str = ""

    def __str__(self) -> str:
        of = f" at {self.upstream}" if self.upstream else ""
        return self.detail or f"{self.quota}{of} is {self.limit} and {self.used} are used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What policy says."""

    is_allowed: bool
    names: tuple[str, ...]
    """What the pod is to ask for."""
    profile: str = ""
    upstreams: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    budget: tuple[Budget, ...] = ()


class Reviewer(Protocol):
    """Knows what policy says about a workload."""

    async def review(self, workload: Workload, seconds: float) -> Verdict:
        """Return what the broker says, asked for at most so many seconds.

        Raises:
            Unreachable: It cannot be asked in that time.
            Broken: It does not let us ask, or answers as no broker does.
        """
        ...


def parse_verdict(document: Mapping[str, Any]) -> Verdict:
    """Return the verdict of an answer; members that are not known are passed over.

    Raises:
        Broken: It is none.
    """
    allowed = document.get("allowed")
    if not isinstance(allowed, bool):
        raise Broken("the broker's answer does not say whether it is allowed")
    made = Verdict(
        is_allowed=allowed,
        names=_texts(document, "names"),
        profile=_text(document, "profile"),
        upstreams=_texts(document, "upstreams"),
        reasons=tuple(map(_reason, _objects(document, "reasons"))),
        budget=tuple(map(_budget, _objects(document, "budget"))),
    )
    if made.is_allowed and not made.names:
        raise Broken("the broker allows it and gives it no name")
    return made


def why_not(verdict: Verdict) -> str:
    """Return why a workload is refused, with the figures that it would exceed."""
    told = [str(one) for one in verdict.reasons[:MAX_REASONS]]
    left = len(verdict.reasons) - len(told)
    told += [str(one) for one in verdict.budget if one.would_exceed and str(one) not in told]
    return "; ".join(told or ["policy does not allow it"]) + (f"; and {left} more" if left else "")


def _reason(found: Mapping[str, Any]) -> Reason:
    line = found.get("line")
    return Reason(
        check=_text(found, "check"),
        detail=_text(found, "detail") or _text(found, "check") or "policy does not allow it",
        rule=_text(found, "rule"),
        file=_text(found, "file"),
        line=line if isinstance(line, int) and not isinstance(line, bool) else 0,
    )


def _budget(found: Mapping[str, Any]) -> Budget:
    return Budget(
        quota=_text(found, "quota") or "a limit",
        limit=_figure(found, "limit"),
        used=_figure(found, "used"),
        would_exceed=found.get("would_exceed") is True,
        upstream=_text(found, "upstream"),
        detail=_text(found, "detail"),
    )


def _figure(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else "?"


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Broken(f"the broker's answer has a '{name}' that is no text")
    return found


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = document.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Broken(f"the broker's answer has '{name}' that are no list of texts")
    return tuple(found)


def _objects(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = document.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Broken(f"the broker's answer has '{name}' that are no list of objects")
    return found
