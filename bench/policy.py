"""What policies cost: a decision among many rules, and a reload beside a loop that has to go on.

Decisions are asked in this process.  A reload is what a running broker does: directories read, what
changed parsed by child processes, everything joined and tried on a thread, while the event loop is
asked every millisecond whether it is still there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import policy_replay
from bench.figures import percentile
from bench.scenarios import Tell
from broker.app.policies import ApartMaker, Directories
from broker.clock import SystemClock
from broker.config import Config
from broker.config.load import parse_config
from broker.config.policies import made_of
from broker.issuance.events import Actor
from broker.issuance.policy_keeping import PolicyKeeper
from broker.issuance.policy_ports import LoadedPolicies
from broker.policy.chains import decide_new_order
from broker.policy.decisions import NewOrderFacts, ProfileLifetime, UpstreamFacts
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.storage.sqlite import SqliteStore

__all__ = ["EFFORTS", "Deciding", "Effort", "Policies", "Reloading", "measure", "rule_files"]

TICK_SECONDS: Final = 0.001
"""How often the loop is asked whether it is still there, in seconds."""

RULES_A_FILE: Final = 500
"""Rules in one file: a faculty, a division."""

SETTLE_SECONDS: Final = 0.3
"""Pause before a measurement, so that what was before it is over."""

POLICY: Final = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
cap: 90d
names: {allow: ["**.internal"]}
challenges: [http-01]
keys: {allow: [ec-p256, rsa-2048]}
profiles:
  server:
    description: servers
    usages: [server-auth]
    upstreams: [{upstream: local}]
default_profile: server
"""

CONFIG: Final = """\
apiVersion: penstock.dev/v1
kind: Broker
external_url: https://acme.corp.example
policies: [%s]
listen: {acme: {from: local}, plain: {}}
keys: {passphrase: "file:/etc/penstock/key.pass"}
upstreams:
  local: {kind: built-in, base_url: "http://pki.corp.example:8080"}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    rules: tuple[int, ...]
    decisions: int
    reloads: int
    """Reloads of each kind; the median counts, and the longest stall of all."""
    replayed: int
    """Orders that ``policy diff`` goes through."""


EFFORTS: Final[Mapping[str, Effort]] = {
    "full": Effort(rules=(1, 100, 10_000), decisions=20_000, reloads=5, replayed=100_000),
    "quick": Effort(rules=(1, 100, 10_000), decisions=5_000, reloads=3, replayed=20_000),
    "smoke": Effort(rules=(1, 1_000), decisions=200, reloads=1, replayed=300),
}
"""About three minutes, one minute, and seconds, on two idle cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """Decisions among so many rules, of which one or two speak of each order."""

    rules: int
    decisions: int
    per_second: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """Reloads of a set of so many rules."""

    what: str
    rules: int
    files: int
    parsed: int
    """Files that had changed."""
    seconds: float
    stall_ms: float
    """Longest time in which the loop did nothing else, in milliseconds, of all reloads."""
    p99_ms: float


@dataclass(slots=True)
class Policies:
    """All that came out."""

    deciding: list[Deciding] = field(default_factory=list)
    reloading: list[Reloading] = field(default_factory=list)
    replays: list[dict[str, Any]] = field(default_factory=list)
    """``policy diff`` over many orders, as ``policy_replay`` tells it."""
    idle_stall_ms: float = 0.0
    """The longest stall of a loop that has nothing to do: what the machine itself adds."""


def measure(home: Path, effort: Effort, tell: Tell) -> Policies:
    """Measure decisions, then reloads of the largest set."""
    found = Policies()
    for rules in effort.rules:
        folder = home / f"rules-{rules}"
        write_rules(folder, rules)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            policies = runner.run(_loaded(folder))
        deciding = _decide(policies, rules, effort.decisions)
        found.deciding.append(deciding)
        tell(
            f"{rules} rules: {deciding.per_second:.0f} decisions a second, "
            f"p50 {deciding.p50_us:.0f} µs, p99 {deciding.p99_us:.0f} µs"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_reload(home / "reloads", max(effort.rules), effort.reloads, found, tell))
    (home / "replay").mkdir()
    replay = policy_replay.measure(home / "replay", effort.replayed)
    found.replays.append(replay)
    tell(f"policy diff over {replay['orders']} orders: {replay['seconds']} s")
    return found


# --------------------------------------------------------------------------------------- the rules


def rule_files(rules: int) -> dict[str, str]:
    """Return files of rules that all communities share, by name: two patterns each."""
    files = {}
    for begin in range(0, rules, RULES_A_FILE):
        lines = [
            "apiVersion: penstock.dev/v1",
            "kind: SharedRules",
            "communities: all",
            "rules:",
        ]
        for number in range(begin, min(begin + RULES_A_FILE, rules)):
            lines += [
                f"  - name: department-{number}",
                f"    because: department {number} asked for it in ticket {number}",
                f'    names: ["**.d{number}.internal", "h{number}.internal"]',
                f"    cap: {10 + number % 37}d" if number % 3 else "    keys: [ec-p256]",
            ]
        files[f"shared/rules-{begin // RULES_A_FILE:03}.yaml"] = "\n".join(lines) + "\n"
    return files


