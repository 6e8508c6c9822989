"""Our accounts at the configured CAs, as the change of their keys sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager

from broker.config import Config
from broker.config.upstreams import AcmeUpstream
from broker.issuance.errors import Broken
from broker.issuance.key_rotation import KeyPlan
from broker.issuance.ports import Signer
from broker.issuance.records import UpstreamAccountRecord
from broker.upstreams.client import AcmeClient
from broker.upstreams.gate import AccountGate
from broker.upstreams.rollover import change_key, find_account

__all__ = ["AccountGates", "ConfiguredAccounts", "key_plans"]


def key_plans(config: Config) -> Mapping[str, KeyPlan]:
    """Return what configuration says of account keys, by upstream."""
    return {
        name: KeyPlan(kind=each.account_key.kind, rotate_every=each.account_key.rotate_every)
        for name, each in config.upstreams.items()
        if isinstance(each, AcmeUpstream)
    }


class AccountGates:
    """One gate for each account, shared by orders and by changes of its key."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str], AccountGate] = defaultdict(AccountGate)

    def of(self, upstream: str, community: str) -> AccountGate:
        """Return the gate of our account there."""
        return self._gates[upstream, community]

    def doubted(self) -> Collection[tuple[str, str]]:
        """Return the accounts whose use has failed in a way that a lost one would show."""
        return [pair for pair, gate in self._gates.items() if gate.is_doubted]


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

    def doubt(self, upstream: str, community: str) -> None:
        """Have the account looked at."""
        self._gates.of(upstream, community).is_doubted = True

    def verify_usable(self, upstream: str, community: str) -> None:
        """See that the account is not known to be lost; raises Broken where it is."""
        loss = self._gates.of(upstream, community).loss
        if loss is not None:
            raise Broken(loss)

    async def change_key(self, account: UpstreamAccountRecord, new_key_id: str) -> None:
        """Ask the CA to give the account another key."""
        client = self._client(account)
        # One of that name was shown before, perhaps, and destroyed when its change was undone.
        client.forget_key(new_key_id)
        await change_key(client, self._signer, account, new_key_id)

    async def account_of(self, account: UpstreamAccountRecord, key_id: str) -> str | None:
        """Return the URL of the account that the CA knows by this key, None for none."""
        client = self._client(account)
        client.forget_key(key_id)
        return await find_account(client, account, key_id)

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
