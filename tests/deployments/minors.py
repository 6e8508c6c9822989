"""Broker and agent as of another minor version of their channel, each the program that it is.

``python -m tests.deployments.minors VERSION broker|agent WORDS`` is ``penstock`` or
``penstock-agent`` that speaks every minor version of 1 up to VERSION.  What a later version says
beside it is not known yet; the tests that need some make it up.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from agents import wire
from tests.deployments.node_agents import NodeAgent, TrustingPenstock

__all__ = ["AgentOfMinor", "BrokerOfMinor"]


class BrokerOfMinor(TrustingPenstock):
    """A broker that speaks 1.0 up to a version."""

    version = "1.0"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        words = list(super().command())
        return [*_program(self.version, "broker"), *words[words.index("serve") :]]


class AgentOfMinor(NodeAgent):
    """An agent that speaks 1.0 up to a version."""

    version = "1.0"

    def program(self) -> list[str]:
        """Return the words that its command line begins with."""
        return _program(self.version, "agent")


def _program(version: str, which: str) -> list[str]:
    return [sys.executable, "-m", "tests.deployments.minors", version, which]


def become(version: wire.Version) -> None:
    """Have this process speak *version*, as if it had been built so."""
    said: Any = wire
    said.VERSION = version
    said.VERSIONS = tuple(str(wire.Version(version.major, one)) for one in range(version.minor + 1))
    said.negotiate.__defaults__ = (version,)


def main(words: Sequence[str]) -> int:
    """Be the program that *words* name."""
    version, which, *arguments = words
    become(wire.Version.parse(version))
    sys.argv = [which, *arguments]
    program: Any = importlib.import_module("broker.cli" if which == "broker" else "agents.cli")
    if which == "agent":
        # A process that replaced itself would know nothing of the version.
        program.become_resident = lambda _: None
    return int(program.main() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
