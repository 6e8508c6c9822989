"""Answers to a CA's challenges: published before it looks, withdrawn when it has looked.

A solver serves one challenge type for some names.  `present` returns a `Publication`, which knows
how to take back exactly what was published, wherever an alias led at the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from broker.policy.names import PatternSet
from broker.protocol.challenges import (
    ChallengeType,
    dns01_name,
    dns01_value,
    is_challenge_for,
)
from broker.protocol.identifiers import Identifier
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.placement import PlacedRecord
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers

__all__ = [
    "ChallengeAnswer",
    "Dns01Solver",
    "Http01Solver",
    "Publication",
    "Solver",
    "TlsAlpn01Solver",
    "TxtZone",
]

EVERY_NAME: Final = PatternSet.parse(["**", "0.0.0.0/0", "::/0"])
"""The names and addresses of a solver that is not told which ones are its own."""


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """What has to be seen, and for whom."""

    identifier: Identifier
    """Without its wildcard label."""
    token: str
    key_authorization: str = field(repr=False)


class TxtZone(Protocol):
    """Where TXT values are set: by dynamic update, a provider, a webhook, a program."""

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Add *value* at *name*, or where its aliases lead, and return where that is."""
        ...

    async def remove(self, placed: PlacedRecord) -> None:
        """Remove exactly that value."""
        ...


class TxtCheck(Protocol):
    """Looks whether a TXT value can be seen; `selfcheck.SelfCheck` is one."""

    async def look(self, *, zone: str, name: str, value: str) -> str | None:
        """Wait until it can; return why it cannot, or None."""
        ...


class Publication(Protocol):
    """One published answer."""

    async def look(self) -> str | None:
        """Wait until the world can see the answer, and return why it cannot, or None.

        This is advice: the CA looks from elsewhere and is asked all the same.
        """
        ...

    async def withdraw(self) -> None:
        """Take the answer back; raises Unreachable or Broken, and may then be tried again."""
        ...


class Solver(Protocol):
    """Publishes answers of one challenge type."""

    @property
    def type(self) -> ChallengeType:
        """Return the challenge type that is served."""
        ...

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether answers for *identifier*, with its wildcard label, are published here."""
        ...

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Publish an answer; raises Unreachable or Broken.

        After Unreachable it may be published all the same.  The next round has the same token,
        publishes the same answer and takes it back.
        """
        ...


class Http01Solver:
    """Publishes to the table that Penstock's own plain HTTP listener serves."""

    def __init__(self, answers: Http01Answers, names: PatternSet | None = None) -> None:
        self._answers = answers
        self._names = EVERY_NAME if names is None else names

    @property
    def type(self) -> ChallengeType:
        """Return the challenge type that is served."""
        return ChallengeType.HTTP_01

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether answers for *identifier* are published here."""
        return is_challenge_for(self.type, identifier) and _covers(self._names, identifier)

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Put the answer in the table."""
        self._answers.add(answer.identifier.value, answer.token, answer.key_authorization)
        return _HttpAnswer(self._answers, answer.token)


class _HttpAnswer:
    def __init__(self, answers: Http01Answers, token: str) -> None:
        self._answers = answers
        self._token = token

    async def look(self) -> str | None:
        """Return None: what is in the table is served from the next request on."""
        return None

    async def withdraw(self) -> None:
        """Take the answer out of the table."""
        self._answers.remove(self._token)


class TlsAlpn01Solver:
    """Publishes to the table that Penstock's own listener for ``acme-tls/1`` serves."""

    def __init__(self, answers: TlsAlpn01Answers, names: PatternSet | None = None) -> None:
        self._answers = answers
        self._names = EVERY_NAME if names is None else names

    @property
    def type(self) -> ChallengeType:
        """Return the challenge type that is served."""
        return ChallengeType.TLS_ALPN_01

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether answers for *identifier* are published here."""
        return is_challenge_for(self.type, identifier) and _covers(self._names, identifier)

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Put the certificate in the table."""
        self._answers.add(answer.identifier, answer.key_authorization)
        return _TlsAnswer(self._answers, answer)


class _TlsAnswer:
    def __init__(self, answers: TlsAlpn01Answers, answer: ChallengeAnswer) -> None:
        self._answers = answers
        self._answer = answer

    async def look(self) -> str | None:
        """Return None: what is in the table is shown from the next handshake on."""
        return None

    async def withdraw(self) -> None:
        """Take the certificate out of the table."""
        self._answers.remove(self._answer.identifier, self._answer.key_authorization)


class Dns01Solver:
    """Publishes TXT records, whichever way a zone is changed."""

    def __init__(
        self, zone: TxtZone, check: TxtCheck | None = None, names: PatternSet | None = None
    ) -> None:
        self._zone = zone
        self._check = check
        self._names = EVERY_NAME if names is None else names

    @property
    def type(self) -> ChallengeType:
        """Return the challenge type that is served."""
        return ChallengeType.DNS_01

    def is_for(self, identifier: Identifier) -> bool:
        """Return whether answers for *identifier* are published here."""
        return is_challenge_for(self.type, identifier) and _covers(self._names, identifier)

    async def present(self, answer: ChallengeAnswer) -> Publication:
        """Add the TXT value, beside any other that stands there."""
        placed = await self._zone.publish(
            dns01_name(answer.identifier), dns01_value(answer.key_authorization)
        )
        return _TxtRecord(self._zone, self._check, placed)


class _TxtRecord:
    def __init__(self, zone: TxtZone, check: TxtCheck | None, placed: PlacedRecord) -> None:
        self._zone = zone
        self._check = check
        self._placed = placed

    async def look(self) -> str | None:
        """Wait until the zone's own servers show the value, and return why not, or None."""
        if self._check is None:
            return None
        placed = self._placed
        return await self._check.look(zone=placed.zone, name=placed.name, value=placed.value)

    async def withdraw(self) -> None:
        """Remove this value alone."""
        await self._zone.remove(self._placed)


def _covers(names: PatternSet, identifier: Identifier) -> bool:
    return names.covering(identifier.value) is not None
