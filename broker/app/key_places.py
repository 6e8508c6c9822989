"""Where configuration keeps keys, and what the next one of a kind is called."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.app.ca_keys import next_file_key_id
from broker.config import Config
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.config.vault import Vault
from broker.issuance.errors import Broken
from broker.issuance.key_ports import KeyFault
from broker.issuance.ports import KeyRing
from broker.issuance.upstream_key_ports import KeyUses
from broker.keys.moving import kind_of
from broker.keys.rings import VaultKeys
from broker.keys.transit_key import TYPES
from broker.keys.vault_ids import SCHEME, VaultKeyId, is_vault_id, parse_vault_key_id

__all__ = ["ConfiguredKeyPlaces", "Rings", "key_store_of"]

FILE: Final = "file"
"""How configuration says that keys lie in files."""

CA_KIND: Final = "ec-p256"
"""The kind of key that a built-in CA makes for itself."""

SUFFIX_BYTES: Final = 4
"""Random part of a new key file's name, in bytes: an account has a handful of keys in its life."""


class Rings(Protocol):
    """The keys in files and in Vault, apart."""

    @property
    def files(self) -> KeyRing:
        """Return the keys in files."""
        ...

    @property
    def vault(self) -> VaultKeys:
        """Return the keys in Vault; raises Broken where none is configured."""
        ...


class ConfiguredKeyPlaces:
    """Implements ``key_ports.KeyPlaces`` over configuration and what was used before."""

    def __init__(self, config: Config, *, rings: Rings, uses: KeyUses) -> None:
        """Keep where to look; nothing is asked before the first call."""
        self._config = config
        self._rings = rings
        self._uses = uses

    async def next_account_key_id(self, upstream: str, community: str, current: str | None) -> str:
        """Return the id that our account's next key will have, where configuration keeps it.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: Somebody made the next key in Vault already, and it must not be used as it is;
                or nobody made it, and no identity of ours may.
        """
        store = key_store_of(self._config, upstream, community)
        return await self.next_account_key_id_in(store, upstream, community, current)

    async def next_account_key_id_in(
        self, store: str, upstream: str, community: str, current: str | None
    ) -> str:
        """Return the id of our account's next key in *store*, ``file`` or ``vault:MOUNT``; raises
        as `next_account_key_id` does."""
        used = {*await self._uses.used_key_ids(), *([] if current is None else [current])}
        if store == FILE:
            # No name holds '@': with a '-' the community c of a-b would share a key with b-c of a.
            first = f"account-{upstream}@{community}"
            return first if first not in used else f"{first}.{secrets.token_hex(SUFFIX_BYTES)}"
        kind = _acme(self._config, upstream).account_key.kind
        chosen = await self._next_in_vault(store, f"{community}.{upstream}", used, kind)
        if await self._rings.vault.has_key(chosen):
            await self._verify_kind(chosen, kind)
        return chosen

    async def _verify_kind(self, key_id: str, kind: str) -> None:
        """See that a key which somebody made is of the kind that is configured: every version
        after it is of the same, and would be refused when the key is to be rotated."""
        found = kind_of(load_der_public_key(await self._rings.vault.public_key_now(key_id)))
        if found != kind:
            raise Broken(
                f"key {key_id} is of kind {found}, and account_key.kind is {kind}: name that kind "
                "in the configuration, or have the key made anew"
            )

    async def next_ca_key_id(self, upstream: str, role: str, taken: Sequence[str]) -> str:
        """Return the id that the built-in CA's next key will have; *role* is root or issuing.

        *taken* are ids that are spoken for and not yet in the store.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: As for accounts, or there are too many key files.
        """
        section = self._config.upstreams[upstream]
        if not isinstance(section, BuiltinUpstream):
            raise Broken(f"upstream '{upstream}' is not built in and has no keys of a CA")
        store = section.root_key_store if role == "root" else section.key_store
        if store == FILE:
            return await next_file_key_id(self._rings.files, upstream, role, taken)
        used = {*await self._uses.used_key_ids(), *taken}
        return await self._next_in_vault(store, f"{upstream}.{role}", used, CA_KIND)

    async def _next_in_vault(self, store: str, name: str, used: Iterable[str], kind: str) -> str:
        """Return the version that somebody made for us and nobody used, or the next one.

        A version that was ours once is never taken again: where Vault was restored to a time
        before it was made, a new one of that number would be another key by the same id.
        """
        vault = self._config.vault
        if vault is None:
            raise Broken(f"keys are to be in {store}, and no Vault is configured")
        mount = store.removeprefix(SCHEME)
        name = f"{vault.key_prefix}.{name}"
        spent = max(_versions(used, mount, name), default=0)
        latest = await self._rings.vault.latest_version(mount, name)
        chosen = str(VaultKeyId(mount, name, max(latest, spent + 1)))
        # Nobody used it, so that whatever was seen by this id was refused, and mended perhaps.
        self._rings.vault.forget(chosen)
        if latest <= spent:
            _verify_makeable(vault, mount, name, new_type=TYPES[kind] if latest == 0 else None)
        else:
            _verify_usable(await self._rings.vault.inspect(chosen))
        return chosen


def key_store_of(config: Config, upstream: str, community: str) -> str:
    """Return where keys of our account there are kept: ``file`` or ``vault:MOUNT``.

    Raises:
        Broken: The upstream knows no accounts, or the community is not configured any more.
    """
    section, served = _acme(config, upstream), config.communities.get(community)
    if served is None:
        raise Broken(f"community '{community}' is not configured, so its keys have no place")
    return served.key_store or section.account_key.store


def _acme(config: Config, upstream: str) -> AcmeUpstream:
    section = config.upstreams[upstream]
    if not isinstance(section, AcmeUpstream):
        raise Broken(f"upstream '{upstream}' is built in and knows no accounts")
    return section


def _verify_makeable(vault: Vault, mount: str, name: str, *, new_type: str | None) -> None:
    """See that somebody of ours may make the next version, before anything is begun for it."""
    own = vault.mounts.get(mount)
    if (vault.rotate if own is None else own.rotate) is not None:
        return
    where = "vault.rotate" if own is None else f"vault.mounts.{mount}.rotate"
    path = f"{mount}/keys/{name}"
    by_hand = f"vault write -f {path}{'/rotate' if new_type is None else f' type={new_type}'}"
    raise Broken(
        f"the next version of key {mount}/{name} is not there, and nobody of ours may make it: "
        f"have the security team do it ({by_hand}), or configure {where}"
    )


def _versions(used: Iterable[str], mount: str, name: str) -> Sequence[int]:
    ids = [parse_vault_key_id(one) for one in used if is_vault_id(one)]
    return [one.version for one in ids if (one.mount, one.name) == (mount, name)]


def _verify_usable(faults: Sequence[KeyFault]) -> None:
    """See that a key which somebody else made may be taken into use: here every fault counts, for
    nothing hangs on the key yet."""
    if faults:
        raise Broken(faults[0].reason)
