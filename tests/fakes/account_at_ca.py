"""A CA that knows one account of ours by one key, and can be told how to answer a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import KeyRing
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.problems import Problem, ProblemType

__all__ = ["FakeAccountsAtCas"]


class FakeAccountsAtCas:
    """Implements ``upstream_key_ports.AccountsAtCas`` for one account."""

    def __init__(self, signer: KeyRing, account_url: str, key_id: str) -> None:
        self._signer = signer
        self.account_url = account_url
        self.key_id: str | None = key_id
        """The key that the CA knows the account by."""
        self.others: dict[str, str] = {}
        """Key → another account at the CA."""
        self.is_away = False
        self.refusal: Problem | None = None
        self.loses_answers = False
        self.is_certain = True
        self.is_doubted = False
        self.changes = 0
        self.loss: str | None = None
        self.thumbprints: dict[str, str] = {}
        """Key → thumbprint, where it is to be another than the fake's own."""

    @asynccontextmanager
    async def held(self, upstream: str, community: str) -> AsyncIterator[None]:
        yield

    def set_certain(self, upstream: str, community: str, *, is_certain: bool) -> None:
        self.is_certain = is_certain

    def doubt(self, upstream: str, community: str) -> None:
        self.is_doubted = True

    def verify_usable(self, upstream: str, community: str) -> None:
        if self.loss is not None:
            raise Broken(self.loss)

    async def change_key(self, account: UpstreamAccountRecord, new_key_id: str) -> None:
        self._answer()
        if self.refusal is not None:
            raise Refused(self.refusal)
        await self._signer.sign(new_key_id, b"inner")
        await self._signer.sign(account.key_id, b"outer")
        if account.key_id != self.key_id:
            raise Refused(Problem(ProblemType.MALFORMED, "signature does not verify"))
        self.key_id = new_key_id
        self.changes += 1
        if self.loses_answers:
            raise Unreachable("the answer was lost")

    async def account_of(self, account: UpstreamAccountRecord, key_id: str) -> str | None:
        self._answer()
        if not await self._signer.has_key(key_id):
            raise Broken(f"there is no key '{key_id}'")
        return self.account_url if key_id == self.key_id else self.others.get(key_id)

    async def thumbprint(self, upstream: str, key_id: str) -> str:
        return self.thumbprints.get(key_id, f"thumbprint of {key_id}")

    def _answer(self) -> None:
        if self.is_away:
            raise Unreachable("the CA is away")
