"""What every stock ACME client is asked to do here, and how it says that it can't.

A client is described by what it offers: a verb or a challenge that it lacks stands in a
table with the reason, so that a matrix of clients and CAs is made from facts and not from
tests that were left out.
"""

from __future__ import annotations

import abc
import datetime
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from tests.peers.client import DnsUpdates, ExternalAccount, Obtained

HTTP_01: Final = "http-01"
DNS_01: Final = "dns-01"
TLS_ALPN_01: Final = "tls-alpn-01"
CHALLENGES: Final = (HTTP_01, DNS_01, TLS_ALPN_01)


class Verb(enum.StrEnum):
    """Something that a client can be told to do."""

    OBTAIN = "obtain"
    RENEW = "renew"
    REVOKE = "revoke"
    REVOKE_BY_KEY = "revoke by certificate key"
    EXTERNAL_ACCOUNT = "external account binding"
    CONTACT = "update contact"
    KEY_CHANGE = "account key change"
    DEACTIVATE = "deactivate account"
    RSA = "RSA key"
    P384 = "P-384 key"
    CSR = "CSR from outside"
    PROFILE = "profile"
    NOT_AFTER = "notAfter"
    CHAIN = "preferred chain"
    RENEWAL_INFO = "renewal information"
    IPV4 = "IPv4 identifier"
    IPV6 = "IPv6 identifier"


OF_A_CHALLENGE: Final = (Verb.OBTAIN, Verb.RENEW, Verb.REVOKE)
"""Verbs that are tried with each challenge; the others are tried with one."""


class Key(enum.StrEnum):
    """Kinds of certificate keys."""

    P256 = "ec-p256"
    P384 = "ec-p384"
    RSA_2048 = "rsa-2048"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a client answers challenges: an address and ports of its own, and a name server."""

    address: str
    http_port: int
    tls_port: int
    updates: DnsUpdates

    @property
    def literal(self) -> str:
        """The address as it stands before a port."""
        return f"[{self.address}]" if ":" in self.address else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a certificate shall be like; each default leaves it to the client."""

    key: Key = Key.P256
    csr: Path | None = None
    profile: str | None = None
    not_after: datetime.datetime | None = None
    chain_of: str | None = None
    """Common name of the issuer that the chain shall lead to."""


PLAIN: Final = Wish()


class StockClient(abc.ABC):
    """One installation of a client, with an account and a store of its own."""

    kind: ClassVar[str]
    lacks: ClassVar[Mapping[str, str]] = {}
    """Verb or challenge that this client has no way to do → why."""

    def __init__(
        self,
        tmp: Path,
        directory_url: str,
        ca_bundle: Path,
        place: Place,
        *,
        external_account: ExternalAccount | None = None,
    ) -> None:
        self.directory = tmp
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory_url = directory_url
        self.ca_bundle = ca_bundle
        self.place = place
        self.external_account = external_account

    @classmethod
    def challenges(cls) -> list[str]:
        """Return the challenges that this client can answer."""
        return [one for one in CHALLENGES if one not in cls.lacks]

    @abc.abstractmethod
    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Obtain a certificate, registering first where that was not done yet."""

    @abc.abstractmethod
    async def renew(self) -> Obtained:
        """Renew what was obtained last, however long it still lasts."""

    async def renew_when_told(self) -> Obtained:
        """Renew what was obtained last, if the server's renewal information says so."""
        raise self.missing(Verb.RENEWAL_INFO)

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke a certificate as the account that ordered it."""
        raise self.missing(Verb.REVOKE)

    async def revoke_by_key(self, obtained: Obtained) -> None:
        """Revoke a certificate with its own key."""
        raise self.missing(Verb.REVOKE_BY_KEY)

    async def update_contact(self, address: str) -> None:
        """Replace the account's contact by a mail address."""
        raise self.missing(Verb.CONTACT)

    async def change_key(self) -> None:
        """Give the account another key."""
        raise self.missing(Verb.KEY_CHANGE)

    async def deactivate(self) -> None:
        """Give the account up."""
        raise self.missing(Verb.DEACTIVATE)

    async def close(self) -> None:
        """End whatever this client has running."""
        return

    def missing(self, verb: Verb) -> NotImplementedError:
        """Return the error for a verb that nobody may ask this client for."""
        return NotImplementedError(f"{self.kind} does not offer: {verb}")
