"""Accounts and keys that come from elsewhere, as configuration has CAs and places for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from broker.app.key_places import key_store_of
from broker.app.outside import Outside
from broker.config import Config
from broker.config.upstreams import AcmeUpstream
from broker.issuance.adoption import Adoption
from broker.issuance.errors import Broken
from broker.issuance.key_moves import ADOPTED, KeyMoves
from broker.issuance.ports import Clock
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import KeyUses
from broker.keys.moving import KeyImporter
from broker.upstreams.adopting import look_up
from broker.upstreams.client import AcmeClient

__all__ = ["Takeover", "make_takeover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The workflows about what comes from elsewhere."""

    adoption: Adoption
    moves: KeyMoves


class ConfiguredForeignKeys:
    """Implements ``adoption_ports.ForeignKeys``: configuration says where, the importer does it."""

    def __init__(self, config: Config, importer: KeyImporter, uses: KeyUses) -> None:
        self._config = config
        self._importer = importer
        self._uses = uses

    def place(self, upstream: str, community: str) -> str:
        """Return where the configuration keeps keys of our account."""
        return key_store_of(self._config, upstream, community)

    async def take_in(self, key_id: str, pkcs8_der: bytes) -> None:
        """Keep a key that was made elsewhere in an encrypted file; see the port."""
        await self._importer.take_in(key_id, pkcs8_der)

    async def taken_in(self) -> Sequence[str]:
        """Return the ids of all keys that were taken in and still lie in files."""
        return [one for one in await self._importer.key_ids() if one.startswith(ADOPTED)]

    async def destination(self, key_id: str, upstream: str, community: str) -> str:
        """Return the id that the key of a file is to have in Vault; see the port."""
        vault = self._config.vault
        place = self.place(upstream, community)
        if vault is None:
            raise Broken(f"keys are to be in {place}, and no Vault is configured")
        section = self._config.upstreams[upstream]
        wanted = section.account_key.kind if isinstance(section, AcmeUpstream) else None
        kind = await self._importer.kind_of(key_id)
        if kind != wanted:
            raise Broken(
                f"key '{key_id}' is of kind {kind}, and the configuration says {wanted}: a key in "
                "Vault keeps its kind, so that it could never be rotated; set account_key.kind to "
                f"{kind} first, or move without importing"
            )
        name = f"{vault.key_prefix}.{community}.{upstream}"
        found, is_there = await self._importer.destination(
            key_id, place.removeprefix("vault:"), name
        )
        if not is_there and found in await self._uses.used_key_ids():
            raise Broken(
                f"{found} was another key of ours once, and an id names one key for good; move "
                "without importing, which gives the account a new key"
            )
        return found

    async def bring(self, key_id: str, new_key_id: str) -> None:
        """Bring the key of a file into Vault; see the port."""
        await self._importer.bring(key_id, new_key_id)


class ConfiguredElsewhere:
    """Implements ``adoption_ports.AccountsElsewhere`` over the configured CAs."""

    def __init__(
        self, clients: Mapping[str, AcmeClient], welcome: Callable[[str, str], None], clock: Clock
    ) -> None:
        self._clients = clients
        self._welcome = welcome
        self._clock = clock

    async def look_up(
        self, upstream: str, community: str, key_id: str, account_url: str | None
    ) -> UpstreamAccountRecord:
        """Return the account that the CA knows by this key; see the port."""
        client = self._clients.get(upstream)
        if client is None:
            raise Broken(f"upstream '{upstream}' is not configured as a CA that speaks ACME")
        return await look_up(
            account_url,
            upstream=upstream,
            community=community,
            key_id=key_id,
            client=client,
            clock=self._clock,
        )

    def welcome(self, upstream: str, community: str) -> None:
        """Let orders go to the account that was adopted there."""
        self._welcome(upstream, community)


def make_takeover(outside: Outside) -> Takeover:
    """Put the workflows together over the adapters of one broker."""
    foreign = ConfiguredForeignKeys(outside.config, outside.keys.importer, outside.store)
    moves = KeyMoves(
        outside.store,
        ring=outside.keys.rings,
        keys=outside.upstream_keys,
        foreign=foreign,
        clock=outside.clock,
    )
    adoption = Adoption(
        outside.store,
        ring=outside.keys.rings,
        places=outside.keys.places,
        keys=outside.upstream_keys,
        moves=moves,
        foreign=foreign,
        elsewhere=ConfiguredElsewhere(
            outside.upstreams.clients, outside.upstreams.welcome, outside.clock
        ),
        upstreams=outside.upstreams,
        clock=outside.clock,
    )
    return Takeover(adoption=adoption, moves=moves)
