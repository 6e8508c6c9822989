"""Policies of one broker: from directories into force, kept in the store, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

import structlog

from broker.app.unobtrusive import set_apart, unobtrusive
from broker.config import Config
from broker.config.policies import (
    Beside,
    ParsedFiles,
    join_policies,
    made_of,
    policy_directories,
    read_now,
    verify_texts,
)
from broker.config.policy_child import parse_apart
from broker.config.policy_files import Trace, look_at, read_policy_files
from broker.issuance.errors import Broken
from broker.issuance.events import Actor
from broker.issuance.policy_keeping import (
    PolicyKeeper,
    PolicyRefusal,
    check_version,
    refusal_of,
)
from broker.issuance.policy_ports import LoadedPolicies, PolicyHistory, PolicyTexts
from broker.issuance.ports import Clock
from broker.policy.expressions import Expression
from broker.policy.yamlfile import Faults, Lines
from broker.storage.sqlite import SqliteStore

__all__ = [
    "ApartMaker",
    "Directories",
    "FirstLook",
    "PolicyWatch",
    "first_look",
    "last_good",
    "open_policies",
]

LOGGED_FAULTS: Final = 20
"""Faults of a refused set that go to the log; ``penstock policy status`` has them all."""

MANY_RULES: Final = 1_000
"""Rules from which on a set is kept out of garbage collections: 10,000 of them add a tenth of a
second to each full one, in which nobody is answered."""

FREED_AT_ONCE: Final = 100
"""Rules that are freed before others have their turn again: a fraction of a millisecond."""

log = structlog.get_logger("penstock")


class Directories:
    """Implements ``policy_ports.PolicySource``, on threads: a disk may take its time."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._directories = directories

    async def look(self) -> tuple[Trace, ...]:
        """Return what stat(2) tells of every file."""
        return await asyncio.to_thread(look_at, self._directories)

    async def read(self) -> PolicyTexts:
        """Return all files as they were at one moment."""
        return await asyncio.to_thread(read_policy_files, self._directories)


class ApartMaker:
    """Implements ``policy_ports.PolicyMaker``: a child parses what changed, a thread joins it."""

    def __init__(self, config: Config, clock: Clock, lines: Lines | None = None) -> None:
        """Hold policies against *config*; *lines* places its faults."""
        self._config = config
        self._clock = clock
        self._lines = lines

    async def make(self, texts: PolicyTexts, earlier: LoadedPolicies) -> LoadedPolicies:
        """Return the policies that *texts* are."""
        return await asyncio.to_thread(self._make, texts, earlier)

    def _make(self, texts: PolicyTexts, earlier: LoadedPolicies) -> LoadedPolicies:
        with unobtrusive():
            made = self._joined(texts, earlier)
            _make_ready(made)
            if made.rules >= MANY_RULES:
                set_apart()
        return made

    async def let_go(self, former: list[LoadedPolicies]) -> None:
        """Free a large set piece by piece: in one go it would take the interpreter for long."""
        if former[0].rules >= MANY_RULES:
            await asyncio.to_thread(_let_go, former)

    def _joined(self, texts: PolicyTexts, earlier: LoadedPolicies) -> LoadedPolicies:
        seal = verify_texts(self._config, texts)
        files = {} if earlier.whole is None else earlier.whole.files
        known = {n: file for n, file in files.items() if texts.digests.get(n) == file.sha256}
        parsed = parse_apart({n: octets for n, octets in texts.files.items() if n not in known})
        whole = ParsedFiles({**known, **parsed.made}, parsed.faults)
        beside = Beside(earlier=earlier, today=self._clock.now().date())
        if self._lines is not None:
            beside = replace(beside, lines=self._lines)
        return join_policies(self._config, texts, whole, seal, beside)


def _make_ready(made: LoadedPolicies) -> None:
    """Compile the set's expressions here, so that no order waits for it."""
    rules = () if made.whole is None else made.whole.rules
    for text in {rule.when.text for rule in rules if rule.when is not None}:
        Expression.parse(text)


def _let_go(former: list[LoadedPolicies]) -> None:
    whole = former[0].whole
    rules = [] if whole is None else list(whole.rules)
    former.clear()
    del whole
    with unobtrusive():
        while rules:
            del rules[-FREED_AT_ONCE:]


