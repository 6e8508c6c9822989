"""Simulated agents as a test or a bench holds them: so many, in so many processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.peers import process
from tests.simulator.behaviour import Behaviour

__all__ = ["Fleet", "Sim", "certificate"]

REPOSITORY: Final = Path(__file__).resolve().parents[2]

POLL_SECONDS: Final = 0.1

AGENTS_FOR_A_SOURCE: Final = 5_000
"""Agents that come from one loopback address: each has two connections at most, and an address
has 28,000 ports."""


def certificate(name: str, *names: str, profile: str | None = None) -> dict[str, Any]:
    """Return a certificate as an agent of a fleet has it."""
    return {"name": name, "names": list(names), "profile": profile}


class Sim:
    """One process of simulated agents."""

    def __init__(self, home: Path, anchors: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._log = (home / "simulator.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulator.program", str(home), str(anchors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=home,
            env=process.clean_environment(home, {"PYTHONPATH": str(REPOSITORY)}),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def do(self, name: str, **members: Any) -> Any:
        """Carry a command out and return its answer; raises PeerFailed when the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": name, **members}).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            said = Path(self._log.name).read_text("utf-8", "replace")
            raise process.PeerFailed(f"simulator ended at {name}: {process.tail(said)}")
        return json.loads(answer)

    def stop(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        process.stop_group(self._process, "simulator")
        self._log.close()


class Fleet:
    """Agents by name, over several processes.  Identities lie in *home* and are found again."""

    def __init__(
        self,
        home: Path,
        *,
        port: int,
        anchors: Path,
        processes: int = 1,
        behaviour: Behaviour | None = None,
    ) -> None:
        self._home = home
        self._place = {"host": "127.0.0.1", "port": port}
        self._anchors = anchors
        self._behaviour = behaviour or Behaviour()
        self._number = processes
        self._sims: list[Sim] = []
        self._of: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._sims = [Sim(self._home / f"{one}", self._anchors) for one in range(self._number)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sim in self._sims:
            sim.stop()

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [sim.pid for sim in self._sims]

    def add(self, agents: Sequence[Mapping[str, Any]]) -> None:
        """Add agents: ``name``, ``certificates`` and, for those who have yet to enrol, ``token``.

        An agent may have a ``behaviour`` of its own, and a ``method`` by which it shows its token.
        """
        shares: list[list[dict[str, Any]]] = [[] for _ in self._sims]
        for one in agents:
            index = len(self._of)
            self._of[one["name"]] = index % len(self._sims)
            source = f"127.0.0.{2 + index // AGENTS_FOR_A_SOURCE}"
            shares[index % len(self._sims)].append({"source": source, **one})
        behaviour = asdict(self._behaviour)
        for sim, share in zip(self._sims, shares, strict=True):
            sim.do("add", agents=share, place=self._place, behaviour=behaviour)

    def enrol(self, *, at_once: int = 8) -> int:
        """Enrol those that have no identity yet; return how many have enrolled in all."""
        return sum(self._all("enrol", at_once=at_once))

    def connect(self, *, spread: float = 0.0, names: Sequence[str] | None = None) -> None:
        """Have agents hold their connections, begun over *spread* seconds."""
        self._some("connect", names, spread=spread)

    def disconnect(self, names: Sequence[str] | None = None) -> None:
        """Have agents go away without a word."""
        self._some("disconnect", names)

    def behave(self, behaviour: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
        """Have agents behave otherwise from now on; *behaviour* names what changes."""
        self._some("behave", names, behaviour=dict(behaviour))

    def state(self, names: Sequence[str] | None = None) -> None:
        """Have agents state anew what they serve and want served."""
        self._some("state", names)

    def counts(self) -> Counter[str]:
        """Return what all of them saw; ``connected`` is how many are now."""
        found: Counter[str] = Counter()
        for one in self._all("counts"):
            found.update(one["counts"])
            found["connected"] += one["connected"]
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time of the simulator itself."""
        return float(sum(one["cpu_seconds"] for one in self._all("counts")))

    def faults(self) -> list[str]:
        """Return what went wrong, the first hundred of each process."""
        return [fault for one in self._all("counts") for fault in one["faults"]]

    def times(self) -> list[tuple[str, str, str, float]]:
        """Return, once, what was noted since the last look: (node, subject, what, monotonic)."""
        return [(a, b, c, d) for one in self._all("times") for a, b, c, d in one]

    def wait_for(self, what: str, number: int, seconds: float) -> Counter[str]:
        """Wait until *what* was counted so often; raises PeerFailed with what was seen."""
        deadline = time.monotonic() + seconds
        while (found := self.counts())[what] < number:
            if time.monotonic() > deadline:
                faults = self.faults()[:5]
                raise process.PeerFailed(
                    f"{found[what]} of {number} {what!r} within {seconds:g} s: {found} {faults}"
                )
            time.sleep(POLL_SECONDS)
        return found

    def _all(self, name: str, **members: Any) -> list[Any]:
        with ThreadPoolExecutor(len(self._sims)) as pool:
            return list(pool.map(lambda sim: sim.do(name, **members), self._sims))

    def _some(self, name: str, names: Sequence[str] | None, **members: Any) -> None:
        if names is None:
            self._all(name, **members)
            return
        for index, sim in enumerate(self._sims):
            mine = [one for one in names if self._of[one] == index]
            if mine:
                sim.do(name, names=mine, **members)
