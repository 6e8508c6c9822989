"""A process of simulated agents: commands come as lines of JSON, and each is answered by one."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop

from tests.simulator.agent import Agent
from tests.simulator.behaviour import Behaviour, Seen
from tests.simulator.http import Broken, Place
from tests.simulator.identity import Identity
from tests.simulator.line import Line, NotEnrolled, Part, enrol

SILENCE_SECONDS: Final = 60.0
"""After how long a silent stream is given up: three beats."""

MAX_COMMAND_BYTES: Final = 64 * 1024 * 1024
"""Longest command, in bytes: five thousand agents with their tokens take under 2 MiB."""


class Crowd:
    """The agents of this process."""

    def __init__(self, home: Path, anchors: Path) -> None:
        self._home = home
        self._anchors = anchors
        self._seen = Seen()
        self._agents: dict[str, Agent] = {}
        self._tokens: dict[str, str] = {}
        self._methods: dict[str, str] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._commands: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "add": self._add,
            "enrol": self._enrol,
            "connect": self._connect,
            "disconnect": self._disconnect,
            "behave": self._behave,
            "state": self._state,
            "counts": self._counts,
            "times": self._times,
        }

    async def do(self, command: Mapping[str, Any]) -> Any:
        """Carry one command out and return what is answered."""
        members = dict(command)
        return await self._commands[members.pop("do")](**members)

    async def watch(self) -> None:
        """Give silent streams up."""
        while True:
            await asyncio.sleep(5)
            for agent in self._agents.values():
                agent.check_silence(SILENCE_SECONDS)

    async def _add(
        self, agents: list[dict[str, Any]], place: dict[str, Any], behaviour: dict[str, Any]
    ) -> int:
        for one in agents:
            name = one["name"]
            file = self._home / f"{name}.pem"
            identity = Identity.load(file) if file.exists() else Identity.new(file)
            made = Behaviour(**{**behaviour, **one.get("behaviour", {})})
            where = Place(**{**place, "source": one.get("source", place.get("source"))})
            line = Line(where, self._anchors, identity, made.is_signing)
            parts = [
                Part(**{**part, "names": tuple(part["names"])}) for part in one["certificates"]
            ]
            self._agents[name] = Agent(name, line, parts, made, self._seen)
            if "token" in one:
                self._tokens[name] = one["token"]
            self._methods[name] = one.get("method", "token")
        return len(self._agents)

    async def _enrol(self, at_once: int) -> int:
        todo = iter([one for one in self._agents.values() if not one.line.identity.key_id])

        async def work() -> None:
            for agent in todo:
                token, method = self._tokens.get(agent.node), self._methods[agent.node]
                try:
                    await enrol(agent.line, agent.node, credential=token, method=method)
                    self._seen.counts["enrolled"] += 1
                except (NotEnrolled, Broken) as error:
                    self._seen.fault(f"{agent.node} was not enrolled: {error}")

        await asyncio.gather(*(work() for _ in range(at_once)))
        return self._seen.counts["enrolled"]

    async def _connect(self, spread: float, names: list[str] | None = None) -> int:
        chosen = [name for name in names or self._agents if name not in self._runs]
        loop = asyncio.get_running_loop()
        for name in chosen:
            self._runs[name] = loop.create_task(self._agents[name].run())
            await asyncio.sleep(spread / max(len(chosen), 1))
        return len(self._runs)

    async def _disconnect(self, names: list[str] | None = None) -> int:
        ended = [self._runs.pop(name) for name in names or list(self._runs) if name in self._runs]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        return len(ended)

    async def _behave(self, behaviour: dict[str, Any], names: list[str] | None = None) -> int:
        chosen = names or list(self._agents)
        for name in chosen:
            agent = self._agents[name]
            agent.behaviour = replace(agent.behaviour, **behaviour)
        return len(chosen)

    async def _state(self, names: list[str] | None = None) -> int:
        chosen = names or list(self._agents)
        for name in chosen:
            self._agents[name].state()
        return len(chosen)

    async def _counts(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {**self._seen.document(), "cpu_seconds": used.ru_utime + used.ru_stime}

    async def _times(self) -> list[tuple[str, str, str, float]]:
        taken, self._seen.times = self._seen.times, []
        return taken


async def main(home: Path, anchors: Path) -> None:
    """Serve commands until the pipe ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_COMMAND_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crowd = Crowd(home, anchors)
    watching = loop.create_task(crowd.watch())
    while line := await reader.readline():
        answer = await crowd.do(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    watching.cancel()


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
