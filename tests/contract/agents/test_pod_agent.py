"""A real agent as a pod has it: its configuration in a variable, a probe beside it, a stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.agents.test_whole_agent import Host
from tests.fakes.stand_in_broker import StandInBroker

pytestmark = pytest.mark.e2e

SOURCE = ("--config", "env:PENSTOCK_AGENT_CONFIG")

AT_ONCE_SECONDS = 15.0
"""Longest wait for what comes at once, in seconds: less than what anything else waits for."""

WAIT_SECONDS = 50
"""How long a probe waits, in seconds."""


class Pod:
    """An agent whose configuration stands in its environment, and nowhere else."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.agent.write()
        text = host.agent.config.read_text("utf-8")
        host.agent.config.unlink()
        self.environment = {**host.agent.environment(), "PENSTOCK_AGENT_CONFIG": text}

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.host.agent.program(),
            *words,
            env=self.environment,
            stderr=asyncio.subprocess.PIPE,
        )

    async def ready(self, seconds: int) -> tuple[int | None, str]:
        """Probe it; return the exit code and the one line."""
        probe = await self._start("ready", *SOURCE, "--wait", str(seconds))
        _, said = await probe.communicate()
        lines = said.decode().splitlines()
        assert len(lines) <= 1, lines
        return probe.returncode, "".join(lines)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Have it run, and lend its process id; it ends well and at once when it is told to."""
        process = await self._start("run", *SOURCE)
        drain = asyncio.create_task(process.communicate())
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(drain, AT_ONCE_SECONDS)
        assert process.returncode == 0


async def test_a_pod_without_its_broker_says_what_it_waits_for(tmp_path: Path) -> None:
    """Where it cannot be reached; the agent stops well all the same."""
    async with StandInBroker(tmp_path / "broker") as broker:
        pod = Pod(Host(tmp_path, broker))
    async with pod.running():
        for _ in range(20):
            code, line = await pod.ready(1)
            assert code == 1
            if "the broker is away" in line:
                break
        assert "penstock-agent: certificate 'www' is missing: the broker is away: " in line


async def test_a_probe_answers_as_soon_as_the_certificate_is_there(tmp_path: Path) -> None:
    """And not when its time is over; once it is there every probe passes."""
    async with StandInBroker(tmp_path / "broker") as broker:
        pod = Pod(Host(tmp_path, broker))
        async with pod.running():
            probe = asyncio.create_task(pod.ready(WAIT_SECONDS))
            await pod.host.broker.hear("stated", number=1)
            code, line = await pod.ready(0)
            assert code == 1
            assert line.endswith("the broker is reached and has not asked for a CSR yet")
            assert (await pod.host.deliver("d1", 1))["stage"] == "seen"
            async with asyncio.timeout(AT_ONCE_SECONDS):
                assert await probe == (0, "")
            assert await pod.ready(0) == (0, "")


def is_heeding(pid: int) -> bool:
    """Tell whether SIGTERM is caught or blocked now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [line.split()[1] for line in lines if line.startswith(("SigCgt", "SigBlk"))]
    return any(int(one, 16) & (1 << (signal.SIGTERM - 1)) for one in masks)


async def heeds_a_stop(pid: int) -> None:
    """Wait until the process catches SIGTERM, or keeps it for later: the kernel says so."""
    async with asyncio.timeout(AT_ONCE_SECONDS):
        while not is_heeding(pid):  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("later", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
async def test_a_stop_while_it_starts_ends_it_well(tmp_path: Path, later: float) -> None:
    """Whenever it comes, also while it becomes the process that stays: the first process of a
    container is ended by no signal that it has no handler for."""
    async with StandInBroker(tmp_path / "broker") as broker:
        pod = Pod(Host(tmp_path, broker))
        async with pod.running() as pid:
            await heeds_a_stop(pid)
            await asyncio.sleep(later)
