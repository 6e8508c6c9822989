"""What was asked of policy, fetched page by page and asked of two worlds in this process."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any, Final

from broker.issuance.requesting import decided_requester
from broker.policy.decisions import EabGrant
from broker.policy.replay import Asked, Replay, World, WorldChange
from broker.policy.replay_report import ReplayKind, ReplayReport
from broker.policy.requesters import Requester
from broker.protocol.identifiers import Identifier, IdentifierType

__all__ = ["Ask", "Limits", "replay_all"]

Ask = Callable[[str, Mapping[str, object]], Any]
"""Has a command of the desk done and returns its answer."""

Limits = Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]
"""(community, key id) → names and profiles of keys that the configuration declares."""

MANY: Final = 5_000
"""From how many requests on they are asked in several processes: starting these takes 0.1 s."""

MOST_UNDER_WAY: Final = 8
"""Pages under way at the same time, at half a megabyte each."""

PROGRESS_SECONDS: Final = 0.5
"""Pause between two lines of progress on a terminal, in seconds."""


@dataclass(frozen=True, slots=True)
class _Touched:
    """A request that comes to something else."""

    asked: Asked
    changes: tuple[WorldChange, ...]
    reference: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a page came to."""

    kind: ReplayKind
    rows: int
    closed: int
    touched: tuple[_Touched, ...]


class _Asking:
    """Asks whole pages, in this process or, for many, in as many as there are processors."""

    def __init__(self, replay: Replay, limits: Limits, *, requests: int) -> None:
        global _page_replayed
        self._replay_page = partial(_replay_page, replay, limits)
        self._pool: ProcessPoolExecutor | None = None
        processors = len(os.sched_getaffinity(0))
        if processors > 1 and requests >= MANY:
            # Forked, so that policies are there already: they are too large to be sent about.
            _page_replayed = self._replay_page
            self._pool = ProcessPoolExecutor(processors, get_context("fork"))

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def outcomes(self, pages: Iterator[tuple[ReplayKind, Mapping[str, Any]]]) -> Iterator[_Outcome]:
        """Yield what each page came to; a few are under way at the same time."""
        waiting: deque[Future[_Outcome]] = deque()
        for kind, page in pages:
            if self._pool is None:
                yield self._replay_page(kind, page)
                continue
            waiting.append(self._pool.submit(_in_child, kind, page))
            if len(waiting) > MOST_UNDER_WAY:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_page_replayed: Callable[[ReplayKind, Mapping[str, Any]], _Outcome] | None = None
"""What a child does with a page."""


def _in_child(kind: ReplayKind, page: Mapping[str, Any]) -> _Outcome:
    if _page_replayed is None:
        raise RuntimeError("this process was not forked to replay")
    return _page_replayed(kind, page)


def _replay_page(
    replay: Replay, limits: Limits, kind: ReplayKind, page: Mapping[str, Any]
) -> _Outcome:
    touched: list[_Touched] = []
    closed = 0
    askers = page["askers"]
    for row in page["rows"]:
        asker = askers.get(row["account"])
        if asker is None or asker["closed"]:
            closed += 1  # it orders nothing any more, whatever a policy says
            continue
        asked = _asked(row, asker, limits, is_renewal=kind is ReplayKind.CERTIFICATE)
        changes = replay.changes(asked)
        if changes:
            touched.append(_Touched(asked, changes, row["reference"], _moment(row["until"])))
    return _Outcome(kind, len(page["rows"]), closed, tuple(touched))


def replay_all(
    ask: Ask, old: World, new: World, *, days: int, limits: Limits, is_shown: bool = False
) -> ReplayReport:
    """Ask everything that was asked in the last *days*, and every live certificate's renewal."""
    report = ReplayReport()
    counts = ask("policy_asked_counts", {"days": days})
    expected = int(counts["orders"]) + int(counts["certificates"])
    progress = _Progress(expected, is_shown=is_shown)
    with _Asking(Replay(old, new), limits, requests=expected) as asking:
        for outcome in asking.outcomes(_all_pages(ask, days)):
            report.count(outcome.kind, outcome.rows - outcome.closed)
            report.closed += outcome.closed
            for one in outcome.touched:
                report.add(
                    outcome.kind,
                    one.asked,
                    one.changes,
                    reference=one.reference,
                    until=one.until,
                )
            progress.show(outcome.rows)
    progress.end()
    return report


def _all_pages(ask: Ask, days: int) -> Iterator[tuple[ReplayKind, Mapping[str, Any]]]:
    for kind in ReplayKind:
        for page in _pages(ask, kind, days):
            yield kind, page


def _pages(ask: Ask, kind: ReplayKind, days: int) -> Iterator[Mapping[str, Any]]:
    after: object = None
    while True:
        page = ask("policy_asked", {"kind": str(kind), "days": days, "after": after})
        yield page
        after = page["after"]
        if after is None:
            return


def _asked(
    row: Mapping[str, Any], asker: Mapping[str, Any], limits: Limits, *, is_renewal: bool
) -> Asked:
    lifetime = row["lifetime"]
    return Asked(
        community=row["community"],
        identifiers=tuple(Identifier(IdentifierType(kind), name) for kind, name in row["names"]),
        profile=row["profile"],
        is_start_asked=row["start"],
        lifetime=None if lifetime is None else timedelta(seconds=lifetime),
        eab=_grant(row["community"], asker, limits),
        requester=_requester(row, asker),
        is_unchanged_renewal=is_renewal or row["renewal"],
    )


def _grant(community: str, asker: Mapping[str, Any], limits: Limits) -> EabGrant | None:
    key = asker["eab"]
    if key is not None:
        kept = tuple(asker["eab_names"]), tuple(asker["eab_profiles"])
        names, profiles = limits.get((community, key), kept)
        return EabGrant(key_id=key, names=names, profiles=profiles)
    if asker["node"] is not None:
        return EabGrant(
            key_id="",
            names=tuple(asker["node_names"]),
            profiles=tuple(asker["node_profiles"]),
            node=asker["node"],
        )
    return None


def _requester(row: Mapping[str, Any], asker: Mapping[str, Any]) -> Requester:
    """Return who asked as it was seen then; what the account has now is looked up now.

    So is how its node was let in, but only for orders from before that was kept with them.
    """
    decided = decided_requester({"requester": row["requester"]})
    return replace(
        decided,
        account_id=row["account"],
        thumbprint=asker["thumbprint"],
        eab_key_id=asker["eab"],
        node=asker["node"],
        attestation=decided.attestation or asker["attestation"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class _Progress:
    """How far it is, on a terminal or where it was asked for."""

    def __init__(self, total: int, *, is_shown: bool) -> None:
        self._total = total
        self._is_shown = is_shown or sys.stderr.isatty()
        self._done = 0
        self._begun = self._shown = time.monotonic()

    def show(self, more: int) -> None:
        """Count *more* requests."""
        self._done += more
        now = time.monotonic()
        if self._is_shown and now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            total = max(self._total, self._done)
            share = 100 * self._done // total if total else 100
            line = f"{self._done:,} of {total:,} requests ({share} %), {now - self._begun:.0f} s"
            end = "\r" if sys.stderr.isatty() else "\n"
            print(line, end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._is_shown and sys.stderr.isatty():
            print("\033[K", end="", file=sys.stderr, flush=True)