def write_rules(folder: Path, rules: int) -> None:
    """Write a policy directory with so many rules."""
    (folder / "shared").mkdir(parents=True, exist_ok=True)
    (folder / "default.yaml").write_text(POLICY, "utf-8")
    for name, text in rule_files(rules).items():
        (folder / name).write_text(text, "utf-8")


def _config(folder: Path) -> Config:
    return parse_config(CONFIG % folder, "penstock.yaml")


async def _loaded(folder: Path) -> LoadedPolicies:
    return made_of(_config(folder), await Directories((folder,)).read())


# --------------------------------------------------------------------------------------- decisions


def _decide(policies: LoadedPolicies, rules: int, number: int) -> Deciding:
    document = policies.current("default")
    dice = random.Random(7)
    asked = [_facts(dice.randrange(rules), dice.random() < 0.5) for _ in range(1_000)]
    for facts in asked[:100]:
        assert not decide_new_order(document, facts).is_refused
    times = []
    begun = time.perf_counter()
    for turn in range(number):
        before = time.perf_counter()
        decide_new_order(document, asked[turn % len(asked)])
        times.append(1e6 * (time.perf_counter() - before))
    seconds = time.perf_counter() - begun
    return Deciding(
        rules=rules,
        decisions=number,
        per_second=number / seconds,
        p50_us=percentile(times, 0.5),
        p99_us=percentile(times, 0.99),
    )


def _facts(number: int, is_exact: bool) -> NewOrderFacts:
    """Return an order that one rule speaks of, by its exact name or by its domain."""
    name = f"h{number}.internal" if is_exact else f"www.d{number}.internal"
    local = UpstreamFacts(
        name="local",
        description="built-in",
        honours_not_after=True,
        min_lifetime=timedelta(),
        max_lifetime=timedelta(days=365),
        default_lifetimes=(ProfileLifetime(valid_from=date.min, lifetime=timedelta(days=90)),),
        profiles={},
        backdate_tolerance=timedelta(minutes=1),
        is_ct_logged=False,
    )
    return NewOrderFacts(
        community="default",
        identifiers=(Identifier(IdentifierType.DNS, name),),
        profile=None,
        not_before=None,
        not_after=None,
        at=datetime(2026, 11, 22, 12, tzinfo=UTC),
        account_thumbprint="thumbprint",
        eab=None,
        public_suffixes=frozenset(),
        upstreams=(local,),
    )


# ----------------------------------------------------------------------------------------- reloads


class Watching:
    """Asks the loop again and again whether it is still there."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            self.gaps.append(1000 * (now - last - TICK_SECONDS))
            last = now

    async def settled(self) -> None:
        """Wait a little and forget what was."""
        await asyncio.sleep(SETTLE_SECONDS)
        self.gaps.clear()

    def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()


class _Broker:
    """What of a broker keeps policies: a keeper over a directory and a store."""

    def __init__(self, folder: Path, store: SqliteStore, loaded: LoadedPolicies) -> None:
        self._keeper = PolicyKeeper(
            loaded,
            source=Directories((folder,)),
            maker=ApartMaker(_config(folder), SystemClock()),
            history=store,
            clock=SystemClock(),
        )

    async def reload(self) -> int:
        """Reload, and return how many files are in force."""
        await self._keeper.reload(Actor("operator:bench"))
        if self._keeper.refusal is not None:
            raise ValueError(self._keeper.refusal.faults[0])
        return len(self._keeper.loaded.texts.files)


async def _reload(home: Path, rules: int, times: int, found: Policies, tell: Tell) -> None:
    """Measure reloads after changes of everything, of some rules, and of a community's file."""
    write_rules(home, rules)
    watching = Watching()
    await watching.settled()
    await asyncio.sleep(1)
    found.idle_stall_ms = max(watching.gaps)
    store = await SqliteStore.open(home / "store.db")
    try:
        broker = _Broker(home, store, await _loaded(home))
        for what, changed in (
            ("every file changed", _yaml_files(home)),
            ("one file of rules changed", [home / "shared" / "rules-000.yaml"]),
            ("the community's file changed", [home / "default.yaml"]),
        ):
            made = await _rounds(broker, watching, what, changed, times)
            found.reloading.append(replace(made, rules=rules))
            tell(
                f"{what}, {rules} rules in {made.files} files: {made.seconds:.2f} s, "
                f"loop held at most {made.stall_ms:.1f} ms"
            )
    finally:
        watching.stop()
        await store.close()


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.yaml"))


async def _rounds(
    broker: _Broker, watching: Watching, what: str, changed: Sequence[Path], times: int
) -> Reloading:
    rounds, files = [], 0
    gaps: list[float] = []
    for turn in range(times):
        for path in changed:
            path.write_text(f"{path.read_text('utf-8')}# changed {turn}\n", "utf-8")
        await watching.settled()
        begun = time.perf_counter()
        files = await broker.reload()
        rounds.append(time.perf_counter() - begun)
        await asyncio.sleep(SETTLE_SECONDS)  # what it leaves to be done counts as well
        gaps += watching.gaps
    return Reloading(
        what=what,
        rules=0,
        files=files,
        parsed=len(changed),
        seconds=percentile(rounds, 0.5),
        stall_ms=max(gaps),
        p99_ms=percentile(gaps, 0.99),
    )
