"""The broker's keys: where they are, which of them are in use, and what is wrong with those."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from broker.app.key_places import ConfiguredKeyPlaces
from broker.app.key_watch import KeyWatch
from broker.app.secrets import Secrets
from broker.app.vault import vault_findings
from broker.config import Config
from broker.issuance.key_ports import Sealer
from broker.issuance.ports import Store
from broker.keys.file_sealing import FileSealer
from broker.keys.keyfile import KeyFileSigner
from broker.keys.moving import KeyImporter
from broker.keys.rings import KeyRings
from broker.keys.sealing import StoreSealer, TransitSealer
from broker.keys.vault import VaultSigner
from broker.keys.vault_session import VaultConnections

__all__ = ["BrokerKeys", "open_keys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerKeys:
    """The keys of one broker."""

    rings: KeyRings
    places: ConfiguredKeyPlaces
    watch: KeyWatch
    """Looks at those that are in use."""
    sealer: Sealer
    """Encrypts the store's secrets."""
    importer: KeyImporter
    """Takes in keys that were not made here."""


def open_keys(
    config: Config, store: Store, vault: VaultConnections | None, secrets: Secrets
) -> BrokerKeys:
    """Return the keys of a broker over its store; nothing is asked of Vault yet.

    Raises:
        Broken: The passphrase of the key files cannot be read.
    """
    files = KeyFileSigner(config.state / "keys", secrets.passphrase())
    in_vault = None if vault is None else VaultSigner(vault)
    rings = KeyRings(files, in_vault)
    return BrokerKeys(
        rings=rings,
        places=ConfiguredKeyPlaces(config, rings=rings, uses=store),
        watch=KeyWatch(
            config,
            ring=rings,
            store=store,
            of_the_place=None if vault is None else partial(vault_findings, config, vault),
        ),
        sealer=_sealer(config, vault, secrets),
        importer=KeyImporter(files, in_vault, vault),
    )


def _sealer(config: Config, vault: VaultConnections | None, secrets: Secrets) -> Sealer:
    named = config.vault.sealing_key if config.vault is not None else None
    return StoreSealer(
        file=FileSealer(config.state / "keys", secrets.passphrase()),
        # Without a key to seal under it opens all the same what an earlier one sealed.
        transit=None if vault is None else TransitSealer(vault, named or ""),
        is_in_vault=named is not None,
    )
