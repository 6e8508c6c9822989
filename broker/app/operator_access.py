"""Who operates the broker, as the configuration says now: read again when its file changes.

What cannot be used leaves everybody as they were, and the log says so; a person who was taken out
of the file is nobody within seconds.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.app.config_keeping import ReadConfig
from broker.app.operator_tls import read_anchors
from broker.config import Config
from broker.config.load import parse_config, read_text
from broker.config.operators import Operators, PersonSection, TokenIssuerSection
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.operations import OperatorDesk
from broker.policy.roles import Role
from broker.policy.yamlfile import Faults
from broker.web.bearer import KeyFinder, TokenTerms, TokenVerifier
from broker.web.callers import CertificateMatch, Face, Person, Register, Roles
from broker.web.issuer_keys import (
    DocumentSource,
    FileDocuments,
    HttpDocuments,
    IssuerKeys,
)
from broker.web.operator import COMMANDS
from broker.web.rights import Caller

__all__ = ["OperatorAccess", "summaries"]

_log = structlog.get_logger("penstock.operator")

Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """One reading of the configuration."""

    register: Register
    anchors: frozenset[bytes]


class OperatorAccess:
    """Implements ``web.operator_api.Doorkeeper``."""

    def __init__(
        self, config: Config, clock: Clock, *, user_agent: str, path: Path | None = None
    ) -> None:
        """Know the people of *config*; *path* is where it is read again.

        Raises:
            Broken: The anchors cannot be read.
        """
        self._clock = clock
        self._user_agent = user_agent
        self._path = path
        self._keys: dict[tuple[object, ...], IssuerKeys] = {}
        self._anchor_file = config.operators.anchors if config.operators else None
        # Looked at before it is read, for the same reason as later.
        self._stamp = self._look()
        self._known = self._read(config.operators)
        self.reading: ReadConfig | None = None
        """What people were read from; None while they are those of the start."""
        self._reading = asyncio.Lock()
        self.failures = 0
        """How often in a row the configuration could not be read again."""
        self.after_reading: list[Callable[[], None]] = []
        """What is done once it was, or could not be."""

    def by_user(self, user: str, *, is_owner: bool) -> Caller | None:
        """Return who the process of *user* speaks for, None when they are nobody here."""
        return self._known.register.by_user(user, is_owner=is_owner)

    def has_approvers(self) -> bool:
        """Return whether anybody is named who could approve."""
        return self._known.register.has_approvers

    def anchors(self) -> frozenset[bytes]:
        """Return the anchors of people's certificates."""
        return self._known.anchors

    def by_certificate(self, der: bytes) -> Caller:
        """Return whose certificate it is; raises NotKnown."""
        return self._known.register.by_certificate(der)

    async def by_token(self, text: str, certificate_der: bytes | None) -> Caller:
        """Return whose token it is; raises NotKnown, TokenRejected, Unreachable."""
        return await self._known.register.by_token(text, certificate_der)

    async def refresh(self, *, is_asked: bool = False) -> None:
        """Read the configuration again where it has changed, or where somebody asks for it."""
        # One at a time: what was read earlier must not take the place of what was read later.
        async with self._reading:
            found = await asyncio.to_thread(self._look)
            if self._path is None or (found == self._stamp and not is_asked):
                return
            # As it was before it is read: what changes meanwhile is seen at the next look.
            self._stamp = found
            reason = await self._read_again(self._path)
            for hook in self.after_reading:
                await asyncio.to_thread(hook)
        if reason is None:
            _log.info("people who operate were read again", asked=is_asked)
        else:
            _log.error("people who operate stay as they were", asked=is_asked, reason=reason)

    async def _read_again(self, path: Path) -> str | None:
        """Take in what is there now, or return why everybody stays as they were."""
        try:
            reading = await asyncio.to_thread(_read_whole, path)
            config = reading.config
            known = await asyncio.to_thread(self._read, config.operators)
        except (Broken, Faults) as error:
            self.failures += 1
            return str(error)
        self.failures = 0
        self._anchor_file = config.operators.anchors if config.operators else None
        self._known = known
        self.reading = reading
        return None

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in (self._path, self._anchor_file))

    def _read(self, section: Operators | None) -> _Known:
        section = section or Operators()
        issuers = [(_terms(name, one), self._keys_of(one)) for name, one in section.issuers.items()]
        register = Register(
            [_person(name, one) for name, one in section.people.items()],
            groups={name: _groups(one) for name, one in section.issuers.items()},
            tokens=TokenVerifier(issuers, self._clock),
            refused=frozenset(section.refused_certificates),
            clock=self._clock,
        )
        return _Known(register, read_anchors(section.anchors))

    def _keys_of(self, section: TokenIssuerSection) -> KeyFinder:
        """Return the keys of an issuer; those that were read are kept when people change."""
        token = section.keys_token
        what = (section.issuer, section.keys_url, section.ca_bundle, section.keys, token)
        if what not in self._keys:
            self._keys[what] = IssuerKeys(
                section.issuer,
                self._source(section),
                self._clock,
                keys_url=section.keys_url if section.keys is None else str(section.keys),
            )
        return self._keys[what]

    def _source(self, section: TokenIssuerSection) -> DocumentSource:
        if section.keys is not None:
            return FileDocuments(section.keys)
        token = section.keys_token
        return HttpDocuments(
            section.ca_bundle,
            self._user_agent,
            read_token=None if token is None else token.resolve,
        )


def summaries() -> Mapping[str, str]:
    """Return a sentence for each command: what the desk says that it does."""
    return {
        name: " ".join((inspect.getdoc(getattr(OperatorDesk, name)) or "").split("\n\n")[0].split())
        for name in sorted(COMMANDS)
    }


def _read_whole(path: Path) -> ReadConfig:
    text = read_text(path)
    return ReadConfig(config=parse_config(text, str(path)), text=text)


def _stamp(path: Path | None) -> tuple[int, int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    )  # fmt: skip


def _roles(given: Mapping[str, tuple[Role, ...]]) -> Roles:
    return {community: frozenset(roles) for community, roles in given.items()}


def _person(name: str, section: PersonSection) -> Person:
    return Person(
        name=name,
        roles=_roles(section.roles),
        users=frozenset(section.users),
        certificates=frozenset(_match(one) for one in section.certificates),
        subjects=frozenset(
            (one.partition(":")[0], one.partition(":")[2]) for one in section.tokens
        ),
    )


def _subject(text: str) -> tuple[str, str]:
    issuer, _, subject = text.partition(":")
    return issuer, subject


def _match(text: str) -> CertificateMatch:
    face, _, value = text.partition(":")
    return CertificateMatch(Face(face), value)


def _groups(section: TokenIssuerSection) -> Mapping[str, Roles]:
    return {group: _roles(given) for group, given in section.groups.items()}


def _terms(name: str, section: TokenIssuerSection) -> TokenTerms:
    return TokenTerms(
        name=name,
        issuer=section.issuer,
        audience=section.audience,
        algorithms=tuple(section.algorithms),
        types=tuple(section.types),
        longest=section.longest,
        groups_claim=section.groups_claim,
    )
