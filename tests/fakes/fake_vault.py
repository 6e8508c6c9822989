"""A Vault of values: what it answers is said by the test, what it was asked is kept.

It stands behind both ways to Vault, the event loop's and hvac's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.keys.vault_answers import Away, RawAnswer

__all__ = ["Asked", "FakeVault", "answer", "made_token", "refused"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came over the wire."""

    address: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    certificate: tuple[str, str] | None = None

    @property
    def token(self) -> str | None:
        """Return the token that came with it."""
        return self.headers.get("X-Vault-Token")

    def json(self) -> Any:
        """Return what was sent."""
        return json.loads(self.body or b"null")


Rule = RawAnswer | Exception | Callable[[Asked], RawAnswer]


def answer(document: Any = None, status: int = 200, **headers: str) -> RawAnswer:
    """Return an answer that holds *document*."""
    body = b"" if document is None else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RawAnswer(status=status, headers=named, body=body)


def refused(status: int, *errors: str, **headers: str) -> RawAnswer:
    """Return an answer that says no."""
    return answer({"errors": list(errors)}, status, **headers)


def made_token(token: str, seconds: int = 60, **more: Any) -> RawAnswer:
    """Return the answer to a login, or to a renewal."""
    auth = {"client_token": token, "lease_duration": seconds, "renewable": True, **more}
    return answer({"auth": auth})


class FakeVault:
    """Implements ``Exchange``; its `blocking` implements ``BlockingExchange``."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, Rule]] = []
        self.asked: list[Asked] = []
        self.is_closed = False
        self.on("sys/health", answer({}))
        self.on("auth/token/lookup-self", answer({"data": {"ttl": 0, "renewable": False}}))

    def on(self, pattern: str, rule: Rule) -> None:
        """Answer so where address and path match, from now on and whatever was said before."""
        self.rules.insert(0, (pattern, rule))

    def paths(self) -> list[str]:
        """Return method and path of every request."""
        return [f"{each.method} {each.path.removeprefix('/v1/')}" for each in self.asked]

    def take(self, asked: Asked) -> RawAnswer:
        """Answer as the first rule that fits says."""
        self.asked.append(asked)
        for pattern, rule in self.rules:
            if re.search(pattern, asked.address + asked.path):
                if isinstance(rule, RawAnswer):
                    return rule
                if isinstance(rule, Exception):
                    raise rule
                return rule(asked)
        return refused(404)

    async def send(
        self, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> RawAnswer:
        """Answer the event loop."""
        return self.take(Asked(address, method, path, headers, body))

    async def close(self) -> None:
        """Note that the connections are closed."""
        self.is_closed = True

    @property
    def blocking(self) -> BlockingFake:
        """Return the same Vault as hvac's threads reach it."""
        return BlockingFake(self)


class BlockingFake:
    """The same Vault, for a thread."""

    def __init__(self, vault: FakeVault) -> None:
        self._vault = vault

    def send(
        self,
        address: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        certificate: tuple[str, str] | None,
    ) -> RawAnswer:
        """Answer a thread."""
        return self._vault.take(Asked(address, method, path, headers, body, certificate))

    def close(self) -> None:
        """Do nothing."""


def away(state: Any, reason: str = "away", **more: Any) -> Away:
    """Return a fault of the node."""
    return Away(state, reason, **more)
