"""Keys and a CA as whoever looks after an account sees them, and somebody who makes accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from broker.issuance.account_ports import Standing
from broker.issuance.errors import KeyArchived
from broker.issuance.records import UpstreamAccountRecord
from tests.fakes.clock import START

__all__ = [
    "DIRECTORY",
    "KEY",
    "URL",
    "FakeAccountsAsked",
    "FakeRegistrar",
    "account_record",
]

DIRECTORY = "https://ca.example/directory"
URL = "https://ca.example/acct/1"
KEY = "vault:transit/penstock.default.ca#3"


def account_record(**changes: object) -> UpstreamAccountRecord:
    """Return our account as it was registered."""
    record = UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url=DIRECTORY,
        account_url=URL,
        key_id=KEY,
        thumbprint="third",
        registered_at=START,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


class FakeAccountsAsked:
    """Implements ``account_ports.AccountsAsked``: all is well until a test says otherwise."""

    def __init__(self) -> None:
        self.directories: dict[str, str] = {"ca": DIRECTORY}
        self.keys: dict[str, str] = {KEY: "third"}
        """Key → thumbprint."""
        self.archived: set[str] = set()
        self.standings: dict[str, Standing] = {}
        """Key → what the CA says when it speaks; VALID for the pinned one unless named."""
        self.new_accounts: dict[str, str] = {}
        """Key → the account that was made for it."""
        self.failure: Exception | None = None
        self.doubts: list[tuple[str, str]] = []
        self.lost: dict[tuple[str, str], str | None] = {}
        self.looks = 0
        self.is_certain = True
        """Whether it is known which key the account has."""

    @asynccontextmanager
    async def using(self, upstream: str, community: str) -> AsyncIterator[bool]:
        yield self.is_certain

    def directory_url(self, upstream: str) -> str | None:
        return self.directories.get(upstream)

    async def has_key(self, key_id: str) -> bool:
        return key_id in self.keys

    async def thumbprint_now(self, key_id: str) -> str | None:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        if key_id in self.archived:
            raise KeyArchived(f"key {key_id} is archived")
        return self.keys.get(key_id)

    async def standing(self, account: UpstreamAccountRecord, key_id: str) -> Standing:
        if key_id in self.new_accounts:
            is_its_own = self.new_accounts[key_id] == account.account_url
            return Standing.VALID if is_its_own else Standing.KEY_UNKNOWN
        usual = Standing.VALID if key_id == account.key_id else Standing.KEY_UNKNOWN
        return self.standings.get(key_id, usual)

    def doubted(self) -> list[tuple[str, str]]:
        return self.doubts

    def set_lost(self, upstream: str, community: str, reason: str | None) -> None:
        self.lost[upstream, community] = reason
        self.doubts = [one for one in self.doubts if one != (upstream, community)]


class FakeRegistrar:
    """Implements ``account_ports.AccountRegistrar`` over the same keys."""

    def __init__(self, asked: FakeAccountsAsked) -> None:
        self._asked = asked
        self.accounts = asked.new_accounts
        self.refusal: Exception | None = None
        self.made: list[str] = []

    @asynccontextmanager
    async def held(self, upstream: str, community: str) -> AsyncIterator[None]:
        yield

    async def next_key_id(self, upstream: str, community: str, current: str) -> str:
        stem, _, version = current.rpartition("#")
        return f"{stem}#{int(version) + 1 + len(self.made)}"

    async def make_key(self, upstream: str, key_id: str) -> None:
        if key_id not in self._asked.keys:
            self._asked.keys[key_id] = f"thumbprint of {key_id}"
            self.made.append(key_id)

    async def has_key(self, key_id: str) -> bool:
        return key_id in self._asked.keys

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        if self.refusal is not None:
            raise self.refusal
        url = self.accounts.setdefault(key_id, f"https://ca.example/acct/{len(self.accounts) + 2}")
        return account_record(account_url=url, key_id=key_id, thumbprint=f"thumbprint of {key_id}")
