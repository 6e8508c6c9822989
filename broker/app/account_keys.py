"""Our accounts at the configured CAs, as the change of their keys sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from broker.issuance.errors import Broken
from broker.issuance.ports import Signer
from broker.issuance.records import UpstreamAccountRecord
from broker.upstreams.client import AcmeClient
from broker.upstreams.gate import AccountGate
from broker.upstreams.rollover import change_key, find_account

__all__ = ["AccountGates", "ConfiguredAccounts"]


class AccountGates:
    """One gate for each account, shared by orders and by changes of its key."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str], AccountGate] = defaultdict(AccountGate)

    def of(self, upstream: str, community: str) -> AccountGate:
        """Return the gate of our account there."""
        return self._gates[upstream, community]


class ConfiguredAccounts:
    """Implements ``upstream_key_ports.AccountsAtCas``."""

    def __init__(
        self, clients: Mapping[str, AcmeClient], gates: AccountGates, signer: Signer
    ) -> None:
        self._clients = clients
        self._gates = gates
        self._signer = signer

    def held(self, upstream: str, community: str) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from using the account."""
        return self._gates.of(upstream, community).held()

    def set_certain(self, upstream: str, community: str, *, is_certain: bool) -> None:
        """Say whether the account's key is known."""
        self._gates.of(upstream, community).is_certain = is_certain

    async def change_key(self, account: UpstreamAccountRecord, new_key_id: str) -> None:
        """Ask the CA to give the account another key."""
        await change_key(self._client(account), self._signer, account, new_key_id)

    async def account_of(self, account: UpstreamAccountRecord, key_id: str) -> str | None:
        """Return the URL of the account that the CA knows by this key, None for none."""
        return await find_account(self._client(account), account, key_id)

    async def thumbprint(self, upstream: str, key_id: str) -> str:
        """Return the thumbprint of a key of ours."""
        client = self._clients.get(upstream)
        if client is None:
            raise Broken(f"upstream '{upstream}' is not configured as a CA that speaks ACME")
        return (await client.account_key(key_id)).jwk.thumbprint

    def _client(self, account: UpstreamAccountRecord) -> AcmeClient:
        client = self._clients.get(account.upstream)
        if client is None:
            raise Broken(f"upstream '{account.upstream}' is not configured as a CA with accounts")
        if client.directory_url != account.directory_url:
            raise Broken(
                f"account {account.account_url} is one of {account.directory_url}, and the "
                f"configuration names {client.directory_url}"
            )
        return client
