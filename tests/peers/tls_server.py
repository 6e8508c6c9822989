"""A packaged server that serves one certificate from files, and how an agent reloads it."""

from __future__ import annotations

import abc
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from agents.config import LookSection, ReloadSection, StartTls
from tests.peers import process

__all__ = ["TlsServer"]


class TlsServer(process.Peer):
    """A server on a loopback port of its own, with a configuration of its own.

    It reads ``fullchain.pem`` and ``privkey.pem`` in *pair*, or ``server.pem`` there where it wants
    both in one file; they have to be there before it is started.  What it needs of its own lies in
    *tmp*.
    """

    starttls: ClassVar[StartTls | None] = None
    is_combined: ClassVar[bool] = False
    """Whether it reads one file with key and chain."""

    def __init__(self, tmp: Path, pair: Path) -> None:
        super().__init__(tmp)
        self.pair = pair
        self.port = process.free_port()
        self.more = ""
        """Lines that are added to its configuration; ``break_configuration`` sets it."""

    @property
    def certificate(self) -> Path:
        """File of the chain it serves."""
        return self.pair / ("server.pem" if self.is_combined else "fullchain.pem")

    @property
    def key(self) -> Path:
        """File of its key."""
        return self.pair / ("server.pem" if self.is_combined else "privkey.pem")

    @abc.abstractmethod
    def write(self) -> None:
        """Write the configuration that the next start or reload reads."""

    @property
    @abc.abstractmethod
    def reloading(self) -> Mapping[str, Any]:
        """How it is reloaded: keys and values of ``[certificate.reload]``."""

    def break_configuration(self) -> None:
        """Put a line into its configuration that it cannot read."""
        self.more = "penstock_was_here {"
        self.write()

    def mend_configuration(self) -> None:
        """Take the line away again."""
        self.more = ""
        self.write()

    def is_ready(self) -> bool:
        """See that it listens."""
        return process.is_listening(self.port)

    def reload_section(self, **changes: Any) -> ReloadSection:
        """Return how it is reloaded, as the agent's configuration has it."""
        members = {**self.reloading, **changes}
        lists = {key: tuple(members.get(key, ())) for key in ("command", "check")}
        return ReloadSection(**{**members, **lists})

    def look_section(self, server_name: str, **changes: Any) -> LookSection:
        """Return where it is looked at, as the agent's configuration has it."""
        return LookSection(
            **{
                "host": "127.0.0.1",
                "port": self.port,
                "server_name": server_name,
                "starttls": self.starttls,
                **changes,
            }
        )

    def toml(self, server_name: str) -> str:
        """Return the tables ``reload`` and ``look`` of ``[[certificate]]`` as text."""
        looking: dict[str, Any] = {
            "connect": f"127.0.0.1:{self.port}",
            "server_name": server_name,
        }
        if self.starttls is not None:
            looking["starttls"] = str(self.starttls)
        lines = ["[certificate.reload]", *_lines(self.reloading)]
        lines += ["[certificate.look]", *_lines(looking)]
        text = "\n".join(lines) + "\n"
        tomllib.loads(text)
        return text


def _lines(members: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in members.items()]


def _value(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "[" + ", ".join(_value(one) for one in value) + "]"
