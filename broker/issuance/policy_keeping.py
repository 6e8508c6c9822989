"""Which policies are in force: a changed set is taken whole once it has proved to be good, or not
at all.

Files are looked at, read as of one moment, made into policies elsewhere, tried on their own cases,
and only then taken, by one assignment.  Whatever is wrong with a set changes nothing but what is
told of it: the set before stays in force, across restarts as well, since the files of every set
that was in force are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.policy_ports import (
    LoadedPolicies,
    PolicyChange,
    PolicyHistory,
    PolicyMaker,
    PolicyOutcome,
    PolicySource,
    PolicyTexts,
)
from broker.issuance.ports import Clock
from broker.policy.decisions import UpstreamFacts
from broker.policy.document import PolicyDocument
from broker.policy.yamlfile import Fault, Faults
from broker.protocol.encoding import format_timestamp

__all__ = ["FactsInForce", "PolicyKeeper", "PolicyRefusal", "check_version", "refusal_of"]

RETRY_AFTER: Final = timedelta(seconds=30)
"""Pause before a set is tried again that was not refused for what is in its files."""

RELOAD_PAUSES: Final = (0.1, 0.2, 0.4)
"""Seconds before files that somebody asked for, and that changed meanwhile, are read again."""

RESTLESS_AFTER: Final = timedelta(minutes=1)
"""How long files may go on changing before that is told: a slow copy takes seconds."""

TOLD_FAULTS: Final = 20
"""Faults that an event and the history keep of a refused set; the log and the status have more."""

TOLD_FILES: Final = 50
"""Names of changed files, and changed communities, that an event keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRefusal:
    """Why the files that lie there now are not in force."""

    since: datetime
    faults: tuple[str, ...]
    set_id: str | None = None
    """Of the files; None where they could not be read at all."""
    sha256: str | None = None
    is_final: bool = True
    """Whether the same files would be refused again; otherwise they are tried again."""


class FactsInForce(Mapping[str, UpstreamFacts]):
    """What is known of upstreams by the policies that are in force at each moment."""

    def __init__(self, keeper: PolicyKeeper) -> None:
        self._keeper = keeper

    def __getitem__(self, upstream: str) -> UpstreamFacts:
        return self._keeper.loaded.facts[upstream]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keeper.loaded.facts)

    def __len__(self) -> int:
        return len(self._keeper.loaded.facts)