class PolicyWatch:
    """Looks after policy files for as long as the broker runs, and tells the log."""

    def __init__(self, keeper: PolicyKeeper, history: PolicyHistory) -> None:
        self.keeper = self._keeper = keeper
        self.history = history
        self._told = self._now()

    async def begin(self) -> None:
        """Keep what is in force from the start, and tell it."""
        await self._keeper.begin()
        self._told = "", None
        self._tell()

    async def turn(self) -> None:
        """Look once."""
        try:
            await self._keeper.look()
        finally:
            self._tell()

    async def run(self, turn: Callable[[], Awaitable[None]], every: timedelta) -> NoReturn:
        """Take one *turn* after the other, with a pause of *every* between them."""
        while True:
            await asyncio.sleep(every.total_seconds())
            await turn()

    async def reload(self, actor: Actor) -> None:
        """Read the files now."""
        try:
            await self._keeper.reload(actor)
        finally:
            self._tell()

    async def on_hangup(self) -> None:
        """Read the files because the process was told to."""
        await self.reload(Actor("system", "SIGHUP"))

    def _now(self) -> tuple[str, object]:
        """Return what is in force, and what is refused."""
        refusal = self._keeper.refusal
        refused = None if refusal is None else (refusal.set_id, refusal.faults)
        return self._keeper.loaded.texts.set_id, refused

    def _tell(self) -> None:
        """Say what has changed since this was asked last."""
        keeper = self._keeper
        loaded, refusal = keeper.loaded, keeper.refusal
        (was_in_force, was_refused), self._told = self._told, self._now()
        in_force, refused = self._told
        if was_in_force != in_force:
            log.info(
                "policies in force",
                sha256=loaded.texts.sha256,
                version=None if loaded.seal is None else loaded.seal.version,
                signers=None if loaded.seal is None else list(loaded.seal.signers),
                policies={name: made.sha256 for name, made in loaded.documents.items()},
                cases=loaded.cases,
            )
        elif refusal is None and was_refused is not None:
            log.info("policy files are those in force again", sha256=loaded.texts.sha256)
        if refusal is not None and was_refused != refused:
            log.error(
                "policies refused",
                in_force=loaded.texts.sha256,
                in_force_since=keeper.since.isoformat(),
                faults=list(refusal.faults[:LOGGED_FAULTS]),
                more_faults=max(0, len(refusal.faults) - LOGGED_FAULTS),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """What lay in the directories at the start."""

    loaded: LoadedPolicies | None = None
    error: Faults | Broken | None = None
    """Why it cannot be used, where it cannot."""
    texts: PolicyTexts | None = None


def first_look(config: Config) -> FirstLook:
    """Return what lies in the directories, as far as can be said without the store."""
    texts: PolicyTexts | None = None
    try:
        texts = read_now(config)
        return FirstLook(loaded=made_of(config, texts), texts=texts)
    except (Faults, Broken) as error:
        return FirstLook(error=error, texts=texts)


async def open_policies(
    config: Config, found: FirstLook, store: SqliteStore, clock: Clock
) -> PolicyKeeper:
    """Return the policies to start with: those that lie there, or else the set that was in force.

    Raises:
        Broken, Faults: Those that lie there are unfit, and no earlier set is kept that would do.
    """
    loaded, error = found.loaded, found.error
    if loaded is not None:
        try:
            check_version(loaded, await store.newest_policy_version())
        except Faults as faults:
            loaded, error = None, faults
    if loaded is None and error is not None:
        loaded = await last_good(config, store)
        if loaded is None:
            raise error
    assert loaded is not None
    keeper = PolicyKeeper(
        loaded,
        source=Directories(policy_directories(config)),
        maker=ApartMaker(config, clock),
        history=store,
        clock=clock,
    )
    kept = await store.policy_set_in_force()
    if kept is not None and kept.change.set_id == loaded.texts.set_id:
        keeper.since = kept.change.at
    if loaded.rules >= MANY_RULES:
        set_apart()
    if error is not None:
        keeper.resume(_refusal(error, found.texts, clock.now()))
    return keeper


def _refusal(error: Faults | Broken, texts: PolicyTexts | None, at: datetime) -> PolicyRefusal:
    if isinstance(error, Faults):
        return refusal_of(error, texts, at)
    return PolicyRefusal(since=at, faults=(error.reason,), is_final=False)


async def last_good(config: Config, history: PolicyHistory) -> LoadedPolicies | None:
    """Return the policies that were in force last, None where there are none that would do."""
    found = await history.policy_set_in_force()
    if found is None:
        return None
    try:
        return made_of(config, found.texts)
    except Faults as faults:
        log.error(
            "the policies that were in force before cannot be used either",
            sha256=found.change.sha256,
            faults=[str(fault) for fault in faults.faults[:LOGGED_FAULTS]],
        )
        return None
