"""A broker that trusts nodes with names, and real agents beside it, each a process of its own."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import secrets
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.deployments.nodes import NodesPenstock
from tests.deployments.penstock import REPOSITORY
from tests.peers import authority, process

__all__ = ["NodeAgent", "TrustingPenstock", "Wanted"]

TOKEN_LIFE: Final = datetime.timedelta(hours=12)

_MINTED: Final = (
    "INSERT INTO join_tokens (token_id, token_sha256, node, community, names, profiles, owner,"
    " contact, created_at, expires_at) VALUES (?, ?, ?, 'default', '[]', '[]', 'tests', '', ?, ?)"
)


class TrustingPenstock(NodesPenstock):
    """A broker whose policy trusts *nodes* with *names*: their orders need no proof."""

    def __init__(
        self,
        tmp: Path,
        *,
        nodes: Sequence[str] = ("**",),
        names: Sequence[str] = ("**.example.test",),
        policy: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        trusted = {
            "nodes": list(nodes),
            "names": list(names),
            "profiles": ["server"],
            "because": "nodes of the tests",
        }
        super().__init__(tmp, policy={"trusted": [trusted], **(policy or {})}, **options)

    def mint(self, nodes: Iterable[str]) -> dict[str, str]:
        """Put join tokens into the store, past the broker, and return them by node.

        ``penstock node token`` makes one at a time, which is too slow for thousands.
        """
        made = {node: secrets.token_urlsafe(24) for node in nodes}
        now = authority.real_now()
        begins, ends = (round(at.timestamp() * 1_000_000) for at in (now, now + TOKEN_LIFE))
        rows = [
            (
                secrets.token_urlsafe(12),
                hashlib.sha256(token.encode()).hexdigest(),
                node,
                begins,
                ends,
            )
            for node, token in made.items()
        ]
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as db, db:
            db.executemany(_MINTED, rows)
        return made

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return rows of the store, read past the broker."""
        path = f"file:{self.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True, timeout=30)) as db:
            return db.execute(statement, parameters).fetchall()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of every event of this kind, oldest first."""
        found = self.rows("SELECT data FROM events WHERE kind = ? ORDER BY seq", kind)
        return [json.loads(data) for (data,) in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One ``[[certificate]]`` of a node."""

    name: str
    names: Sequence[str]
    directory: Path
    expects: Path
    """PEM file of the CAs that it may come from."""
    layout: str = "pem"
    file: str | None = None
    key_kind: str = "ec-p256"
    profile: str | None = None
    key_more: str = ""
    """Further lines of ``[certificate.key]``."""
    files_more: str = ""
    """Further lines of ``[certificate.files]``."""
    more: str = ""
    """Further tables as TOML, as ``TlsServer.toml`` returns them."""

    def toml(self) -> str:
        """Return the section as text."""
        lines = [
            "[[certificate]]",
            f'name = "{self.name}"',
            f"names = {json.dumps(list(self.names))}",
            *([f'profile = "{self.profile}"'] if self.profile is not None else []),
            "[certificate.key]",
            f'kind = "{self.key_kind}"',
            self.key_more,
            "[certificate.files]",
            f'layout = "{self.layout}"',
            f'directory = "{self.directory}"',
        ]
        if self.file is not None:
            lines.append(f'file = "{self.file}"')
        lines += [self.files_more, "[certificate.expects]", f'anchors = "{self.expects}"']
        return "\n".join(lines) + "\n" + self.more


class NodeAgent(process.Peer):
    """A ``penstock-agent run`` of its own, with all that it keeps inside *tmp*."""

    name = "agent"

    def __init__(
        self,
        tmp: Path,
        node: str,
        *,
        url: str,
        anchors: Path,
        token: str | None = None,
        wanted: Sequence[Wanted] = (),
        authentication: str = "tls",
        environment: Mapping[str, str] | None = None,
        more: str = "",
        allowed: Sequence[Path] | None = None,
    ) -> None:
        """Use no folder but *allowed*; without it, those that *wanted* names."""
        super().__init__(tmp)
        self.node = node
        self._allowed = allowed
        self._url = url
        self._anchors = anchors
        self.wanted = list(wanted)
        self._authentication = authentication
        self._environment = dict(environment or {})
        self._more = more
        self.metrics_port = process.free_port()
        self.state = tmp / "state"
        self.config = tmp / "agent.toml"
        self.token_file = tmp / "token"
        if token is not None:
            self.token_file.touch(mode=0o600)
            self.token_file.write_text(token, "ascii")
        self.prefix: tuple[str, ...] = ()
        """What the command line is run under, such as faketime."""

    def write(self) -> None:
        """Write agent.toml."""
        folders = self._allowed or [one.directory for one in self.wanted]
        allowed = sorted({str(folder) for folder in folders})
        for folder in allowed:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self.state.mkdir(mode=0o700, exist_ok=True)
        head = [
            "[node]",
            f'name = "{self.node}"',
            f'state = "{self.state}"',
            f"allowed = {json.dumps(allowed)}",
            f'metrics = "127.0.0.1:{self.metrics_port}"',
            "[broker]",
            f'url = "{self._url}"',
            f'anchors = "{self._anchors}"',
            f'authentication = "{self._authentication}"',
            "[enrol]",
            'method = "token"',
            f'credential = "file:{self.token_file}"',
        ]
        parts = ["\n".join(head) + "\n", *(one.toml() for one in self.wanted), self._more]
        self.config.write_text("\n".join(parts), "utf-8")

    def program(self) -> list[str]:
        """Return the words that any command line of this agent begins with."""
        return [*self.prefix, sys.executable, "-m", "agents.cli"]

    def command(self) -> Sequence[str]:
        """Write the configuration and return the command line."""
        self.write()
        return [*self.program(), "run", "--config", str(self.config)]

    def environment(self) -> dict[str, str]:
        """Return the environment, with the checkout in Python's path."""
        more = {"PYTHONPATH": str(REPOSITORY), **self._environment}
        return process.clean_environment(self.directory, more)

    def is_ready(self) -> bool:
        """See that its metrics are served; its certificates may not be in place yet."""
        return process.is_listening(self.metrics_port)

    def metrics(self) -> str:
        """Return its metrics."""
        return process.get(f"http://127.0.0.1:{self.metrics_port}/metrics").decode()