class PolicyKeeper:
    """Implements ``ports.Policies``; knows what is in force since when, and why no newer set is."""

    def __init__(
        self,
        loaded: LoadedPolicies,
        *,
        source: PolicySource,
        maker: PolicyMaker,
        history: PolicyHistory,
        clock: Clock,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.loaded = loaded
        self.facts = FactsInForce(self)
        self.since = clock.now()
        self.is_last_good = False
        """Whether the files could not be used at the start and the kept set came into force."""
        self.refusal: PolicyRefusal | None = None
        self.counts = dict.fromkeys(PolicyOutcome, 0)
        """Sets that were activated and refused since the start."""
        self.took: timedelta | None = None
        """How long making and taking the last set took, None before the first."""
        self._source = source
        self._maker = maker
        self._history = history
        self._clock = clock
        self._pause = pause
        self._seen: object | None = None
        self._judged: object | None = None
        self._restless_since: datetime | None = None
        self._tried_at = clock.now()
        self._lock = asyncio.Lock()

    # ------------------------------------------------------------------------------- as a port

    def current(self, community: str) -> PolicyDocument:
        """Return the community's document; raises KeyError for an unknown community."""
        return self.loaded.documents[community]

    @property
    def documents(self) -> Mapping[str, PolicyDocument]:
        """Return every document that is in force, by community."""
        return self.loaded.documents

    def warning(self) -> str | None:
        """Return why what lies in the directories is not in force, None while it is."""
        refusal = self.refusal
        if refusal is None:
            return None
        more = f" and {len(refusal.faults) - 1} more" if len(refusal.faults) > 1 else ""
        return (
            f"files are refused since {format_timestamp(refusal.since)} and those of "
            f"{format_timestamp(self.since)} stay in force: {refusal.faults[0]}{more}"
        )

    # ------------------------------------------------------------------------------- the life

    def resume(self, refusal: PolicyRefusal) -> None:
        """Note at the start that the kept set is in force, for the files have *refusal*."""
        self.is_last_good = True
        self.refusal = refusal

    async def begin(self) -> None:
        """Keep what the start found, unless that is known already.

        Raises:
            Unreachable, Broken: The store cannot keep it now.
        """
        async with self._lock:
            latest = await self._history.policy_changes(limit=1)
            kept = await self._history.policy_set_in_force()
            if kept is not None and kept.change.set_id == self.loaded.texts.set_id:
                self.since = kept.change.at
            else:
                await self._keep_activation(self.loaded, None, SYSTEM)
            refusal = self.refusal
            if refusal is not None and not _is_told(refusal, latest):
                await self._keep_refusal(refusal, SYSTEM)
            elif refusal is not None:
                self.refusal = replace(refusal, since=latest[0].at)

    async def look(self) -> None:
        """Take a changed set once its files have stayed the same from one look to the next."""
        if self._lock.locked():
            return
        async with self._lock:
            now = self._clock.now()
            try:
                seen = await self._source.look()
            except Broken as error:
                await self._refuse_unread(error.reason)
                return
            has_settled, self._seen = seen == self._seen, seen
            if not has_settled:
                self._note_restless(now)
                return
            self._restless_since = None
            if seen == self._judged and not self._is_due(now):
                return
            with suppress(Unreachable):  # the next look sees them otherwise
                await self._take_up(SYSTEM, seen)

    async def reload(self, actor: Actor) -> None:
        """Read the files now and take them, or keep why not; what was refused is tried again.

        Raises:
            Unreachable: They were being changed whenever they were read, and nothing came of it.
        """
        async with self._lock:
            for seconds in RELOAD_PAUSES:
                with suppress(Unreachable):
                    await self._reload(actor)
                    return
                await self._pause(seconds)
            await self._reload(actor)

    async def _reload(self, actor: Actor) -> None:
        try:
            self._seen = seen = await self._source.look()
        except Broken as error:
            await self._refuse_unread(error.reason)
            return
        await self._take_up(actor, seen, is_told_again=True)

    def _is_due(self, now: datetime) -> bool:
        """Return whether a set that was not refused for its content is to be tried again."""
        refusal = self.refusal
        is_passing = refusal is not None and not refusal.is_final
        return is_passing and now - self._tried_at >= RETRY_AFTER

    def _note_restless(self, now: datetime) -> None:
        since = self._restless_since
        if since is None:
            self._restless_since = now
        elif now - since >= RESTLESS_AFTER and self.refusal is None:
            when = format_timestamp(since)
            faults = (f"policy files have been changing all the time since {when}",)
            self.refusal = PolicyRefusal(since=now, faults=faults, is_final=False)
            self._judged = None

    async def _take_up(self, actor: Actor, seen: object, *, is_told_again: bool = False) -> None:
        """Read and judge the files that were *seen*; raises Unreachable while they change."""
        self._tried_at = begun = self._clock.now()
        try:
            texts = await self._source.read()
        except Unreachable:
            self._seen = None
            raise
        except Broken as error:
            await self._refuse_unread(error.reason)
            return
        except Faults as found:
            self._judged = seen
            await self._refuse(refusal_of(found, None, self._clock.now()), actor)
            return
        self._judged = seen
        if texts.set_id == self.loaded.texts.set_id:
            self.refusal = None
            self.is_last_good = False
            return
        is_known = self.refusal is not None and self.refusal.set_id == texts.set_id
        if is_known and self.refusal is not None and self.refusal.is_final and not is_told_again:
            return
        await self._judge(texts, actor)
        self.took = self._clock.now() - begun

    async def _judge(self, texts: PolicyTexts, actor: Actor) -> None:
        try:
            made = await self._maker.make(texts, self.loaded)
            if made.seal is not None:
                check_version(made, await self._history.newest_policy_version())
            await self._keep_activation(made, self.loaded, actor)
        except Faults as found:
            await self._refuse(refusal_of(found, texts, self._clock.now()), actor)
        except (Unreachable, Broken) as error:
            refusal = PolicyRefusal(since=self._clock.now(), faults=(error.reason,), is_final=False)
            await self._refuse(replace(refusal, set_id=texts.set_id, sha256=texts.sha256), actor)
        else:
            # One assignment: whoever asks sees the old set or the new one.
            former, self.loaded = [self.loaded], made
            self.since = self._clock.now()
            self.refusal = None
            self.is_last_good = False
            self.counts[PolicyOutcome.ACTIVATED] += 1
            await self._maker.let_go(former)

    # ------------------------------------------------------------------------- what is written

    async def _keep_activation(
        self, made: LoadedPolicies, earlier: LoadedPolicies | None, actor: Actor
    ) -> None:
        now = self._clock.now()
        seal = made.seal
        change = PolicyChange(
            outcome=PolicyOutcome.ACTIVATED,
            set_id=made.texts.set_id,
            sha256=made.texts.sha256,
            at=now,
            actor=actor.name,
            reason=actor.reason,
            version=None if seal is None else seal.version,
            signers=() if seal is None else seal.signers,
        )
        data: dict[str, object] = {
            "sha256": change.sha256,
            "policies": _changed_documents(earlier, made),
            "files": len(made.texts.files),
            "cases": made.cases,
        }
        if seal is not None:
            data |= {"version": seal.version, "signers": list(seal.signers)}
        if earlier is not None:
            data |= {"before": earlier.texts.sha256, "changed": _changed(earlier, made)}
        event = Event(kind=EventKind.POLICY_ACTIVATED, at=now, actor=actor, data=data)
        await self._history.keep_policy_change(change, made.texts, event)

    async def _refuse_unread(self, reason: str) -> None:
        """Note that the directories cannot be read; another look follows anyway."""
        self._seen = self._judged = None
        if self.refusal is None or self.refusal.faults != (reason,):
            now = self._clock.now()
            await self._refuse(PolicyRefusal(since=now, faults=(reason,), is_final=False), SYSTEM)

    async def _refuse(self, refusal: PolicyRefusal, actor: Actor) -> None:
        before = self.refusal
        is_same = before is not None and before.set_id == refusal.set_id
        if before is not None and is_same and before.faults == refusal.faults:
            self.refusal = replace(refusal, since=before.since)
            return
        self.refusal = refusal
        self.counts[PolicyOutcome.REFUSED] += 1
        try:
            await self._keep_refusal(refusal, actor)
        except (Unreachable, Broken) as error:
            # It is told by everything but the history, and tried again with the set.
            again = (*refusal.faults, f"and that could not be kept: {error.reason}")
            self.refusal = replace(refusal, faults=again, is_final=False)

    async def _keep_refusal(self, refusal: PolicyRefusal, actor: Actor) -> None:
        told = refusal.faults[:TOLD_FAULTS]
        change = PolicyChange(
            outcome=PolicyOutcome.REFUSED,
            set_id=refusal.set_id or "",
            sha256=refusal.sha256 or "",
            at=refusal.since,
            actor=actor.name,
            reason=actor.reason,
            faults=told,
        )
        data = {
            "sha256": refusal.sha256,
            "in_force": self.loaded.texts.sha256,
            "faults": list(told),
            "more_faults": len(refusal.faults) - len(told),
        }
        event = Event(kind=EventKind.POLICY_REFUSED, at=refusal.since, actor=actor, data=data)
        await self._history.keep_policy_change(change, None, event)


def check_version(made: LoadedPolicies, newest: PolicyChange | None) -> None:
    """Refuse a bundle that is older than one that was in force, or another of the same version.

    Raises:
        Faults: It is.
    """
    if made.seal is None or newest is None or newest.version is None:
        return
    version = made.seal.version
    is_new_again = version == newest.version and made.texts.sha256 != newest.sha256
    if version < newest.version or is_new_again:
        when = f"version {newest.version} was in force on {format_timestamp(newest.at)}"
        message = (
            f"is version {version}, and another set of that version was in force before"
            if is_new_again
            else f"is version {version}, and {when}"
        )
        hint = f"sign it as version {newest.version + 1} or higher"
        raise Faults([Fault("bundle.manifest", 3, "", message, hint)])


def refusal_of(found: Faults, texts: PolicyTexts | None, at: datetime) -> PolicyRefusal:
    """Return the refusal that *found* is for *texts*."""
    return PolicyRefusal(
        since=at,
        faults=tuple(str(fault) for fault in found.faults),
        set_id=None if texts is None else texts.set_id,
        sha256=None if texts is None else texts.sha256,
    )


def _is_told(refusal: PolicyRefusal, latest: Sequence[PolicyChange]) -> bool:
    """Return whether the history ends with just this refusal: a restart tells nothing anew."""
    if not latest or latest[0].outcome is not PolicyOutcome.REFUSED:
        return False
    is_same = latest[0].set_id == (refusal.set_id or "")
    return is_same and latest[0].faults == refusal.faults[:TOLD_FAULTS]


def _changed(earlier: LoadedPolicies, made: LoadedPolicies) -> list[str]:
    """Return the names of files that came, went or changed."""
    before, after = earlier.texts.digests, made.texts.digests
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)][:TOLD_FILES]


def _changed_documents(earlier: LoadedPolicies | None, made: LoadedPolicies) -> dict[str, str]:
    """Return the digest of every document that is otherwise than before, by community."""
    before = {} if earlier is None else earlier.documents
    changed = {
        name: document.sha256
        for name, document in made.documents.items()
        if name not in before or before[name].sha256 != document.sha256
    }
    return dict(sorted(changed.items())[:TOLD_FILES])
