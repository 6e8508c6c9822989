"""Seals secrets of the store under a transit key, and tells apart by whom something was sealed.

Vault encrypts and decrypts; the key never leaves it.  The context goes along as associated data, so
that what was sealed for one row opens for no other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from broker.issuance.errors import Broken
from broker.issuance.key_ports import Sealed, Sealer
from broker.keys.file_sealing import FILE_SCHEME
from broker.keys.transit_key import parse_transit_key
from broker.keys.vault_answers import VaultNotFound
from broker.keys.vault_ids import VaultKeyId, is_vault_id, parse_vault_key_id

__all__ = ["SealingConnections", "SealingSession", "StoreSealer", "TransitSealer"]

SEALING_TYPE: Final = "aes256-gcm96"
"""Type of the transit key.  Vault draws a random nonce of 96 bits for each secret."""

_CIPHERTEXT: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/]+={0,2}", re.ASCII)


class SealingSession(Protocol):
    """Somebody who is logged in to Vault; raises Unreachable and Broken alone."""

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write, and return the ``data`` of the answer."""
        ...

    async def get(self, path: str) -> Mapping[str, Any]:
        """Read, and return the ``data`` of the answer; raises VaultNotFound where nothing is."""
        ...


class SealingConnections(Protocol):
    """Who the broker is at a mount."""

    def serving(self, mount: str) -> SealingSession:
        """Return the identity that encrypts and decrypts there."""
        ...


class TransitSealer:
    """Implements ``key_ports.Sealer`` over one transit key, at its latest version."""

    def __init__(self, connections: SealingConnections, key: str) -> None:
        """Seal under *key*, ``MOUNT/NAME``; nothing is asked before the first call."""
        self._connections = connections
        self._mount, _, self._name = key.rpartition("/")

    async def sealing_key(self) -> str:
        """Return the key's latest version, as it stands in `Sealed.by`.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: There is no such key, or it is one that nothing may be sealed under.
        """
        return str(await self._latest())

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """Return the secret sealed for *context*; see the port."""
        key_id = await self._latest()
        answer = await self._connections.serving(key_id.mount).post(
            f"{key_id.mount}/encrypt/{key_id.name}",
            {
                "plaintext": _text(secret),
                "associated_data": _text(context.encode()),
                "key_version": key_id.version,
            },
        )
        ciphertext = answer.get("ciphertext")
        if not isinstance(ciphertext, str):
            raise Broken(f"what Vault answered is nothing that was sealed under {key_id}")
        sealed = Sealed(str(key_id), ciphertext.encode())
        _verify_version(sealed, key_id, context)
        return sealed

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """Return the secret, whichever transit key it was sealed under; see the port."""
        key_id = parse_vault_key_id(sealed.by)
        ciphertext = _verify_version(sealed, key_id, context)
        try:
            answer = await self._connections.serving(key_id.mount).post(
                f"{key_id.mount}/decrypt/{key_id.name}",
                {"ciphertext": ciphertext, "associated_data": _text(context.encode())},
            )
        except Broken as fault:
            raise Broken(
                f"secret of {context} does not open under {key_id}: {fault.reason}"
            ) from fault
        try:
            return base64.b64decode(answer["plaintext"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise Broken(f"what Vault answered is no secret sealed under {key_id}") from None

    async def _latest(self) -> VaultKeyId:
        where = f"{self._mount}/{self._name}"
        try:
            data = await self._connections.serving(self._mount).get(
                f"{self._mount}/keys/{self._name}"
            )
        except VaultNotFound:
            raise Broken(
                f"there is no sealing key {where}: "
                f"vault write -f {self._mount}/keys/{self._name} type={SEALING_TYPE}"
            ) from None
        key = parse_transit_key(where, data)
        if key.type != SEALING_TYPE or key.is_derived:
            made = f"{key.type}{', derived' if key.is_derived else ''}"
            raise Broken(
                f"sealing key {where} is of type {made}, expected {SEALING_TYPE}, not derived"
            )
        for is_so, can in (
            (key.is_exportable, "can be exported"),
            (key.is_plaintext_backup_allowed, "can be backed up in the clear"),
        ):
            if is_so:
                raise Broken(
                    f"sealing key {where} {can}, which Vault never takes back: make another key, "
                    "and name it in vault.sealing_key"
                )
        if key.is_deletion_allowed:
            raise Broken(
                f"sealing key {where} can be deleted: "
                f"vault write {self._mount}/keys/{self._name}/config deletion_allowed=false"
            )
        return VaultKeyId(self._mount, self._name, key.latest_version)


class StoreSealer:
    """Implements ``key_ports.Sealer``: seals in one way, and opens whatever was sealed in either.

    So the way may change: what is sealed under the other key is opened, and sealed anew.
    """

    def __init__(self, *, file: Sealer, transit: Sealer | None, is_in_vault: bool) -> None:
        """Seal in Vault, or with *file*; without *transit* there is no Vault to ask."""
        self._file = file
        self._transit = transit
        self._sealing = transit if is_in_vault and transit is not None else file

    async def sealing_key(self) -> str:
        """Return the key that `seal` seals under; see the port."""
        return await self._sealing.sealing_key()

    async def seal(self, secret: bytes, context: str) -> Sealed:
        """Return the secret sealed for *context*; see the port."""
        return await self._sealing.seal(secret, context)

    async def unseal(self, sealed: Sealed, context: str) -> bytes:
        """Return the secret; see the port."""
        if sealed.by.startswith(FILE_SCHEME):
            return await self._file.unseal(sealed, context)
        if not is_vault_id(sealed.by):
            raise Broken(f"secret of {context} is sealed under {sealed.by}, which says nothing")
        if self._transit is None:
            raise Broken(
                f"secret of {context} is sealed under {sealed.by}, and no Vault is configured"
            )
        return await self._transit.unseal(sealed, context)


def _verify_version(sealed: Sealed, key_id: VaultKeyId, context: str) -> str:
    """Return the ciphertext, which is of the version that it is said to be of."""
    text = sealed.octets.decode("ascii", "replace")
    found = _CIPHERTEXT.fullmatch(text)
    if found is None or int(found[1]) != key_id.version:
        raise Broken(f"secret of {context} was not sealed under {key_id}, as the store says")
    return text


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
