"""Our accounts at the configured CAs, as those who look after them see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.app.account_keys import AccountGates
from broker.issuance.account_ports import Standing
from broker.issuance.errors import Broken, Conflict, NoKeyStore
from broker.issuance.key_ports import KeyPlaces
from broker.issuance.ports import KeyRing
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.jws import jwk_from_public_key
from broker.upstreams.client import AcmeClient
from broker.upstreams.standing import ask_standing

__all__ = ["AccountsLookedAt", "ConfiguredRegistrar", "Registering", "Truth"]


class Truth(KeyRing, Protocol):
    """Keys that can be asked for what they are now, whatever is remembered of them."""

    async def public_key_now(self, key_id: str) -> bytes:
        """Return the SPKI DER of what lies under this id now."""
        ...


class Registering(Protocol):
    """Makes accounts as configuration says."""

    def account_key_kind(self, upstream: str) -> str:
        """Return which kind of key our account there is to have; raises Broken."""
        ...

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find the account of this key at the CA, or have one made."""
        ...


class AccountsLookedAt:
    """Implements ``account_ports.AccountsAsked``."""

    def __init__(self, clients: Mapping[str, AcmeClient], gates: AccountGates, ring: Truth) -> None:
        self._clients = clients
        self._gates = gates
        self._ring = ring

    @asynccontextmanager
    async def using(self, upstream: str, community: str) -> AsyncIterator[bool]:
        """Keep changes of the account's key away; yields whether none of them is in doubt."""
        gate = self._gates.of(upstream, community)
        async with gate.using(is_lost_too=True, is_uncertain_too=True):
            yield gate.is_certain

    def directory_url(self, upstream: str) -> str | None:
        """Return the directory that configuration names, None where it names no such CA."""
        client = self._clients.get(upstream)
        return None if client is None else client.directory_url

    async def has_key(self, key_id: str) -> bool:
        """Return whether the key is there; of a mount that is gone none is."""
        try:
            return await self._ring.has_key(key_id)
        except NoKeyStore:
            return False

    async def thumbprint_now(self, key_id: str) -> str | None:
        """Return the thumbprint of the key that lies under this id, None where none does."""
        if not await self.has_key(key_id):
            return None
        spki_der = await self._ring.public_key_now(key_id)
        return jwk_from_public_key(load_der_public_key(spki_der)).thumbprint

    async def standing(self, account: UpstreamAccountRecord, key_id: str) -> Standing:
        """Return what the CA says when this key speaks for the account."""
        client = self._clients.get(account.upstream)
        if client is None:
            raise Broken(f"upstream '{account.upstream}' is not configured as a CA with accounts")
        client.forget_key(key_id)
        return await ask_standing(client, account, key_id)

    def doubted(self) -> Collection[tuple[str, str]]:
        """Return the pairs whose use has failed, or may have, for the account's sake."""
        return self._gates.doubted()

    def set_lost(self, upstream: str, community: str, reason: str | None) -> None:
        """Have everybody who would use the account be told *reason* instead."""
        gate = self._gates.of(upstream, community)
        gate.loss = reason
        gate.is_doubted = False


class ConfiguredRegistrar:
    """Implements ``account_ports.AccountRegistrar``."""

    def __init__(
        self, accounts: Registering, gates: AccountGates, *, ring: KeyRing, places: KeyPlaces
    ) -> None:
        self._accounts = accounts
        self._gates = gates
        self._ring = ring
        self._places = places

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from using the account."""
        return self._gates.of(upstream, community).held()

    async def next_key_id(self, upstream: str, community: str, current: str) -> str:
        """Return the id that the next key will have; nothing is made."""
        return await self._places.next_account_key_id(upstream, community, current)

    async def make_key(self, upstream: str, key_id: str) -> None:
        """Make the key, of the kind that is configured; one that is there is left alone."""
        kind = self._accounts.account_key_kind(upstream)
        if await self._ring.has_key(key_id):
            return  # somebody made it for us, who may not make it ourselves
        with suppress(Conflict):
            await self._ring.create_key(key_id, kind)

    async def has_key(self, key_id: str) -> bool:
        """Return whether the key is there."""
        return await self._ring.has_key(key_id)

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find the account of this key at the CA, or have one made."""
        return await self._accounts.register_with(
            upstream, community, key_id, agree_to_terms=agree_to_terms
        )
