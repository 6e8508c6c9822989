"""Keys that come from elsewhere: into encrypted files, and from those into Vault as they are.

A key that is brought into Vault travels wrapped under a key of Vault's own, and what it was in is
let go only once Vault has signed with it.  That it has lived elsewhere nobody can undo; Vault
remembers it, and so do ``penstock check --online`` and the events (docs/adr/0019).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from broker.issuance.errors import Broken, Conflict
from broker.keys.importing import parse_pkcs8
from broker.keys.keyfile import KeyFileSigner
from broker.keys.transit_key import TYPES
from broker.keys.vault import Connections, VaultSigner
from broker.keys.vault_ids import VaultKeyId, parse_vault_key_id

__all__ = ["KeyImporter", "kind_of"]

CHALLENGE_BYTES: Final = 32
"""Length of what Vault has to sign to show that it has the key, in bytes: never asked before."""

MAX_VERSIONS: Final = 100
"""Most versions of a key in Vault among which one that was brought earlier is looked for."""


class KeyImporter:
    """Brings keys into files and into Vault."""

    def __init__(
        self,
        files: KeyFileSigner,
        vault: VaultSigner | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Keep the places; *vault* and *connections* are those of the same Vault, None for none."""
        self._files = files
        self._vault = vault
        self._connections = connections

    async def take_in(self, key_id: str, pkcs8_der: bytes) -> None:
        """Keep a key that was made elsewhere in an encrypted file; done twice it does nothing.

        Raises:
            Conflict: There is another key of that name.
            Broken: It is no key that can be kept.
        """
        try:
            key = parse_pkcs8(pkcs8_der)
        except ValueError as error:
            raise Broken(f"what is to be kept as '{key_id}' {error}") from error
        try:
            await self._files.import_key(key_id, key)
        except Conflict:
            if await self._files.public_key(key_id) != _spki(key):
                raise

    async def key_ids(self) -> Sequence[str]:
        """Return the ids of all keys that lie in files."""
        return await self._files.key_ids()

    async def kind_of(self, key_id: str) -> str:
        """Return the kind of a file's key, such as ``ec-p256``; raises Broken."""
        return kind_of(load_der_public_key(await self._files.public_key(key_id)))

    async def destination(self, key_id: str, mount: str, name: str) -> tuple[str, bool]:
        """Return the id that the key of a file has in Vault, or will have, and whether it has it.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: Another key has the name already, or Vault takes none of this kind.
        """
        spki_der = await self._files.public_key(key_id)
        _type_of(spki_der)
        vault, _ = self._parts()
        latest = await vault.latest_version(mount, name)
        if not latest:
            return str(VaultKeyId(mount, name, 1)), False
        for version in range(latest, max(0, latest - MAX_VERSIONS), -1):
            candidate = str(VaultKeyId(mount, name, version))
            if await self._is_there(vault, candidate, spki_der):
                return candidate, True
        raise Broken(
            f"there is a key {mount}/{name} in Vault already, and Vault imports only under a new "
            "name: move without importing, which gives the account a new version of it"
        )

    async def bring(self, key_id: str, new_key_id: str) -> None:
        """Bring the key of a file into Vault, and have Vault sign with it; see the port.

        Raises:
            Unreachable: Vault cannot answer now; it may have been brought.
            Broken: Vault does not take it, or signs with another key.
        """
        wanted = parse_vault_key_id(new_key_id)
        spki_der = await self._files.public_key(key_id)
        vault, connections = self._parts()
        if not await vault.has_key(new_key_id):
            await self._import(connections, key_id, wanted, _type_of(spki_der))
        if await vault.public_key(new_key_id) != spki_der:
            raise Broken(f"key {new_key_id} is another one than that of '{key_id}'")
        # Verified under the public key that was just compared, or it raises.
        await vault.sign(new_key_id, secrets.token_bytes(CHALLENGE_BYTES))

    async def _import(
        self, connections: Connections, key_id: str, wanted: VaultKeyId, type_: str
    ) -> None:
        async with connections.rotating(wanted.mount) as session:
            wrapping = _wrapping_key(await session.get(f"{wanted.mount}/wrapping_key"))
            ciphertext = await self._files.wrapped_key(key_id, wrapping)
            document: dict[str, Any] = {
                "ciphertext": base64.b64encode(ciphertext).decode("ascii"),
                "hash_function": "SHA256",
                "type": type_,
                "allow_rotation": True,
                "exportable": False,
                "allow_plaintext_backup": False,
            }
            path = f"{wanted.mount}/keys/{wanted.name}/import"
            # What changes a key is sent once, never again elsewhere; hvac has no call for it.
            await session.run(lambda client: client.write_data(path, data=document))

    async def _is_there(self, vault: VaultSigner, key_id: str, spki_der: bytes) -> bool:
        try:
            return await vault.public_key_now(key_id) == spki_der
        except Broken:
            return False  # archived or trimmed away: none that could be pinned

    def _parts(self) -> tuple[VaultSigner, Connections]:
        if self._vault is None or self._connections is None:
            raise Broken("no Vault is configured, add the section vault: to the configuration")
        return self._vault, self._connections


def kind_of(key: object) -> str:
    """Return the kind of a public key, in the words of configuration."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ec-p{key.key_size}"
    return "other"


def _type_of(spki_der: bytes) -> str:
    """Return Vault's word for the key's kind; raises Broken where it takes none such."""
    kind = kind_of(load_der_public_key(spki_der))
    if kind not in TYPES:
        raise Broken(f"key is of kind {kind}, expected one that Vault takes: {', '.join(TYPES)}")
    return TYPES[kind]


def _wrapping_key(data: Mapping[str, Any]) -> rsa.RSAPublicKey:
    try:
        key = load_pem_public_key(str(data["public_key"]).encode("ascii"))
    except (KeyError, ValueError):
        raise Broken("what Vault answered is no wrapping key") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise Broken("what Vault answered is no wrapping key")
    return key


def _spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
